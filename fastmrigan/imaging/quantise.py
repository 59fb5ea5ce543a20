"""Float slices to unsigned integers and back, through the native core."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan import _core

Float32 = npt.NDArray[np.float32]


def to_uint8(x: Float32) -> npt.NDArray[np.uint8]:
    """[-1, 1] to 0..255: round half to even of (x + 1) * 127.5, clamped; NaN becomes 0.

    x: float32, any shape, C order (another order is copied first).
    """
    return _core.quantise_uint8(np.asarray(x, dtype=np.float32, order="C"))


def to_uint16(x: Float32) -> npt.NDArray[np.uint16]:
    """[-1, 1] to 0..65535: round half to even of (x + 1) * 32767.5, clamped; NaN becomes 0."""
    return _core.quantise_uint16(np.asarray(x, dtype=np.float32, order="C"))


def to_float(x: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> Float32:
    """The inverse: 0..255 or 0..65535 to float32 in [-1, 1]."""
    top = np.float32(np.iinfo(x.dtype).max)
    return x.astype(np.float32) * (np.float32(2.0) / top) - np.float32(1.0)
