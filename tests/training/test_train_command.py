"""`fastmrigan train` as a user meets it: prepared slices in, a run folder or one line of error."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmrigan.cli.demo import steps as demo_steps
from fastmrigan.training import checkpoint, loop
from fastmrigan.training.logging import read_metrics
from fastmrigan.training.recipe_file import load_recipe

TINY = [
    "generator.width=4",
    "generator.latent=8",
    "discriminator.width=4",
    "batch=4",
    "log_every=1",
]
SETTINGS = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Sixteen 64x64 slices of two labels, prepared."""
    from fastmrigan.imaging.prepare import PrepareOptions, prepare

    root = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for index in range(16):
        folder = root / "source" / ("tumour" if index % 2 else "normal")
        folder.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"slice{index:02}.png")
    prepare(root / "source", root / "data", PrepareOptions(size=64))
    return root / "data"


def test_dry_run_needs_no_data(command, tmp_path):
    code, out, _ = command("train", "tumour-dcgan64", "--dry-run", "--set", "precision=bf16")
    assert code == 0
    (tmp_path / "printed.yaml").write_text(out)
    recipe = load_recipe(str(tmp_path / "printed.yaml"))
    assert recipe == load_recipe("tumour-dcgan64", ["precision=bf16"])
    assert "# generator: 3,574,656 parameters" in out
    assert "# discriminator: 2,763,520 parameters" in out


def test_trains_one_label_and_resumes(command, prepared, tmp_path):
    run = tmp_path / "run"
    words = ["train", "tumour-dcgan64", "--data", prepared, "--out", run, *SETTINGS]
    words += ["--set", "label=tumour", "--steps"]
    code, out, err = command(*words, 2)
    assert code == 0
    assert "warning" not in err
    assert re.search(r"run: step 2 \(epoch .*\), 2 steps in", out)
    assert "next: fastmrigan export" in out
    assert "step 3 (epoch 1.7), 1 step in" in command(*words, 3)[1]
    assert "already at step 3; give more --steps" in command(*words, 3)[1]
    dataset = checkpoint.load_generator(run).dataset
    assert dataset["label"] == "tumour"
    assert dataset["training_slices"] < 9
    assert "/" not in str(dataset)


def test_labels_that_are_trained_on_together_are_told(command, prepared, tmp_path):
    words = ["train", "tumour-dcgan64", "--data", prepared, "--out", tmp_path / "run", *SETTINGS]
    code, _, err = command(*words, "--steps", 1)
    assert code == 0
    told = f"warning: {prepared}: slices of 2 labels are trained on together (normal 8, tumour 8); "
    assert f"{told}--set label=NAME takes those of one\n" in err


@pytest.mark.parametrize(
    ("long", "bound", "told"), [(0.0, [], True), (0.0, ["--minutes", 5], False), (60, [], False)]
)
def test_a_run_that_takes_long_is_told_of_minutes(
    command, prepared, tmp_path, monkeypatch, long, bound, told
):
    monkeypatch.setattr(loop, "LONG", long)
    words = ["train", "tumour-dcgan64", "--data", prepared, "--out", tmp_path / "run", *SETTINGS]
    code, _, err = command(*words, "--steps", 13, *bound)
    assert code == 0
    line = r"train: at [\d.]+ s a step, the 2 steps that are left take about 0:\d\d h; --minutes N "
    assert len(re.findall(line, err)) == told


