"""Which side of a paired set real slices are taken from."""

import numpy as np
from PIL import Image

from fastmrigan.imaging.prepare import PrepareOptions, prepare
from fastmrigan.metrics.slice_sets import read_slice_set


def test_a_translating_run_is_held_against_the_targets(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (6, 32, 32), dtype=np.uint8)
    for side, slices in {"source": drawn, "target": 255 - drawn}.items():
        (tmp_path / side).mkdir()
        for number, slice_ in enumerate(slices):
            Image.fromarray(slice_).save(tmp_path / side / f"{number}.png")
    options = PrepareOptions(size=32, pairs=tmp_path / "target", grading="minmax")
    prepare(tmp_path / "source", tmp_path / "data", options)
    sources = read_slice_set(tmp_path / "data")
    targets = read_slice_set(tmp_path / "data", twins=True)
    np.testing.assert_allclose(targets.slices, -sources.slices, atol=0.02)
    assert np.abs(sources.slices).mean() > 0.3
    assert (targets.facts["side"], sources.facts.get("side")) == ("targets of the pairs", None)
