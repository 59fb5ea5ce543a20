from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmrigan.imaging.contact_sheet import contact_sheet, write_png


def test_tiles_stand_in_reading_order() -> None:
    slices = np.stack([np.full((3, 5), v, np.uint8) for v in (10, 20, 30, 40, 50)])
    sheet = contact_sheet(slices, columns=2, scale=2, pad=1)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (3 * 7 + 1, 2 * 11 + 1)
    np.testing.assert_array_equal(sheet[1:7, 1:11], 10)
    np.testing.assert_array_equal(sheet[1:7, 12:22], 20)
    np.testing.assert_array_equal(sheet[15:21, 1:11], 50)
    np.testing.assert_array_equal(sheet[15:21, 12:22], 64)


def test_floats_and_few_slices() -> None:
    sheet = contact_sheet(np.array([[[-1.0, 1.0]]], np.float32), pad=0)
    np.testing.assert_array_equal(sheet, [[0, 255]])


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 4)])
def test_sheet_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected slices"):
        contact_sheet(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(48, dtype=np.uint8).reshape(6, 8),
        (np.arange(48, dtype=np.uint16) * 1300).reshape(6, 8),
        np.arange(144, dtype=np.uint8).reshape(6, 8, 3),
    ],
)
def test_png_round_trip(tmp_path: Path, array: np.ndarray) -> None:
    write_png(tmp_path / "a.png", array)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), array)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_png_refuses_floats(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected uint8 or uint16"):
        write_png(tmp_path / "a.png", np.zeros((4, 4), np.float32))
