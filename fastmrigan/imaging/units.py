"""What is prepared as one: a picture, a volume, or the slices of a DICOM series.

DICOM is looked at twice: all headers first, which tell the series and where their slices lie,
then the pixels, series by series, in the order of the slices.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmrigan.imaging import quarantine
from fastmrigan.imaging.options import ANY_PLANE, AUTO, PrepareOptions
from fastmrigan.imaging.pairs import Job
from fastmrigan.imaging.readers import MAX_VOXELS
from fastmrigan.imaging.walker import Refused, is_dicom, printable
from fastmrigan.progress import Progress

if TYPE_CHECKING:
    from fastmrigan.imaging.dicom.header import DicomHeader
    from fastmrigan.imaging.dicom.series import FrameRef

Headers = dict[Path, "DicomHeader"]
Look = Callable[[Iterable[tuple[str, tuple[Any, ...]]]], Iterable[Any]]  # DecodePool.run


@dataclass(frozen=True)
class Unit:
    """One picture or volume (a single job), or the files of one DICOM series in slice order."""

    jobs: tuple[Job, ...]
    frames: tuple[tuple[int, int], ...] = ()  # of DICOM: for each slice its job and its frame
    patient: str | None = None  # by the header; never written
    notes: tuple[str, ...] = ()  # gaps, duplicates, mixed orientation
    contrast: str = "unknown"
    target_contrast: str = "unknown"

    @property
    def key(self) -> str:
        """Changes where a file of it does."""
        text = "\n".join(f"{job.name}\n{job.stamp}" for job in self.jobs) + repr(self.frames)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(job.size for job in self.jobs)


@dataclass
class Plan:
    """The units in the order they are prepared in, and what never became one."""

    units: list[Unit] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    quarantined: list[Refused] = field(default_factory=list)
    copies: dict[str, list[str]] = field(default_factory=dict)  # not taken, by the one that is
    elsewhere: int = 0  # slices of series in another plane
    warnings: list[str] = field(default_factory=list)  # to be shown, not to be kept


def plan(
    jobs: Sequence[Job], options: PrepareOptions, look: Look, pause: Callable[[], None]
) -> Plan:
    """Reads the headers of all DICOM among the jobs and sorts the files into units.

    look: runs `decode.work` for each task, in order. `pause` is called now and then and may raise.
    The order of the units is that of their first files.
    """
    made = Plan()
    marked = {path for job in jobs for _, path in job.files if is_dicom(path)}
    headers, broken = read_headers(jobs, marked, look)
    dicom: dict[str, Job] = {}  # by name
    for job in jobs:
        reason = next((broken[path] for _, path in job.files if path in broken), None)
        if reason is not None:
            made.refused.append(Refused(job.name, reason))
        elif (text := burned_in(job, headers, options)) is not None:
            made.quarantined.append(Refused(job.name, text))
        elif job.path not in headers:
            made.units.append(Unit((job,)))
        elif job.label_map is not None:
            made.refused.append(Refused(job.name, "label maps are laid on NIfTI volumes alone"))
        elif job.name in dicom:
            made.refused.append(
                Refused(job.name, "is named twice; DICOM slices are taken once, with one twin each")
            )
        else:
            dicom[job.name] = job
    take_once(made, dicom, headers)
    add_series(made, dicom, headers, options)
    place = {job.name: number for number, job in reversed(list(enumerate(jobs)))}
    made.units.sort(key=lambda unit: min(place[job.name] for job in unit.jobs))
    name_contrasts(made, headers, options, pause)
    return made


def read_headers(
    jobs: Sequence[Job], marked: set[Path], look: Look
) -> tuple[Headers, dict[Path, str]]:
    """The headers of all DICOM files, and why those without one are refused, both by path."""
    headers: Headers = {}
    broken: dict[Path, str] = {}
    wanted = {
        path: (name, number > 0)  # a twin, or a label map, is named in the reason
        for job in jobs
        for number, (name, path) in enumerate(job.files)
        if path in marked
    }
    if not wanted:
        return headers, broken
    tasks = [
        (name, ("header", path.stat().st_size, path, name)) for path, (name, _) in wanted.items()
    ]
    with Progress("prepare: headers", len(tasks), "files") as progress:
        for (path, (_, other)), result in zip(wanted.items(), look(tasks), strict=True):
            if isinstance(result, Refused):
                broken[path] = f"its twin {result}" if other else result.reason
            else:
                headers[path] = result
            progress.advance()
    return headers, broken


def burned_in(job: Job, headers: Headers, options: PrepareOptions) -> str | None:
    """Why the job is set aside: its own annotation's fault, or its twin's."""
    for name, path in job.files:
        if path in headers:
            text = quarantine.reason(headers[path].burned_in, options.allow_burned_in)
            if text is not None:
                return text if path == job.path else f"its twin {name} {text}"
    return None


def take_once(made: Plan, dicom: dict[str, Job], headers: Headers) -> None:
    """Refuses all but one of the files that are one instance, by SOPInstanceUID (PS3.3 C.12.1.1.1).

    A backup beside the original would give a series each of its slices twice. Taken is the longest
    file, since a copy may be cut short, and of equally long ones the first.
    """
    copies: dict[str, list[str]] = defaultdict(list)
    for name, job in dicom.items():
        instance = headers[job.path].instance
        if instance is not None:
            copies[instance].append(name)
    for names in copies.values():
        taken = max(names, key=lambda name: dicom[name].size)
        reason = f"is the same instance as {printable(taken)} (SOPInstanceUID), which is taken"
        for name in names:
            if name != taken:
                made.copies.setdefault(taken, []).append(name)
                made.refused.append(Refused(name, reason))
                del dicom[name]


def add_series(
    made: Plan, dicom: dict[str, Job], headers: Headers, options: PrepareOptions
) -> None:
    """Adds one unit a series; those of another plane than the one asked for are only counted."""
    if not dicom:
        return
    from fastmrigan.imaging.dicom.series import assemble

    for series in assemble([(name, headers[job.path]) for name, job in dicom.items()]):
        refs: dict[str, list[FrameRef]] = defaultdict(list)  # of each file
        for ref in series.frames:
            refs[ref.name].append(ref)
        names = list(refs)
        header = headers[dicom[names[0]].path]
        if options.plane not in (ANY_PLANE, series.plane):
            made.elsewhere += len(series.frames)
        elif header.rows * header.columns * len(series.frames) > MAX_VOXELS:
            reason = f"its series claims more than {MAX_VOXELS:,} voxels; split it"
            made.refused += [Refused(name, reason) for name in names]
        elif len({headers[dicom[name].path].patient for name in names}) == 1:
            made.units.append(unit_of(series.frames, dicom, headers, series.notes))
        else:
            notes = ("files of several patients in one series: each file stands for itself",)
            made.units += [unit_of(own, dicom, headers, notes) for own in refs.values()]


def unit_of(
    refs: Sequence[FrameRef], dicom: dict[str, Job], headers: Headers, notes: Sequence[str]
) -> Unit:
    place: dict[str, int] = {}
    frames = tuple((place.setdefault(ref.name, len(place)), ref.frame) for ref in refs)
    jobs = tuple(dicom[name] for name in place)
    return Unit(jobs, frames, headers[jobs[0].path].patient, tuple(notes))


def name_contrasts(
    made: Plan, headers: Headers, options: PrepareOptions, pause: Callable[[], None]
) -> None:
    """Each unit's contrast: as asked for, or (AUTO) by dcm2niix, which is asked once a series."""
    known: dict[str, str] = {}  # by SeriesInstanceUID

    def contrast(asked: str, paths: Sequence[Path]) -> str:
        if asked != AUTO:
            return asked
        mine = [path for path in paths if path in headers]
        uid = headers[mine[0]].series if mine else None
        if uid is None:
            return "unknown"
        if uid not in known:
            pause()
            known[uid] = guessed(mine, headers[mine[0]].modality, made)
        return known[uid]

    for number, unit in enumerate(made.units):
        twins = [job.twin[1] for job in unit.jobs if job.twin is not None]
        made.units[number] = replace(
            unit,
            contrast=contrast(options.contrast, [job.path for job in unit.jobs]),
            target_contrast=contrast(options.target_contrast, twins),
        )


def guessed(paths: list[Path], modality: str, made: Plan) -> str:
    from fastmrigan.imaging.contrast import Silent, guess_contrast

    if modality == "CT":
        return "ct"
    try:
        return guess_contrast(paths)
    except Silent as error:
        made.warnings.append(f"a series of {len(paths):,} files: contrast unknown: {error}")
        return "unknown"
