"""Files to series: what lies in one stack, in the order in which it lies in the patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from fastmrigan.imaging.dicom.header import DicomHeader
from fastmrigan.imaging.position import Float64, SlicePosition
from fastmrigan.imaging.walker import natural

SAME_DIRECTION = 1e-3  # of each direction cosine: 0.06 degrees
SAME_SPACING = 1e-3  # relative, of the pixels
SAME_PLACE = 0.01  # mm along the normal: what makers round positions to
EVEN = 0.02  # relative, of a step: the rounding of thin slices
SIDEWAYS = 0.5  # pixels per slice; less is rounding
MAX_STACKS = 32  # of one file, which is decoded for each: three planes are usual


@dataclass(frozen=True)
class FrameRef:
    """One slice of a series: where to read it."""

    name: str  # of the file, as given to `assemble`
    frame: int  # its number in that file, from 0
    position: SlicePosition | None


@dataclass(frozen=True)
class Series:
    """Slices of one size, spacing and direction; neighbours in the patient are neighbours here."""

    uid: str | None  # SeriesInstanceUID; to be kept in memory only
    frames: tuple[FrameRef, ...]
    plane: str  # "axial", "sagittal", "coronal", "oblique", or "unknown" without positions
    step_mm: float | None  # between neighbours along the normal; None where it is not one number
    notes: tuple[str, ...]  # gaps, duplicates, mixed orientations …, one line each


@dataclass(frozen=True)
class Geometry:
    """What the slices of one stack share."""

    size: tuple[int, int]  # rows, columns
    cosines: tuple[float, ...]  # 6, of a row and of a column; () without a position
    spacing: tuple[float, ...]  # mm between rows, between columns; () without a position


Stack = list[FrameRef]


def assemble(items: Sequence[tuple[str, DicomHeader]]) -> list[Series]:
    """Groups the frames of files (name, header) into series and orders them in space.

    A series has one SeriesInstanceUID (without one: one patient's files in one folder), one
    orientation, one spacing of pixels and one size. Its slices follow each other along the normal;
    InstanceNumber is never looked at, and names decide only between slices at the same place.
    Series are in the order of their first file names, whatever the order of `items`.
    """
    groups: dict[tuple[str, ...], list[tuple[Geometry, FrameRef]]] = defaultdict(list)
    for name, header in sorted(items, key=lambda item: natural(item[0])):
        if header.series:
            key: tuple[str, ...] = (header.series,)
        else:
            key = ("", header.patient or "", str(PurePosixPath(name).parent))
        for frame in range(header.frames):
            position = header.positions[frame] if header.positions is not None else None
            geometry = geometry_of(header, position)
            groups[key].append((geometry, FrameRef(name, frame, position)))
    made = []
    for key, entries in groups.items():
        stacks = split(entries)
        notes = [] if key[0] else ["no SeriesInstanceUID: grouped by folder and geometry"]
        if len(stacks) > 1:
            notes.append(mixture(stacks))
        made += [stack_to_series(key[0] or None, stack, tuple(notes)) for stack in stacks.values()]
    return made


def check_stacks(header: DicomHeader) -> None:
    """Raises ValueError for a file whose frames lie in more stacks than anyone scans at once."""
    homes([geometry_of(header, position) for position in header.positions or ()], MAX_STACKS)


def geometry_of(header: DicomHeader, position: SlicePosition | None) -> Geometry:
    size = header.rows, header.columns
    if position is None:
        return Geometry(size, (), ())
    return Geometry(size, position.row + position.column, position.spacing)


def split(entries: Sequence[tuple[Geometry, FrameRef]]) -> dict[Geometry, Stack]:
    """Frames of one geometry together, in the order of their first."""
    home = homes([own for own, _ in entries])
    stacks: dict[Geometry, Stack] = {}
    for own, ref in entries:
        stacks.setdefault(home[own], []).append(ref)
    return stacks


def homes(geometries: Iterable[Geometry], most: int | None = None) -> dict[Geometry, Geometry]:
    """From each geometry to the first one like it, which may be itself.

    Alike are those of one size, whose directions and spacings differ by rounding alone. Raises
    ValueError where there are more than `most` firsts.
    """
    distinct = list(dict.fromkeys(geometries))
    unknown = (0.0,) * 8
    rows = [(*own.size, *(own.cosines + own.spacing or unknown)) for own in distinct]
    numbers = np.array(rows, np.float64).reshape(-1, 10)
    home: dict[Geometry, Geometry] = {}
    firsts = 0
    for first, own in zip(distinct, numbers, strict=True):
        if first in home:
            continue
        firsts += 1
        if most is not None and firsts > most:
            raise ValueError(
                f"its frames differ in direction or spacing more than {most} times; split it"
            )
        rounding = np.array([0.0] * 2 + [SAME_DIRECTION] * 6 + [SAME_SPACING] * 2)
        rounding[8:] *= own[8:]
        for n in np.flatnonzero((np.abs(numbers - own) <= rounding).all(axis=1)).tolist():
            home.setdefault(distinct[n], first)
    return home


def mixture(stacks: dict[Geometry, Stack]) -> str:
    """What is to be said where one series falls into several stacks."""
    kinds = [
        f"{len(stack)} {plane_of(stack)} {geometry.size[1]}x{geometry.size[0]}"
        for geometry, stack in stacks.items()
    ]
    told = ", ".join(kinds[:5]) + (" …" if len(kinds) > 5 else "")
    return f"mixed orientations or sizes in one series, kept apart: {told}"


def plane_of(stack: Stack) -> str:
    position = stack[0].position
    return position.plane if position is not None else "unknown"


def stack_to_series(uid: str | None, stack: Stack, notes: tuple[str, ...]) -> Series:
    """Orders one stack along its normal, and measures its steps."""
    positions = [ref.position for ref in stack if ref.position is not None]
    if not positions:
        if len(stack) > 1:
            notes = (*notes, "no positions: in the order of names")
        return Series(uid, tuple(stack), "unknown", None, notes)
    normal = positions[0].normal / np.linalg.norm(positions[0].normal)
    origins = np.array([position.origin for position in positions], dtype=np.float64)  # [N, 3]
    places = origins @ normal  # [N] mm
    order = np.argsort(places.round(2), kind="stable")  # names decide within SAME_PLACE
    step, found = measure(origins[order], places[order], normal, min(positions[0].spacing))
    frames = tuple(stack[i] for i in order)
    return Series(uid, frames, plane_of(stack), step, (*notes, *found))


def measure(
    origins: Float64, places: Float64, normal: Float64, pixel: float
) -> tuple[float | None, tuple[str, ...]]:
    """The step between slices, and what is uneven. origins [N, 3], places [N] ascending, mm."""
    steps = np.diff(places)  # [N - 1]
    apart = steps > SAME_PLACE
    notes = []
    if not apart.all():
        different = apart.sum() + 1
        plural = "" if different == 1 else "s"
        notes.append(f"duplicate positions: {len(places)} slices at {different} place{plural}")
    if not apart.any():
        return None, tuple(notes)
    steps, before = steps[apart], places[:-1][apart]
    step = float(np.median(steps))
    wide = steps > 1.5 * step
    if wide.any():
        where = ", ".join(f"{place:.1f}" for place in before[wide][:3])
        notes.append(
            f"gaps: {wide.sum()} of up to {steps.max():.2f} mm where slices are {step:.2f} mm "
            f"apart, after {where}{' …' if wide.sum() > 3 else ''} mm along the normal"
        )
    uneven = np.abs(steps - step) > max(EVEN * step, 2 * SAME_PLACE)
    if (uneven & ~wide).any():
        notes.append(f"uneven steps: {steps[~wide].min():.2f} to {steps[~wide].max():.2f} mm")
    moves = np.diff(origins, axis=0)  # [N - 1, 3]
    aside = np.linalg.norm(moves - np.outer(moves @ normal, normal), axis=1)  # [N - 1] mm
    if aside.max() > SIDEWAYS * pixel:
        notes.append(f"slices displaced sideways, by up to {aside.max():.2f} mm (a tilted gantry?)")
    return None if uneven.any() else float(steps.mean()), tuple(notes)
