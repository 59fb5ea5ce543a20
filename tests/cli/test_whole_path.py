"""Phantom to report, by the commands a user types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastmrigan import NOTICE
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.jobs.shards import read_slices
from fastmrigan.runtime import load


def walk(run, folder: Path, slices: int, steps: int, count: int) -> dict:
    """Runs every command and returns the report's numbers.

    The instance noise falls over the same share of the run as in the recipe.
    """
    data, trained, model = folder / "data", folder / "run", folder / "model.onnx"
    made, page = folder / "slices", folder / "report.html"
    noise = f"deviations.instance_noise_steps={steps * 10 // 7}"
    prepare = ["--group-pattern", "(head[0-9]+)_", "--contrast", "t2"]
    train = ["--steps", steps, "--set", "label=tumour", "--set", noise]
    evaluate = ["--run", trained, "--classifier-data", data]
    commands = [
        ["phantom", "--count", slices, "--out", folder / "phantom"],
        ["prepare", folder / "phantom" / "t2", "--out", data, *prepare],
        ["train", "phantom-quick", "--data", data, "--out", trained, *train],
        ["export", trained, "--out", model],
        ["synth", model, "--count", count, "--seed", 7, "--out", made],
        ["evaluate", "--real", data, "--synthetic", made, "--out", page, *evaluate],
    ]
    for command in commands:
        done = run(*command, timeout=900)
        assert done.returncode == 0, f"{command[0]}: {done.stderr}"
    assert NOTICE in page.read_text().lower()
    return json.loads(page.with_suffix(".json").read_text())["measures"]


def value(measures: dict, key: str) -> float:
    return measures[key]["value"]


def test_every_room_hands_over_to_the_next(fastmrigan, tmp_path):
    measures = walk(fastmrigan, tmp_path, slices=160, steps=2, count=40)
    assert value(measures, "fd_random") > value(measures, "fd_random_floor") > 0
    index, slices = zip(*read_slices(tmp_path / "slices"), strict=True)
    assert index == tuple(range(40))
    # What the shards hold is what the Python interface gives.
    generator = load(tmp_path / "model.onnx")
    np.testing.assert_array_equal(np.stack(slices), to_uint8(generator.sample(40, seed=7)))
    metadata = generator.metadata
    data = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert metadata.recipe == "phantom-quick"
    assert metadata.training_data["fingerprint"] == data["fingerprint"]
    assert metadata.training["step"] == 2


@pytest.mark.slow
def test_a_third_of_the_demo_learns(fastmrigan, tmp_path):
    """The demo's own bars, on a third of its training."""
    measures = walk(fastmrigan, tmp_path, slices=1600, steps=1000, count=1000)
    assert value(measures, "classifier_accuracy") >= 0.85
    assert value(measures, "fd_random_over_untrained") <= 0.25
    assert value(measures, "called_tumour") >= 0.8
