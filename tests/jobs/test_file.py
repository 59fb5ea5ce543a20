"""Job files: what they may say, and several jobs in one command."""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tiny_model as tiny
from job_files import digests
from PIL import Image

from fastmrigan.cli import bulk
from fastmrigan.cli.synth import synth
from fastmrigan.cli.translate import translate
from fastmrigan.errors import UsageError
from fastmrigan.imaging.options import BURNED_IN, PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import job
from fastmrigan.jobs.file import BATCH, JobTable, read_jobs
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.output import QUANTISERS
from fastmrigan.jobs.spec import Sampled, Translated
from fastmrigan.runtime.backends import BACKENDS
from fastmrigan.runtime.backends.base import MODES
from fastmrigan.runtime.model_file import PRECISIONS


@pytest.fixture
def write(tmp_path):
    """write(text) is a job file in `tmp_path`."""

    def file(text: str, name: str = "night.toml") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return file


@pytest.fixture
def models(write_model) -> None:
    """sample.onnx and negative.onnx, beside the job file."""
    write_model(name="sample.onnx")
    document = tiny.metadata(task="translate", latent_size=None, source_contrast="t1")
    write_model(document, tiny.tiny_graph("translate"), "negative.onnx")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A prepared dataset of 12 slices."""
    root, dice = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "png").mkdir()
    for number in range(12):
        x = dice.integers(0, 256, (tiny.SIZE, tiny.SIZE), dtype=np.uint8)
        Image.fromarray(x).save(root / "png" / f"{number:02}.png")
    prepare(root / "png", root / "set", PrepareOptions(size=tiny.SIZE, label="head"))
    return root / "set"


@pytest.fixture
def data(prepared, tmp_path) -> Path:
    """It, as `set` beside the job file."""
    return shutil.copytree(prepared, tmp_path / "set")


TWO = """
    shard_size = 16
    batch = 4

    [[job]]
    model = "sample.onnx"
    out = "night/sampled"
    count = 40
    seed = 7

    [[job]]
    model = "negative.onnx"
    out = "night/negative"
    inputs = "set"
    label = "head"
    format = "npz"
    batch = 3
