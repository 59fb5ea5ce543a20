"""The decoded files of one DICOM series to the squares of its slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.readers import Float32, ReadImage, check
from fastmrigan.imaging.squares import SliceName, Squares, square
from fastmrigan.imaging.units import Unit
from fastmrigan.imaging.walker import Refused


def square_series(
    unit: Unit, results: Iterator[Any], options: PrepareOptions
) -> tuple[Squares | None, list[Refused]]:
    """Stacks the slices of a series in their order and squares them as one volume.

    results: of each file, and after it of its twin where it has one, a ReadImage or a Refused. A
    file that was refused leaves a gap; where the series as a whole cannot be used, each of its
    files is refused. Returns the squares (None where there are none) and what was refused.
    """
    images: list[ReadImage | None] = []
    twins: list[ReadImage | None] = []
    refused: list[Refused] = []
    for job in unit.jobs:
        image = next(results)
        twin = next(results) if job.twin is not None else None
        if isinstance(image, Refused):
            refused.append(image)
            image = None
        elif isinstance(twin, Refused):
            refused.append(Refused(job.name, f"its twin {twin}"))
            image = None
        elif twin is not None and len(twin.slices) != len(image.slices):
            count = f"{len(image.slices)} slices, its twin {len(twin.slices)}"
            refused.append(Refused(job.name, f"holds {count}; twins are registered"))
            image = None
        images.append(image)
        twins.append(None if image is None else twin)

    here = [(n, frame) for n, frame in unit.frames if images[n] is not None]
    if not here:
        return None, refused
    kept = [unit.jobs[n] for n in dict.fromkeys(n for n, _ in here)]
    single = all(image is None or len(image.slices) == 1 for image in images)
    names = [SliceName(unit.jobs[n].name, None if single else frame) for n, frame in here]
    try:
        whole = stacked(kept[0].name, images, here)
        check(whole.slices)
        twin = None
        if kept[0].twin is not None:
            twin = kept[0].twin[0], stacked(kept[0].name, twins, here)
            check(twin[1].slices)
        tags = [dict(image.tags) for n, _ in here if (image := images[n]) is not None]
        return square(whole, names, options, twin=twin, tags=tags), refused
    except ValueError as error:
        reason = str(error)
    except Refused as error:
        reason = error.reason
    if len(kept) > 1:
        reason = f"its series of {len(here):,} slices: {reason}"
    return None, [*refused, *(Refused(job.name, reason) for job in kept)]


def stacked(name: str, images: list[ReadImage | None], frames: list[tuple[int, int]]) -> ReadImage:
    """The slices `frames` (file, frame) of several images as one image.

    Raises Refused, by `name`, where a file holds other slices than its header promised.
    """
    slices: list[Float32] = []
    positions = []
    first: ReadImage | None = None
    for n, frame in frames:
        image = images[n]
        if image is None or frame >= len(image.slices):
            raise Refused(name, "holds fewer slices than its header has frames")
        first = first or image
        slices.append(image.slices[frame])
        positions.append(image.positions[frame] if image.positions is not None else None)
    if first is None or any(x.shape != slices[0].shape for x in slices):
        raise Refused(name, "holds slices of several sizes")
    known = tuple(position for position in positions if position is not None)
    return ReadImage(
        np.stack(slices),  # [N, H, W]
        first.mode,
        volume=len(slices) > 1,
        positions=known if len(known) == len(positions) else None,
        tags=first.tags,
    )
