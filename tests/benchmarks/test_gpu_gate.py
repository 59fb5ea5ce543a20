"""The GPU gate's steps: in which order, and that their time fits."""

from __future__ import annotations

import re
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = (BENCHMARKS / "gpu_gate.sh").read_text()
STEPS = re.findall(r'^step (\w+) (\d+|"\$last") (.+)$', SCRIPT, re.MULTILINE)


def seconds(said: str) -> int:
    """Of the last step: the least it is given."""
    if said.isdecimal():
        return int(said)
    return int(re.search(r"^last=\$\(\(.* : (\d+)\)\)$", SCRIPT, re.MULTILINE)[1])


def test_the_steps_fit_their_limit_together():
    limit = int(re.search(r"^readonly LIMIT=(\d+)", SCRIPT, re.MULTILINE)[1])
    assert sum(seconds(said) for _, said, _ in STEPS) == limit < 8 * 60


def test_what_is_built_and_right_comes_first():
    names = [name for name, _, _ in STEPS]
    assert names == [
        "build",
        "tests",
        "ssim",
        "frechet",
        "inference",
        "train_step",
        "instance_norm",
    ]


def test_benchmarks_that_stop_by_themselves_do_so_before_they_are_stopped():
    for name, said, command in STEPS:
        own = re.search(r"--seconds (\d+)", command)
        if own:
            assert int(own[1]) <= 0.65 * int(said), name
    assert "--seconds $((last - 20))" in SCRIPT


def test_every_step_is_there():
    scripts = re.findall(r"benchmarks/(\w+\.py)", " ".join(command for *_, command in STEPS))
    assert len(scripts) == len(STEPS) - 1  # build is the script's own
    assert all((BENCHMARKS / name).is_file() for name in scripts)
