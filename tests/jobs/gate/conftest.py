"""A model that makes every kind of slice, and what it was trained on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_model as tiny
from gate_worlds import SIDE, model_of, stretched
from PIL import Image

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.phantom import phantom_slices
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs.gate_reference import Reference
from fastmrigan.runtime.model_file import ModelMetadata


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> SimpleNamespace:
    """A prepared training set of phantoms, slices of other heads, and what a model may make."""
    folder = tmp_path_factory.mktemp("gate")
    heads = stretched(phantom_slices(150, SIDE, seed=5).signals["t2"])
    (folder / "png").mkdir()
    for number, x in enumerate(heads[:120]):
        grey = np.rint((x + 1) * 32767.5).astype(np.uint16)
        Image.fromarray(grey).save(folder / "png" / f"{number:03}.png")
    options = PrepareOptions(
        size=SIDE, grading="minmax", contrast="t2", test_fraction=0.3, label=""
    )
    prepare(folder / "png", folder / "set", options)
    dataset = PreparedDataset.open(folder / "set")
    train = dataset.select("train")
    dice = np.random.default_rng(0)
    grey = np.linspace(-1, 1, SIDE, dtype=np.float32)
    bank = {
        0: heads[130],
        1: heads[131],
        2: np.full((SIDE, SIDE), -0.99, np.float32),
        3: np.where(grey[:, None] > -0.4, 1, grey[None]),
        4: dice.normal(0, 0.5, (SIDE, SIDE)),
        5: dataset.slices("train")[7],
        6: heads[132],
        7: np.roll(dataset.slices("train")[11][:, ::-1], (1, -2), (0, 1)),
    }
    assert list(bank) == list(range(tiny.LATENT))
    return SimpleNamespace(
        path=folder / "set",
        dataset=dataset,
        copied={5: train[7], 7: train[11]},
        others=heads[120:],
        bank=np.stack(list(bank.values())).clip(-1, 1).astype(np.float32),
    )


@pytest.fixture
def model(write_model, world) -> Path:
    return model_of(write_model, world)


@pytest.fixture(scope="module")
def reference(world) -> Reference:
    return Reference.open(world.path, ModelMetadata(**tiny.metadata(slice_size=[SIDE, SIDE])))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """40 pairs at 16x16 of which 10 sources are blank."""
    folder = tmp_path_factory.mktemp("pairs")
    dice = np.random.default_rng(0)
    for side in ("source", "target"):
        (folder / side).mkdir()
        for number in range(40):
            x = dice.integers(0, 256, (16, 16), dtype=np.uint8)
            if side == "source" and number % 4 == 1:
                x = np.full((16, 16), 40, np.uint8)
                x[0, 0] = number  # duplicates are left out
            Image.fromarray(x).save(folder / side / f"{number:02}.png")
    options = PrepareOptions(
        size=16,
        grading="window:0:255",
        pairs=folder / "target",
        contrast="t1",
        target_contrast="t2",
        test_fraction=0.5,
        label="",
        min_brain=0,
    )
    prepare(folder / "source", folder / "set", options)
    return folder / "set"
