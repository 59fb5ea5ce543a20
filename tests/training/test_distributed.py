"""Two processes of one run, over gloo: the same step as one process at twice the batch, one run
folder, one stop for all.

Starting the processes takes most of the time, so one start does all steps (tests/support/
two_ranks.py), and the tests look at what it left.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_systems import small
from two_ranks import CYCLEGAN, OTHERS, gradients, taken, weights

from fastmrigan.training import checkpoint
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.logging import read_metrics

SUPPORT = Path(__file__).parents[1] / "support"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SUPPORT)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Twelve 64x64 slices, prepared."""
    from fastmrigan.imaging.prepare import PrepareOptions, prepare

    root = tmp_path_factory.mktemp("prepared")
    (root / "source").mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        noise = rng.integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(root / "source" / f"slice{index:02}.png")
    prepare(root / "source", root / "data", PrepareOptions(size=64, test_fraction=0.0))
    return root / "data"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder in which two processes left what they found."""
    out = tmp_path_factory.mktemp("two")
    command = [*TORCHRUN, str(SUPPORT / "two_ranks.py"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return out


def test_two_ranks_take_the_step_of_one_at_twice_the_batch(two):
    """Gradients to 1e-5 of a parameter's largest; weights to 1e-5 wherever the gradient is above
    1e-4 of that largest. Adam's first step is the learning rate times the gradient's sign, whatever
    its size: where nothing but rounding is left of it, so is the sign, and 2e-4 either way says
    nothing."""
    first, second = torch.load(two / "cyclegan.pt")
    recipe = small("t2-tumour-cyclegan", *CYCLEGAN)
    whole = small("t2-tumour-cyclegan", *CYCLEGAN, f"batch={2 * recipe.batch}")
    system, losses, batch = taken(whole, Ranks(), 1)
    for side in ("target", "source"):  # each rank its half of the same augmented slices
        assert torch.equal(torch.cat([first[side], second[side]]), getattr(batch, side))
    for name, loss in losses[0].items():
        mean = (first["losses"][0][name] + second["losses"][0][name]) / 2
        assert mean == pytest.approx(loss, rel=1e-4, abs=1e-5), name
    compared = total = 0
    assert first["gradients"].keys() == gradients(system).keys()
    for name, gradient in gradients(system).items():
        largest = gradient.abs().max()
        assert (first["gradients"][name] - gradient).abs().max() <= 1e-5 * largest + 1e-9, name
        clear = gradient.abs() > 1e-4 * largest
        apart = (first["weights"][name] - weights(system)[name]).abs()
        assert apart[clear].max() <= 1e-5, name
        compared, total = compared + int(clear.sum()), total + clear.numel()
    assert compared > 0.9 * total


def test_both_ranks_hold_the_same_weights(two):
    for name in ("cyclegan", *OTHERS):
        first, second = torch.load(two / f"{name}.pt")
        assert first["losses"] != second["losses"], name  # they saw other slices
        for key, value in first["weights"].items():
            assert torch.equal(value, second["weights"][key]), f"{name}: {key}"


RUN = ["generator.width=4", "generator.latent=8", "discriminator.width=4", "batch=3"]
RUN += ["deviations.instance_noise=0.5", "log_every=1", "sample_count=4", "evaluate_every=9999"]


@pytest.fixture
def words(prepared, tmp_path):
    settings = [word for setting in RUN for word in ("--set", setting)]
    run = ["train", "tumour-dcgan64", "--data", str(prepared), "--out", str(tmp_path / "run")]
    return [*run, *settings]


def test_one_signal_stops_all_ranks_and_the_named_command_resumes(words, command, tmp_path):
    run = tmp_path / "run"
    start = [*TORCHRUN, "-m", "fastmrigan", *words]
    with subprocess.Popen(
        [*start, "--minutes", "5"], stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        deadline = time.monotonic() + 300
        while len(read_metrics(run / "metrics.jsonl")) < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=300)[1]
    assert process.returncode == 1, errors  # torchrun knows no other; that of the ranks is 130
    said = re.search(
        r"stopped at step ([\d,]+), all of it saved; resume with: torchrun --nproc-per-node 2 "
        r"-m fastmrigan train tumour-dcgan64",
        errors,
    )
    assert said, errors
    assert "forcefully exiting" not in errors  # no rank had to be killed
    assert errors.count("all of it saved; resume with") == 1  # one rank speaks
    step = int(said[1].replace(",", ""))
    assert checkpoint.steps_of(run)[-1] == step == len(read_metrics(run / "metrics.jsonl"))
    facts = json.loads((run / "run.json").read_text())
    assert (facts["status"], facts["processes"], facts["step"]) == ("interrupted", 2, step)
    assert facts["epoch"] == pytest.approx(step * 2 * 3 / 12)

    code, _, errors = command(*words, "--steps", step + 1)
    assert code == 2
    assert re.search(r"another configuration \(processes: 2 -> 1\)", errors), errors

    again = subprocess.run(
        [*start, "--steps", str(step + 2)],
        capture_output=True, text=True, env=environment(), timeout=300,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(f"step {step + 2:,} ") == 1  # one rank speaks
    assert "2 steps in" in again.stdout
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [*range(1, step + 3)]
    assert checkpoint.load_generator(run).step == step + 2


@pytest.mark.slow
def test_a_run_that_fails_says_so_once_and_ends_each_rank_with_its_code(words, tmp_path):
    gone = ["--set", "optimiser.generator_lr=1e38", "--steps", "5"]
    done = subprocess.run(
        [*TORCHRUN, "-m", "fastmrigan", *words, *gone],
        capture_output=True, text=True, env=environment(), timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("nan at step 2, so the run stopped") == 1, done.stderr
    codes = re.findall(r"exitcode +: (-?\d+)", done.stderr)
    assert "6" in codes  # torchrun then ends the other: -15, or 130 where the loop takes the signal
    assert set(codes) <= {"6", "-15", "130"}
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["status"] == "stopped: loss_d is nan at step 2"