"""


def test_what_all_share_goes_behind_what_a_job_states(write, tmp_path):
    first, second = read_jobs(write(TWO))
    assert first.inputs == Sampled(40, 7)
    assert (first.output.shard_size, first.output.format, first.engine.batch) == (16, "shard", 4)
    assert first.engine.model == tmp_path / "sample.onnx"
    assert second.inputs == Translated(tmp_path / "set", label="head")
    assert (second.output.shard_size, second.output.format, second.engine.batch) == (16, "npz", 3)
    assert second.output.out == tmp_path / "night" / "negative"


def test_of_what_all_share_a_job_takes_what_its_kind_has_a_use_for(write, tmp_path):
    shared = 'model = "m"\ncount = 5\nseed = 3\nsplit = "test"\n'
    samples, translates = read_jobs(
        write(f'{shared}[[job]]\nout = "a"\n[[job]]\nout = "b"\ninputs = "set"\n')
    )
    assert samples.inputs == Sampled(5, 3)
    assert translates.inputs == Translated(tmp_path / "set", "test")
    assert (samples.engine.batch, translates.engine.batch) == (64, 8)


def test_home_and_absolute_paths_are_meant_as_they_stand(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    (spec,) = read_jobs(write('[[job]]\nmodel = "~/m.onnx"\nout = "/data/o"\ncount = 1\n'))
    assert (spec.engine.model, spec.output.out) == (Path("/home/ada/m.onnx"), Path("/data/o"))


JOB = '[[job]]\nmodel = "m"\nout = "o"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{JOB}count = 1\nshard_sise = 8\n", "job 1: shard_sise: unknown key; the nearest is 's"),
        (f"shard-size = 8\n{JOB}count = 1\n", "night.toml: shard-size: unknown key; the nearest"),
        (f"{JOB}count = 1\nzzz = 8\n", "job 1: zzz: unknown key; known are model, out, count"),
        (f"{JOB}count = 1\njob = 8\n", "job 1: job: unknown key"),
        ('[[jobs]]\nmodel = "m"\n', "expected a [[job]] for each job, and it has none"),
        ('[job]\nmodel = "m"\n', "expected a [[job]] for each job, and it has something else"),
        ("job = []\n", "holds no job"),
        ("", "expected a [[job]]"),
        (JOB, "job 1: states neither count nor inputs"),
        (f'{JOB}count = 1\ninputs = "i"\n', "job 1: states both count and inputs"),
        (f'count = 1\ninputs = "i"\n{JOB}', "job 1: states both count and inputs"),
        (f'{JOB}inputs = "i"\nseed = 1\n', "job 1: seed: has no meaning for a job that translates"),
        (f'{JOB}count = 1\nlabel = "a"\n', "job 1: label: has no meaning for a job that samples"),
        (f"{JOB}count = 0\n", "job 1: count: Input should be greater than or equal to 1, got 0"),
        (f'{JOB}count = "9"\n', "job 1: count: Input should be a valid integer, got '9'"),
        (f"{JOB}count = true\n", "job 1: count: Input should be a valid integer, got True"),
        (f"{JOB}count = 1\nseed = -1\n", "job 1: seed: Input should be greater"),
        (f'{JOB}count = 1\nformat = "gif"\n', "job 1: format: Input should be 'shard', 'npz'"),
        (f"batch = 5000\n{JOB}count = 1\n", "night.toml: batch: Input should be less than or equ"),
        ('out = "o"\n[[job]]\nmodel = "m"\ncount = 1\n', "out: two jobs cannot share a folder"),
        ('[[job]]\nmodel = "m"\ncount = 1\n', "job 1: out: is missing"),
        ('[[job]]\nout = "m"\ncount = 1\n', "job 1: model: is missing"),
        ("[[job]\n", "not readable as TOML"),
        (f"{JOB}count = 1\n{JOB}count = 2\n", "jobs 1 and 2 go into one folder"),
        (
            f'{JOB}count = 1\n[[job]]\nmodel = "m"\nout = "p/../o"\ncount = 2\n',
            "jobs 1 and 2 go into one folder",
        ),
    ],
)
def test_a_faulty_file_is_refused_in_a_line(command, write, tmp_path, text, told):
    path = write(text)
    with pytest.raises(UsageError) as refused:
        read_jobs(path)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(path))
    code, stdout, stderr = command("run", path)
    assert (code, stdout, stderr) == (2, "", f"fastmrigan: {refused.value}\n")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_two_names_of_one_folder_are_one_folder(write, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "p").symlink_to("o")
    path = write(f'{JOB}count = 1\n[[job]]\nmodel = "m"\nout = "p"\ncount = 1\n')
    with pytest.raises(UsageError, match="jobs 1 and 2 go into one folder"):
        read_jobs(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "No such file"), (b"\xff\xfe", "not a text file")],
)
def test_a_file_that_cannot_be_read(tmp_path, content, told):
    if content is not None:
        (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(UsageError, match=told):
        read_jobs(tmp_path / "x.toml")


def choices(field: str) -> list[str]:
    found = JobTable.model_fields[field].annotation
    while not all(isinstance(arg, str) for arg in get_args(found)):
        found = get_args(found)[0]
    return list(get_args(found))


# What `run` has for all jobs, and what is for one job of many processes or machines
NOT_IN_A_FILE = {"dry_run", "budget_check", "workers", "shard_range"}
NOT_IN_A_FILE |= {"runner", "ray_address", "ray_actors"}


def test_the_keys_are_what_the_commands_know():
    assert choices("format") == list(FORMATS)
    assert choices("dtype") == list(QUANTISERS)
    assert choices("backend") == ["auto", *BACKENDS]
    assert choices("precision") == ["auto", *PRECISIONS]
    assert sorted(choices("mode")) == sorted(MODES)
    assert choices("allow_burned_in") == list(BURNED_IN)
    for name, of in (("synth", synth), ("translate", translate)):
        options = inspect.signature(of).parameters
        assert options["batch"].default == BATCH[name]
        for key in options.keys() - {"batch", "model", "out", "count", "inputs"}:
            if key in NOT_IN_A_FILE:
                continue
            assert JobTable.model_fields[key].default == options[key].default


def test_each_job_makes_what_its_own_command_makes(command, write, models, data, tmp_path):
    code, stdout, stderr = command("run", write(TWO))
    assert code == 0, stderr
    lines = stdout.splitlines()
    night = tmp_path / "night"
    assert lines[-2:] == [
        f"job 1 ({night / 'sampled'}): done",
        f"job 2 ({night / 'negative'}): done",
    ]
    shared = ["--shard-size", 16]
    sampled = ["synth", tmp_path / "sample.onnx", "--count", 40, "--seed", 7, "--batch", 4]
    assert command(*sampled, *shared, "--out", tmp_path / "s")[0] == 0
    negative = ["translate", tmp_path / "negative.onnx", "--inputs", data, "--batch", 3]
    negative += ["--label", "head", "--format", "npz"]
    assert command(*negative, *shared, "--out", tmp_path / "n")[0] == 0
    assert digests(night / "sampled") == digests(tmp_path / "s") != {}
    assert digests(night / "negative") == digests(tmp_path / "n") != {}


def test_what_is_finished_is_passed_over_without_an_engine(
    command, write, models, data, monkeypatch, tmp_path
):
    path = write(TWO)
    assert command("run", path)[0] == 0

    def no_engine(*_: object) -> None:
        raise AssertionError("an engine was started")

    monkeypatch.setattr("fastmrigan.runtime.generator.open_backend", no_engine)
    code, stdout, _ = command("run", path)
    assert code == 0
    night = tmp_path / "night"
    names = [f"job 1 ({night / 'sampled'})", f"job 2 ({night / 'negative'})"]
    assert stdout.splitlines() == [
        f"{names[0]}: nothing to make, its 3 shards are there",
        f"{names[1]}: nothing to make, its 1 shard is there",
        *(f"{name}: done before" for name in names),
    ]


@pytest.mark.parametrize("spoil", ["model", "inputs"])
def test_a_job_that_is_refused_does_not_stop_the_others(
    command, write, models, data, tmp_path, spoil
):
    path = write(TWO.replace('"sample.onnx"', '"broken.onnx"') if spoil == "model" else TWO)
    shutil.copy(tmp_path / "sample.onnx", tmp_path / "broken.onnx")
    with (tmp_path / "broken.onnx").open("r+b") as file:
        file.truncate(500)
    if spoil == "inputs":
        (tmp_path / "set" / "index.jsonl").write_text("{}\n")
    code, stdout, stderr = command("run", path)
    failed, done = ("sampled", "negative") if spoil == "model" else ("negative", "sampled")
    assert code == (5 if spoil == "model" else 3)
    said = {line.split("): ")[0].rsplit("/")[-1]: line for line in stdout.splitlines()[-2:]}
    assert said[done].endswith(": done")
    assert ": failed: " in said[failed]
    assert ": failed: " in stderr
    assert list((tmp_path / "night" / done).glob("shard-*"))
    assert not (tmp_path / "night" / failed).exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('"negative.onnx"', '"absent.onnx"'), "cannot read the model file"),
        (('inputs = "set"', 'inputs = "absent"'), "no such file or folder"),
        (('label = "head"', 'label = "foot"'), "no label 'foot'"),
        (('"negative.onnx"', '"sample.onnx"'), "samples slices and cannot translate them"),
        (('format = "npz"', 'format = "npz"\nbackend = "tensorrt"'), "pip install"),
        (('out = "night/negative"', 'out = "night.toml/o"'), "night.toml is a file"),
        (('out = "night/negative"', 'out = "set"'), "is the prepared dataset itself"),
        (('out = "night/negative"', 'out = "begun"'), "count is 999 there and 12 here"),
    ],
)
def test_a_mistake_in_the_last_job_is_found_before_the_first_begins(
    command, write, models, data, tmp_path, change, told
):
    (tmp_path / "begun").mkdir()
    known = {
        "task": "translate",
        "model_sha256": hashlib.sha256((tmp_path / "negative.onnx").read_bytes()).hexdigest(),
        "dataset": json.loads((data / "dataset.json").read_text())["fingerprint"],
        "split": "all",
        "label": "head",
        "count": 999,
    }
    (tmp_path / "begun" / "run.json").write_text(json.dumps(known))
    path = write(TWO.replace(*change))
    code, _, stderr = command("run", path)
    assert code == 2
    assert stderr.startswith(f"fastmrigan: {path}: job 2: ")
    assert stderr.count("\n") == 1
    assert told in stderr
    assert not (tmp_path / "night").exists()


def test_all_mistakes_are_told_at_once(command, write, data):
    code, _, stderr = command("run", write(TWO))  # no models
    assert code == 2
    above, last = stderr.splitlines()
    assert above.startswith("job 2 (")
    assert "negative.onnx: cannot read the model file" in above
    assert "job 1: " in last
    assert last.endswith(" (and 1 more, named above)")


def test_inputs_that_change_while_another_job_runs(
    command, write, models, data, tmp_path, monkeypatch
):
    """They were read through when all was planned; what is made of others must not bear their
    name."""
    real = bulk.start

    def start(job, *others):
        code = real(job, *others)
        with (tmp_path / "set" / "slices.npy").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
        return code

    monkeypatch.setattr(bulk, "start", start)
    code, stdout, _ = command("run", write(TWO))
    assert code == 2
    first, second = stdout.splitlines()[-2:]
    assert first.endswith(": done")
    assert f"{tmp_path / 'set'}: was changed since the job was planned; run the same" in second
    assert not list((tmp_path / "night" / "negative").glob("shard-*"))


def test_an_engine_that_does_not_start_is_the_jobs_own_affair(
    command, write, models, data, tmp_path
):
    text = TWO.replace('out = "night/sampled"', 'out = "night/sampled"\nprecision = "fp16"')
    code, stdout, _ = command("run", write(text))
    assert code == 2
    first, second = stdout.splitlines()[-2:]
    assert "failed: precision 'fp16'" in first
    assert second.endswith("negative): done")


def test_a_full_disk_stops_all_and_the_same_command_goes_on(
    command, write, models, data, tmp_path, monkeypatch
):
    real = job.commit

    def full(folder, fmt, content, origin):
        if content.shard.number == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(folder, fmt, content, origin)

    path = write(TWO)
    monkeypatch.setattr(job, "commit", full)
    code, stdout, stderr = command("run", path)
    assert code == 4
    first, second = stdout.splitlines()[-2:]
    assert "stopped: " in first
    assert "16 of 40 slices are safe" in first
    assert second.endswith("not begun")
    assert "no space left" in stderr.splitlines()[-1]
    assert not (tmp_path / "night" / "negative").exists()
    monkeypatch.setattr(job, "commit", real)
    code, stdout, _ = command("run", path)
    assert code == 0
    assert "sampled: 40 slices, " in stdout
    assert len(list((tmp_path / "night" / "sampled").glob("shard-*.tar"))) == 3


def test_the_budget_is_of_all_jobs_together(command, write, models, data, tmp_path, monkeypatch):
    from fastmrigan.jobs import budget

    path = write(TWO.replace("count = 40", "count = 1000"))
    of_two = 2 * budget.RESERVE
    real = budget.room_of

    def tight(out: Path) -> budget.Room:
        return budget.Room(real(out).device, of_two + 1_000_000, None, 4096)

    monkeypatch.setattr(budget, "room_of", tight)
    code, _, stderr = command("run", path)
    assert code == 4
    assert "its 2 jobs need 4." in stderr
    assert not (tmp_path / "night").exists()
    assert command("run", path, "--no-budget-check")[0] == 0


def test_a_dry_run_tells_of_all_jobs_and_writes_nothing(command, write, models, data, tmp_path):
    path = write(TWO)
    before = sorted(p for p in tmp_path.rglob("*"))
    code, stdout, stderr = command("run", path, "--dry-run")
    assert code == 0, stderr
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert stdout.count("plan of ") == 2
    assert stdout.count(", if it began now") == 2
    assert stdout.count("can begin") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_jobs(write, models, data, tmp_path, number):
    path = write(TWO.replace("count = 40", "count = 60000"))
    command = [sys.executable, "-m", "fastmrigan", "run", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "night" / "sampled").glob("shard-*.tar"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command goes on from there" in stderr.splitlines()[-1]
    first, second = stdout.splitlines()[-2:]
    assert "stopped: " in first
    assert second.endswith("not begun")


def test_the_example_is_a_job_file():
    path = Path(__file__).parents[2] / "docs" / "examples" / "night.toml"
    sampled, translated, study = read_jobs(path)
    assert sampled.inputs == Sampled(20000, 7)
    assert translated.inputs == Translated(path.parent / "prepared" / "t1", "test")
    assert study.inputs == Translated(path.parent / "study", allow_burned_in="unknown")
    assert [spec.output.format for spec in (sampled, study)] == ["dicom-files", "nifti"]


def test_workers_that_cannot_be_meant_are_refused_first(command, write, models, data, tmp_path):
    path = write(TWO)
    code, stdout, stderr = command("run", path, "--workers", 0)
    assert (code, stdout) == (2, "")
    assert stderr == "fastmrigan: --workers 0: expected 1 to 256\n"
    assert not (tmp_path / "night").exists()
