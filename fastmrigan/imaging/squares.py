"""The images of one file, or of one series, to graded squares and the facts of each slice.

Runs in the worker processes for a file that stands for itself, and in `prepare`'s own process for
a series whose files have been decoded there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastmrigan.imaging.duplicates import digest, thumbnail
from fastmrigan.imaging.geometry import fit_square, offsets
from fastmrigan.imaging.grading import grade, measure
from fastmrigan.imaging.label_map import to_lps
from fastmrigan.imaging.nifti import brain_shares
from fastmrigan.imaging.options import ANY_PLANE, PrepareOptions
from fastmrigan.imaging.position import SlicePosition
from fastmrigan.imaging.quantise import to_uint16
from fastmrigan.imaging.readers import ReadImage
from fastmrigan.imaging.resample import resample_in_plane, resampled_position
from fastmrigan.imaging.walker import Refused, is_archive, suffix

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]

APART_MM = 1.0  # registered twins whose slices begin further apart than this are none
TURNED = 0.01  # the same for their rows and columns: 0.6 degrees


class Facts(TypedDict):
    """What is known of one slice; JSON holds it. No name, number or date of a person."""

    source: str  # first 16 hex digits of the sha256 of its name
    label: str
    order: int  # its place among the slices of its file or series, left-out ones counted
    source_size: tuple[int, int]  # [H, W] before it was squared
    mode: str
    grading: dict[str, Any]
    target_grading: dict[str, Any] | None
    digest: str  # of the raw pixels, hex
    plane: str | None
    position: dict[str, Any] | None
    tags: dict[str, str | float]


@dataclass(frozen=True)
class SliceName:
    """What a slice is called: the file it came from, and its frame where that holds several."""

    file: str
    frame: int | None = None

    @property
    def source(self) -> str:
        key = self.file if self.frame is None else f"{self.file}#{self.frame}"
        return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Squares:
    """What one file or series came to; all arrays alongside the slices that were kept."""

    slices: UInt16  # [N, S, S]
    thumbnails: Float32  # [N, 1024]
    facts: list[Facts]  # [N]
    targets: UInt16 | None = None  # [N, S, S], of a paired set
    labels: UInt8 | None = None  # [N, S, S], where there are label maps
    volume: bool = False  # slices of one volume, rather than a picture
    empty: int = 0  # slices with too little brain
    elsewhere: int = 0  # slices of another plane, or of none that is known


def square(
    image: ReadImage,
    names: Sequence[SliceName],
    options: PrepareOptions,
    *,
    twin: tuple[str, ReadImage] | None = None,
    labels: UInt8 | None = None,
    tags: Sequence[dict[str, str | float]] | None = None,
) -> Squares:
    """Grades, resamples, picks, squares and describes the slices of one volume or picture.

    names: of each slice. twin: the registered image and its name. labels: uint8 [N, H, W].
    tags: of each slice, where they differ from slice to slice. One grading is measured for the
    whole volume. Raises Refused, by the first slice's file.
    """
    name = names[0].file
    sides = [image] if twin is None else [image, twin[1]]
    if twin is not None:
        check_registered(name, image, *twin)
    planes: list[str | None] = [None] * len(names)
    if image.positions is not None:
        planes = [position.plane for position in image.positions]
    here = np.array([options.plane in (ANY_PLANE, plane) for plane in planes])  # [N]
    full = np.ones(len(names), np.bool_)
    if image.volume and options.min_brain is not None:
        full = brain_shares(image.slices) > options.min_brain
    kept = np.flatnonzero(here & full)
    empty = int((here & ~full).sum())
    if empty and not kept.size:
        raise Refused(name, f"no slice has more than {options.min_brain or 0:.0%} brain")
    try:
        gradings = [measure(side.slices, options.rule()) for side in sides]
        pixels = [in_plane(side, kept, options) for side in sides]  # each [n, H', W']
        moved = moved_positions(image, kept, options)
        maps = None if labels is None else in_plane(image, kept, options, labels)
    except ValueError as error:
        raise Refused(name, str(error)) from error
    if any(side.shape != pixels[0].shape for side in pixels):
        raise Refused(name, "its twin's pixels are of another size; twins are registered")

    size = options.size
    squares = np.empty((len(sides), len(kept), size, size), np.uint16)
    thumbnails = np.empty((len(kept), 1024), np.float32)
    drawn = None if maps is None else np.empty((len(kept), size, size), np.uint8)
    facts: list[Facts] = []
    for n, z in enumerate(kept.tolist()):
        both = zip(pixels, gradings, strict=True)
        fitted = [fit_square(grade(x[n], grading), size) for x, grading in both]
        squares[:, n] = [to_uint16(x) for x in fitted]
        thumbnails[n] = thumbnail(fitted[0])
        if drawn is not None and maps is not None:
            drawn[n] = fit_labels(maps[n], size)
        facts.append(
            Facts(
                source=names[z].source,
                label=label_of(names[z].file, options, image, labels, z),
                order=z,
                source_size=(pixels[0].shape[1], pixels[0].shape[2]),
                mode=image.mode,
                grading=asdict(gradings[0]),
                target_grading=asdict(gradings[1]) if twin is not None else None,
                digest=digest(image.slices[z]).hex(),
                plane=planes[z],
                position=None if moved is None else asdict(moved[n]),
                tags=dict(image.tags if tags is None else tags[z]),
            )
        )
    return Squares(
        slices=squares[0],
        thumbnails=thumbnails,
        facts=facts,
        targets=squares[1] if twin is not None else None,
        labels=drawn,
        volume=image.volume,
        empty=empty,
        elsewhere=int((~here).sum()),
    )


def check_registered(name: str, image: ReadImage, twin_name: str, twin: ReadImage) -> None:
    """Raises Refused for a twin of another size, or one that is known to lie elsewhere."""
    if twin.slices.shape != image.slices.shape:
        raise Refused(
            name, f"{shape(image)}, but its twin {twin_name} is {shape(twin)}; twins are registered"
        )
    for own, other in zip(image.positions or (), twin.positions or (), strict=False):
        height, width = image.slices.shape[1:]
        near = float(np.linalg.norm(np.subtract(own.origin, other.origin)))
        far = float(np.linalg.norm((to_lps(own) - to_lps(other)) @ (width - 1, height - 1, 1)))
        turned = np.abs(np.subtract([own.row, own.column], [other.row, other.column])).max()
        fact = None
        if near > APART_MM:
            fact = f"lies {near:.1f} mm away"
        elif turned > TURNED:
            fact = "is turned against it"
        elif far > APART_MM:
            fact = f"ends {far:.1f} mm away: its pixels are of another size"
        if fact is not None:
            raise Refused(name, f"its twin {twin_name} {fact}; twins are registered")


def shape(image: ReadImage) -> str:
    count, height, width = image.slices.shape
    return f"{width}x{height} pixels" + (f" x {count} slices" if image.volume else "")


def in_plane(
    image: ReadImage,
    kept: npt.NDArray[np.intp],
    options: PrepareOptions,
    labels: UInt8 | None = None,
) -> Any:
    """The kept slices (or their labels), [n, H', W'], their pixels made isotropic where asked.

    Raises ValueError where the pixels' size is not known.
    """
    source = image.slices if labels is None else labels
    picked = source if len(kept) == len(source) else source[kept]
    if options.isotropic is None or not len(kept):
        return picked
    if image.positions is None:
        raise ValueError("the size of its pixels is not known; prepare it without --isotropic")
    spacing = image.positions[0].spacing
    target = options.pixel_mm()
    return resample_in_plane(picked, spacing, target, labels=labels is not None)[0]


def moved_positions(
    image: ReadImage, kept: npt.NDArray[np.intp], options: PrepareOptions
) -> list[SlicePosition] | None:
    """Where the kept slices lie, once their pixels are isotropic; None where that is not known."""
    if image.positions is None:
        return None
    positions = [image.positions[z] for z in kept.tolist()]
    if options.isotropic is None:
        return positions
    height, width = image.slices.shape[1:]
    return [resampled_position(p, (height, width), options.pixel_mm()) for p in positions]


def label_of(
    name: str, options: PrepareOptions, image: ReadImage, labels: UInt8 | None, z: int
) -> str:
    """By the area of the label map; else the given label; else the folder that holds the file."""
    if labels is not None and image.positions is not None:
        down, across = image.positions[z].spacing
        area = np.count_nonzero(labels[z]) * down * across  # mm²
        return "tumour" if area >= options.tumour_area else "normal"
    if options.label is not None:
        return options.label
    folder = name.rpartition("/")[0].rpartition("/")[2]
    if is_archive(folder):
        folder = folder[: -len(suffix(folder))]
    return folder.encode("utf-8", "backslashreplace").decode()


def fit_labels(x: UInt8, size: int) -> UInt8:
    """Labels padded and resized as `fit_square` does with pixels: by nearest neighbour.

    x: uint8 [H, W]. Returns uint8 [size, size]; what is added around it is 0.
    """
    height, width = x.shape
    side = max(height, width)
    top, left = offsets(height, width)
    padded = np.zeros((side, side), np.uint8)
    padded[top : top + height, left : left + width] = x
    return np.array(Image.fromarray(padded).resize((size, size), Image.Resampling.NEAREST))
