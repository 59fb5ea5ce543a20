"""contact_sheet.png of a job: a few dozen of its slices, spread evenly over its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.contact_sheet import contact_sheet
from fastmrigan.imaging.quantise import to_float, to_uint8
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Shard, Slices
from fastmrigan.jobs.shards import read_shard

NAME = "contact_sheet.png"
SHOWN = 48  # slices, where there are as many
COLUMNS = 8
SIDE = 128  # pixels of a tile

UInt8 = npt.NDArray[np.uint8]


def sheet(output: Output, plan: Sequence[Shard]) -> UInt8 | None:
    """The sheet, uint8 [H, W]; None where no shard has a slice.

    Raises InputRejected where a shard is damaged, MissingDependency where its format needs a
    package that is absent.
    """
    tiles = [tile(x) for x in picked(output, plan)]
    return contact_sheet(np.stack(tiles), columns=COLUMNS) if tiles else None


def picked(output: Output, plan: Sequence[Shard]) -> Iterator[Slices]:
    """At most SHOWN of the slices that are there, each [H, W]; those left out are passed over."""
    fmt = FORMATS[output.format]
    there = [shard for shard in plan if (output.out / fmt.name(shard)).exists()]
    ends = np.cumsum([shard.count for shard in there])
    if not there:
        return
    places = np.linspace(0, ends[-1] - 1, min(SHOWN, int(ends[-1]))).round().astype(np.int64)
    numbers = np.searchsorted(ends, places, "right")
    for number in np.unique(numbers):
        shard = there[number]
        first = int(ends[number]) - shard.count  # of the slices that are there
        offsets = [int(place) - first for place in places[numbers == number]]
        path = output.out / fmt.name(shard)
        if fmt.stem == "series":
            yield from _of_volume(path, offsets)
        else:
            yield from (x for _, x in read_shard(path, {shard.first + i for i in offsets}))


def _of_volume(path: Path, offsets: Sequence[int]) -> Iterator[UInt8]:
    """Planes of a NIfTI volume, from black at its least value to white at its largest."""
    try:
        import nibabel
    except ModuleNotFoundError as error:
        raise MissingDependency("nibabel", "dicom", "reading NIfTI") from error
    image: Any = nibabel.load(path)  # its own type knows no voxels
    volume = np.asanyarray(image.dataobj)  # [W, H, places]
    low, high = float(volume.min()), float(volume.max())
    for offset in offsets:
        plane = volume[..., min(offset, volume.shape[2] - 1)].T
        grey = 255 * (plane - low) / max(high - low, 1e-9)
        yield np.rint(grey).astype(np.uint8)


def tile(x: Slices) -> UInt8:
    """A slice [H, W] in the middle of uint8 [SIDE, SIDE]: enlarged by a whole factor, or reduced
    to fit."""
    grey = x if x.dtype == np.uint8 else to_uint8(to_float(x))
    longer = max(grey.shape)
    picture = Image.fromarray(grey)
    if longer <= SIDE:
        sides = [side * (SIDE // longer) for side in picture.size]
        picture = picture.resize(sides, Image.Resampling.NEAREST)
    else:
        sides = [max(1, round(side * SIDE / longer)) for side in picture.size]
        picture = picture.resize(sides, Image.Resampling.BOX)
    whole = np.zeros((SIDE, SIDE), np.uint8)
    y, x0 = (SIDE - picture.height) // 2, (SIDE - picture.width) // 2
    whole[y : y + picture.height, x0 : x0 + picture.width] = np.asarray(picture)
    return whole
