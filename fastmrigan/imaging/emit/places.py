"""Where an emitted slice lies: where its source lay, or a place invented for it."""

from __future__ import annotations

from fastmrigan.imaging.dataset import SliceRecord
from fastmrigan.imaging.position import SlicePosition

FIELD_OF_VIEW_MM = 240.0  # invented, of the longer side; a usual one for heads
STEP_MM = 5.0  # invented: thickness and distance, so that slices neither overlap nor leave gaps


def position_of(record: SliceRecord) -> SlicePosition | None:
    """Where a prepared slice's source lay, at its source size; None where its file did not say."""
    return None if record.position is None else record.position.slice_position()


def invented(size: tuple[int, int], number: int) -> SlicePosition:
    """An axial slice centred on the axis from feet to head, `number` steps above the origin.

    size: [H, W] in pixels.
    """
    height, width = size
    pixel = FIELD_OF_VIEW_MM / max(size)
    left, top = -(width - 1) / 2 * pixel, -(height - 1) / 2 * pixel
    return SlicePosition(
        origin=(left, top, number * STEP_MM),
        row=(1.0, 0.0, 0.0),
        column=(0.0, 1.0, 0.0),
        spacing=(pixel, pixel),
        thickness=STEP_MM,
    )
