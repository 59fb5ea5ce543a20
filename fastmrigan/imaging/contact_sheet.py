"""Many slices on one picture, and PNG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastmrigan.files import write_whole
from fastmrigan.imaging import quantise

UInt8 = npt.NDArray[np.uint8]


def contact_sheet(
    slices: npt.NDArray[np.float32] | UInt8, *, columns: int = 16, scale: int = 1, pad: int = 2
) -> UInt8:
    """Slices in reading order on one sheet, `pad` grey pixels between and around them.

    slices: float32 [N, H, W] in [-1, 1] or uint8 [N, H, W]; each pixel becomes scale x scale.
    Returns uint8 [H', W']. Raises ValueError for no slices or another shape.
    """
    if slices.ndim != 3 or len(slices) == 0:
        raise ValueError(f"contact_sheet: expected slices [N, H, W], got shape {slices.shape}")
    if slices.dtype == np.uint8:
        grey = slices.astype(np.uint8, copy=False)
    else:
        grey = quantise.to_uint8(slices.astype(np.float32, copy=False))
    grey = grey.repeat(scale, axis=1).repeat(scale, axis=2)  # [N, h, w]
    count, height, width = grey.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    step_y, step_x = height + pad, width + pad
    sheet = np.full((rows * step_y + pad, columns * step_x + pad), 64, dtype=np.uint8)
    for i, tile in enumerate(grey):
        y, x = pad + i // columns * step_y, pad + i % columns * step_x
        sheet[y : y + height, x : x + width] = tile
    return sheet


def write_png(path: Path, array: UInt8 | npt.NDArray[np.uint16]) -> None:
    """Writes uint8 [H, W] (grey), uint8 [H, W, 3] (RGB) or uint16 [H, W] (16-bit grey) as PNG.

    The file appears whole or not at all. Raises ValueError for another type or shape.
    """
    grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (grey or colour):
        raise ValueError(
            "write_png: expected uint8 or uint16 [H, W] or uint8 [H, W, 3], "
            f"got {array.dtype} {array.shape}"
        )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG")
    write_whole(path, buffer.getvalue())
