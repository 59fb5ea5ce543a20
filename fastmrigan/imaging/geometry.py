"""Slices of any size to squares of one size, and back.

A slice is padded to a square first and resized after, so its aspect is kept exactly and the
way back needs no more than the source's size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Float32 = npt.NDArray[np.float32]


def resize(x: Float32, height: int, width: int) -> Float32:
    """Bicubic resize, low-pass filtered when it shrinks (Keys 1981, a = -0.5).

    x: float32 [H, W]. Returns float32 [height, width]; it may overshoot x's range a little.
    """
    if x.shape == (height, width):
        return x.copy()
    image = Image.fromarray(np.ascontiguousarray(x, dtype=np.float32))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized, dtype=np.float32)


def background(x: Float32) -> float:
    """The level of the surroundings: the median of the outermost pixels of x [H, W]."""
    frame = np.concatenate([x[0], x[-1], x[1:-1, 0], x[1:-1, -1]])
    return float(np.median(frame))


def fit_square(x: Float32, size: int) -> Float32:
    """A graded slice padded to a square with its background and resized.

    x: float32 [H, W] in [-1, 1]. Returns float32 [size, size] in [-1, 1].
    """
    height, width = x.shape
    side = max(height, width)
    top, left = offsets(height, width)
    square = np.full((side, side), background(x), dtype=np.float32)
    square[top : top + height, left : left + width] = x
    return np.clip(resize(square, size, size), -1.0, 1.0)


def unfit_square(x: Float32, height: int, width: int) -> Float32:
    """The inverse of `fit_square`: float32 [size, size] to [height, width], clipped to [-1, 1]."""
    side = max(height, width)
    top, left = offsets(height, width)
    square = np.clip(resize(x, side, side), -1.0, 1.0)
    return square[top : top + height, left : left + width]


def offsets(height: int, width: int) -> tuple[int, int]:
    """Rows above and columns left of a slice centred in its square."""
    side = max(height, width)
    return (side - height) // 2, (side - width) // 2