@pytest.mark.parametrize("name", ["run.json", "dataset.json"])
def test_a_folder_of_something_else_is_left_as_it_is(command, prepared, tmp_path, name):
    """A job of `synth` has a run.json too: one written over, it could not go on."""
    (tmp_path / name).write_text('{"layout": 1}')
    words = ["train", "tumour-dcgan64", "--data", prepared, "--out", tmp_path, *SETTINGS]
    code, _, err = command(*words, "--steps", 1)
    assert code == 2
    assert f"{tmp_path}: holds something other than a run ({name}); name another folder" in err
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_named_command_resumes(prepared, tmp_path, number):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fastmrigan", "train", "tumour-dcgan64"]
    command += ["--data", str(prepared), "--out", str(run), *SETTINGS]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--minutes", "5"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 300
        while len(read_metrics(run / "metrics.jsonl")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        errors = process.communicate(timeout=300)[1]
    assert process.returncode == 130
    line = errors.splitlines()[-1]
    found = re.search(
        r"stopped at step ([\d,]+), all of it saved; resume with: fastmrigan (.*)", line
    )
    assert found, errors
    assert found[2].startswith("train tumour-dcgan64 --data")
    step = int(found[1].replace(",", ""))
    assert checkpoint.steps_of(run)[-1] == step == len(read_metrics(run / "metrics.jsonl"))
    if number == signal.SIGTERM:
        return  # one resumed run is enough
    again = subprocess.run(
        [*command, "--steps", str(step + 1)], capture_output=True, text=True, env=environment
    )
    assert again.returncode == 0, again.stderr
    assert f"step {step + 1:,} " in again.stdout
    assert "1 step in" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["tumour"],
            "no recipe named 'tumour'; .*; shipped are ct-mri.*, phantom-quick, .*tumour-dcgan64",
        ),
        (["nothing.yaml"], "nothing.yaml: No such file"),
        (["tumour-dcgan64"], "--data and --out missing; only --dry-run goes without"),
        (["tumour-dcgan64", "--set", "bacth=3"], "no field 'bacth'.*'batch'"),
        (["tumour-dcgan64", "--data", "nowhere", "--out", "x"], "nowhere: not a prepared data set"),
        (["tumour-dcgan64", "--device", "tpu", "--data", "d", "--out", "x"], "auto, cpu or cuda"),
    ],
)
def test_errors_are_one_line(command, arguments, text):
    code, _, errors = command("train", *arguments)
    assert code == 2
    assert re.fullmatch(rf"fastmrigan: .*{text}.*\n", errors), errors


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("seed=99999999999999999999999", "seed: "),
        ("optimiser.betas=[1.5,2]", r"optimiser\.betas\.0: "),
        ("best_metric=sim", r"best_metric: unknown; known are ssim \(higher is better\)"),
        ("best_metric=fd_random", r"best_metric fd_random: nothing is evaluated"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(command, setting, text):
    code, _, errors = command("train", "tumour-dcgan64", "--dry-run", "--set", setting)
    assert code == 2
    assert re.search(text, errors), errors


@pytest.mark.parametrize("folder", ["-weird", "demo", "a b"])
def test_the_demos_folder_is_never_an_option(folder):
    for words in demo_steps(Path(folder)):
        named = [word for word in words if folder in word]
        assert named
        assert not any(word.startswith("-") for word in named)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_waits_until_its_command_has_saved(prepared, tmp_path, number):
    run = tmp_path / "run"
    words = ["train", "tumour-dcgan64", "--data", str(prepared), "--out", str(run), *SETTINGS]
    script = "from fastmrigan.cli import demo, main\n"
    script += f"demo.steps = lambda out: [{[*words, '--minutes', '5']!r}]\nmain()"
    with subprocess.Popen(
        [sys.executable, "-c", script, "demo", "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 300
        while len(read_metrics(run / "metrics.jsonl")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, number)  # as a terminal does
        process.wait(timeout=300)
        saved = checkpoint.steps_of(run)  # now, and not once its output has ended
        errors = process.stderr.read()
    assert saved
    assert process.returncode == 130, errors
    assert saved[-1] == len(read_metrics(run / "metrics.jsonl"))
    *_, stopped, last = errors.splitlines()
    assert f"stopped at step {saved[-1]:,}, all of it saved; resume with: " in stopped
    assert last == "fastmrigan: interrupted; the same command does what is missing"


def test_torch_is_named_where_it_is_missing(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, errors = command("train", "tumour-dcgan64", "--dry-run")
    assert code == 2
    assert "needs the package torch" in errors
    assert "pip install 'fastmrigan[train]'" in errors


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("batch=64", r"1\d training slices are fewer than one batch of 64; use --set batch=1\d"),
        ("size=32", "slices are 64x64, tumour-dcgan64 trains at 32x32; prepare .* --size 32"),
        ("label=tumor", "no label 'tumor'; it has"),
    ],
)
def test_data_that_does_not_fit(command, prepared, tmp_path, setting, text):
    code, _, errors = command(
        "train", "tumour-dcgan64", "--data", prepared, "--out", tmp_path / "r", "--set", setting
    )
    assert code == 2
    assert re.search(text, errors), errors
    assert not (tmp_path / "r").exists()


def test_a_run_folder_that_is_a_file(command, prepared, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, errors = command(
        "train", "tumour-dcgan64", "--data", prepared, "--out", tmp_path / "file", *SETTINGS
    )
    assert code == 2
    assert "file: is a file; name a folder for --out" in errors
