"""Slices resampled to square pixels of one size, and where the new pixels lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastmrigan.errors import UsageError
from fastmrigan.imaging.position import Float64, SlicePosition
from fastmrigan.imaging.readers import MAX_VOXELS, check_size

Slices = npt.NDArray[Any]
Spacing = tuple[float, float]  # mm between rows, mm between columns

SAME = 1e-4  # relative: pixels this close to the asked size are of that size


@dataclass(frozen=True)
class Axis:
    """New pixels along one axis, in units of the old ones."""

    count: int
    first: float  # where the first one begins; the field of view stays centred
    scale: float  # old pixels that a new one covers

    @property
    def end(self) -> float:
        return self.first + self.count * self.scale

    @property
    def centres(self) -> Float64:
        """[count], from the centre of the old first pixel."""
        return self.first + (np.arange(self.count, dtype=np.float64) + 0.5) * self.scale - 0.5


def resample_in_plane(
    slices: Slices, spacing: Spacing, target: float | None, *, labels: bool = False
) -> tuple[Slices, Spacing]:
    """Slices [N, H, W] with pixels of `target` mm a side, or of the finer of the two spacings.

    The field of view stays centred and loses less than one new pixel. Images, float32: bicubic
    (Keys 1981, a = -0.5), the kernel widened where pixels grow, which is the low-pass filter;
    overshoot is cut off at each slice's own range. Labels, any integer type: nearest neighbour.
    Returns the slices [N, H', W'] and the new spacing; both as they came where they agree already.
    Raises UsageError for a target that is no length, ValueError for a spacing that is none and for
    slices that would become too small or too large.
    """
    planned = plan(slices.shape[1:], spacing, target)
    if planned is None:
        return slices, spacing
    side, rows, columns = planned
    check_size(rows.count, columns.count)
    if len(slices) * rows.count * columns.count > MAX_VOXELS:
        raise ValueError(
            f"would hold {columns.count}x{rows.count}x{len(slices)} voxels of {side:g} mm; at most "
            f"{MAX_VOXELS:,} are made"
        )
    if labels:
        nearest = [np.floor(axis.centres + 0.5).astype(np.intp) for axis in (rows, columns)]
        return slices[:, nearest[0][:, None], nearest[1]], (side, side)
    height, width = slices.shape[1:]
    box = (columns.first, rows.first, min(columns.end, width), min(rows.end, height))
    made = np.empty((len(slices), rows.count, columns.count), np.float32)
    for x, y in zip(slices, made, strict=True):
        image = Image.fromarray(np.ascontiguousarray(x, dtype=np.float32))
        resized = image.resize((columns.count, rows.count), Image.Resampling.BICUBIC, box=box)
        np.clip(np.asarray(resized), x.min(), x.max(), out=y)
    return made, (side, side)


def resampled_position(
    position: SlicePosition, size: tuple[int, int], target: float | None
) -> SlicePosition:
    """Where a slice of [H, W] = `size` lies once `resample_in_plane` has made it anew.

    Raises as `resample_in_plane` does.
    """
    planned = plan(size, position.spacing, target)
    if planned is None:
        return position
    side, rows, columns = planned
    down = rows.centres[0] * position.spacing[0]  # mm from the old first centre to the new one
    across = columns.centres[0] * position.spacing[1]
    x, y, z = (
        float(origin + across * row + down * column)
        for origin, row, column in zip(position.origin, position.row, position.column, strict=True)
    )
    return replace(position, origin=(x, y, z), spacing=(side, side))


def plan(
    size: tuple[int, ...], spacing: Spacing, target: float | None
) -> tuple[float, Axis, Axis] | None:
    """The side of the new pixels in mm, their rows and their columns; None where all may stay."""
    if target is not None and not 0 < target < np.inf:
        raise UsageError(f"pixels of {target:g} mm: expected a length above 0")
    if not (min(spacing) > 0 and max(spacing) < np.inf):  # NaN is neither
        raise ValueError(
            f"its pixels are {spacing[0]:g} x {spacing[1]:g} mm; they cannot be scaled"
        )
    side = min(spacing) if target is None else target
    rows, columns = (axis(length, side / mm) for length, mm in zip(size, spacing, strict=True))
    if rows.scale == columns.scale == 1.0:
        return None
    return side, rows, columns


def axis(length: int, scale: float) -> Axis:
    if abs(scale - 1) < SAME:
        return Axis(length, 0.0, 1.0)
    # The nudge makes 324 pixels, not 323, of 288 that are a whole number of them long
    count = int(min(length / max(scale, 1e-9) * (1 + SAME / 10), 1e9))
    return Axis(count, max(0.0, (length - count * scale) / 2), scale)
