"""Sample grids on run.html: the newest whole, the earlier small, unreadable ones named."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from fastmrigan.imaging.contact_sheet import write_png
from fastmrigan.training.run_pictures import EARLIER, EARLIER_BYTES, NEWEST_BYTES, grids


def embedded(html):
    """The pictures of the page, decoded."""
    found = re.findall(r'src="data:image/\w+;base64,([^"]*)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def captions(html):
    return re.findall(r"<figcaption>(.*?)</figcaption>", html)


def write_grid(folder, step, grid=None, ending=""):
    path = folder / f"step_{step:07}{ending}.png"
    write_png(path, np.full((24, 24), step % 256, np.uint8) if grid is None else grid)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_newest_grid_is_embedded_to_the_bit(tmp_path, mode):
    shape = (70, 60) if mode == "L" else (70, 60, 3)
    grid = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(grid).save(tmp_path / "step_0000030.png")
    write_grid(tmp_path, 10)
    html = grids(tmp_path, [])
    np.testing.assert_array_equal(np.asarray(embedded(html)[0]), grid)
    assert captions(html) == ["step 30: step_0000030.png", "step 10"]


@pytest.mark.parametrize(("count", "stride"), [(1, 1), (EARLIER, 1), (EARLIER + 1, 2), (100, 8)])
def test_earlier_grids_are_thinned_out_evenly(tmp_path, count, stride):
    for number in range(count + 1):
        write_grid(tmp_path, 100 * number)
    html = grids(tmp_path, [])
    expected = [f"step {100 * number:,}" for number in range(0, count, stride)]
    assert captions(html)[1:] == expected
    assert f"{len(expected)} of {count} earlier grids" in html


def test_pictures_stay_within_their_bytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1800, 1800), dtype=np.uint8)
    for step in range(12):
        write_grid(tmp_path, step, noise[: 400 + step])
    for ending in ("_to_target", "_to_source"):
        write_grid(tmp_path, 9999, noise, ending)
    html = grids(tmp_path, [])
    assert len(html) < NEWEST_BYTES + EARLIER_BYTES + 10_000
    assert re.search(
        "step 9,999, to_source: step_0009999_to_source.png, reduced [23] times", captions(html)[0]
    )
    sizes = [max(picture.size) for picture in embedded(html)]
    assert min(sizes[:2]) >= 600
    assert max(sizes[2:]) == 240


def test_what_cannot_be_read_is_named(tmp_path):
    write_grid(tmp_path, 10).write_bytes(b"no picture")
    write_grid(tmp_path, 20)
    write_grid(tmp_path, 30).write_bytes(b"")
    (tmp_path / "notes.png").write_bytes(b"")  # not of the run
    missing = []
    assert captions(grids(tmp_path, missing)) == ["step 20"]
    assert missing == ["samples/: unreadable: step_0000030.png, step_0000010.png."]


def test_no_grid_yet(tmp_path):
    missing = []
    assert "No grid has been written yet" in grids(tmp_path / "samples", missing)
    assert missing == ["samples/ holds no grid yet."]
