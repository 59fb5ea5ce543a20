"""A folder of images to a prepared data set: the order of the work, and how it is interrupted.

collect: which files · units: what belongs together · decode, stack, squares: pixels to graded
squares · journal: what is finished · describe: groups, split, index · output: where it goes.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastmrigan import _core
from fastmrigan.errors import InputRejected, Interrupted, UsageError
from fastmrigan.imaging import output, quarantine
from fastmrigan.imaging.collect import find, jobs_of, request_of
from fastmrigan.imaging.contact_sheet import contact_sheet, write_png
from fastmrigan.imaging.dataset import DatasetInfo, write_info
from fastmrigan.imaging.decode import patience, work
from fastmrigan.imaging.describe import Described, describe
from fastmrigan.imaging.journal import Entry, Journal
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.pairs import Job
from fastmrigan.imaging.pool import DecodePool
from fastmrigan.imaging.quantise import to_float
from fastmrigan.imaging.squares import Squares
from fastmrigan.imaging.stack import square_series
from fastmrigan.imaging.tables import Groups
from fastmrigan.imaging.units import Plan, Unit, plan
from fastmrigan.imaging.walker import Refused
from fastmrigan.interrupt import StopSignal
from fastmrigan.progress import Progress

Task = tuple[str, tuple[Any, ...]]  # name and arguments of `decode.work`


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made, for the closing lines."""

    info: DatasetInfo
    refused: list[Refused]
    quarantined: list[Refused]  # DICOM that may have text in its pixels
    ignored: Counter[str]  # files that are no images, by kind
    empty: int  # slices of volumes with too little brain
    elsewhere: int  # slices of another plane than the one asked for
    split_reason: str
    nameless: int  # slices of unknown patients
    assumed: int  # volumes that are each taken for a patient
    warnings: list[str]  # what went wrong beside the files, such as dcm2niix


@dataclass
class Run:
    """One run of `prepare`: what may stop it, and what it has refused so far."""

    options: PrepareOptions
    stop: StopSignal
    pool: DecodePool[Any]
    done: int = 0  # files, of
    total: int = 0
    refused: list[Refused] = field(default_factory=list)

    def pause(self) -> None:
        """Raises Interrupted where Ctrl-C or SIGTERM has come since."""
        if not self.stop.stopped:
            return
        kept = f" with {self.done:,} of {self.total:,} files kept" if self.total else ""
        raise Interrupted(f"interrupted{kept}; the same command does what is missing")

    def look(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Runs tasks of `decode.work` in the pool, in order."""
        for result in self.pool.run(tasks):
            self.pause()
            yield result


def prepare(source: Path, out: Path, options: PrepareOptions) -> Prepared:
    """Makes the prepared data set `out` of a folder, an archive, a DICOMDIR or one file.

    An interrupted run, or one that was killed, goes on where it stopped when it is called again
    with the same arguments; the bytes are those of a run without a break. Raises UsageError for
    options, folders without images and outputs that cannot be used; Interrupted; InputRejected
    where every file was refused or quarantined (both lists are written all the same).
    """
    options.check()
    _core.isa()  # an instruction set that does not exist ends the run here, not each file
    out = Path(os.path.realpath(out))  # a link stays one, and leads to the set
    found = find(source, options)
    request = request_of(found, options)
    pool = DecodePool(work, workers=options.workers, seconds=patience)
    with StopSignal() as stop, output.making(out) as making, pool:
        before = output.existing(out, request, force=options.force)
        run = Run(options, stop, pool)
        shutil.rmtree(making.unpacked, ignore_errors=True)  # of a run that was killed
        jobs, run.refused = jobs_of(found, options, making.unpacked, run.pause)
        planned = plan(jobs, options, run.look, run.pause)
        run.refused += planned.refused
        tabled = by_table(found.groups, planned, jobs, run.refused)
        making.begun = True
        journal = Journal(making.folder, request, options)
        entries = square_all(planned.units, journal, run)
        run.refused += [each for entry in entries for each in entry.refused]
        elsewhere = planned.elsewhere + sum(entry.elsewhere for entry in entries)
        if not any(entry.facts for entry in entries):
            reject_all(out, run.refused, planned.quarantined, elsewhere, options)
        thumbnails = np.load(journal.thumbnails, mmap_mode="r")
        told = describe(
            making.folder, planned.units, entries, tabled, options, request, thumbnails, run.pause
        )
        if before is not None and before.fingerprint != told.info.fingerprint and not options.force:
            raise UsageError(
                f"--out {out}: holds a data set made from other bytes under the same names; name "
                "another folder or add --force to replace it"
            )
        del thumbnails
        finish(making.folder, out, told, planned, run)
        journal.remove()
        shutil.rmtree(making.unpacked, ignore_errors=True)
        output.publish(making.folder, out)
    return Prepared(
        told.info,
        run.refused,
        planned.quarantined,
        found.images.ignored,
        sum(entry.empty for entry in entries),
        elsewhere,
        told.split_reason,
        told.nameless,
        told.assumed,
        planned.warnings,
    )


def by_table(
    groups: Groups | None, planned: Plan, jobs: Sequence[Job], refused: Sequence[Refused]
) -> list[str | None]:
    """Who each unit shows by the table of --groups; None where there is none, or it lacks it.

    Of a series any file may be the one that is named, and so may a copy that was not taken. What
    of the table and the files does not meet becomes a warning.
    """
    units, copies = planned.units, planned.copies
    if groups is None:
        return [None] * len(units)
    tabled = [
        groups.shared([name for job in unit.jobs for name in (job.name, *copies.get(job.name, ()))])
        for unit in units
    ]
    there = [name for job in jobs for name, _ in job.files] + [each.name for each in refused]
    lone = sum(len(unit.jobs) for unit, group in zip(units, tabled, strict=True) if group is None)
    amiss = groups.amiss(there, lone)
    if amiss is not None:
        planned.warnings.insert(0, amiss)
    return tabled


def square_all(units: Sequence[Unit], journal: Journal, run: Run) -> list[Entry]:
    """Decodes all units that an earlier run did not finish; the entries of all, in order."""
    entries = journal.resume([unit.key for unit in units])
    rest = units[len(entries) :]
    run.total = sum(len(unit.jobs) for unit in units)
    run.done = run.total - sum(len(unit.jobs) for unit in rest)
    try:
        with Progress("prepare", run.total, "files", start=run.done) as progress:
            results = counted(rest, progress, run)
            for unit in rest:
                squares, refused = square_unit(unit, results, run)
                entries.append(journal.append(unit.key, squares, refused))
                run.done += len(unit.jobs)
    except BaseException:
        journal.abandon()
        raise
    journal.close()
    return entries


def counted(units: Sequence[Unit], progress: Progress, run: Run) -> Iterator[Any]:
    """The results of all tasks of the units, in order; tells the time left by bytes, since a volume
    takes longer than a picture.
    """
    whole = left = sum(unit.size for unit in units)
    jobs = [(job, task) for unit in units for job, task in tasks_of(unit, run.options)]
    last: Job | None = None
    for (job, _), result in zip(jobs, run.look(task for _, task in jobs), strict=True):
        if job is not last:  # a pair is decoded in one task or in two, and counts once
            left -= job.size
            rate = max(whole - left, 1) / progress.seconds
            progress.advance(seconds_left=left / rate)
            last = job
        yield result


def tasks_of(unit: Unit, options: PrepareOptions) -> Iterator[tuple[Job, Task]]:
    """The pool's tasks for one unit: one for each of its files that is decoded by itself."""
    if not unit.frames:
        (job,) = unit.jobs
        yield job, (job.name, ("square", job.size, job, options))
        return
    convert = options.rgb == "convert"
    for job in unit.jobs:
        for name, path in job.files:
            yield job, (name, ("frames", job.size, path, name, convert))


def square_unit(
    unit: Unit, results: Iterator[Any], run: Run
) -> tuple[Squares | None, list[Refused]]:
    """What the results of a unit's tasks come to: its squares, if any, and what was refused."""
    if unit.frames:
        return square_series(unit, results, run.options)
    result = next(results)
    return (None, [result]) if isinstance(result, Refused) else (result, [])


def finish(folder: Path, out: Path, told: Described, planned: Plan, run: Run) -> None:
    """Writes all that stands beside the arrays; dataset.json, which makes it a set, last."""
    output.write_refused(folder / "rejects.jsonl", run.refused)
    if planned.quarantined:
        output.write_refused(folder / "quarantine.jsonl", planned.quarantined)
    write_sheet(folder, run.options)
    run.pause()
    write_info(folder, told.info)


def reject_all(
    out: Path,
    refused: Sequence[Refused],
    quarantined: Sequence[Refused],
    elsewhere: int,
    options: PrepareOptions,
) -> None:
    """Writes rejects.jsonl and quarantine.jsonl; raises InputRejected with the first fact."""
    out.mkdir(exist_ok=True)
    output.write_refused(out / "rejects.jsonl", refused)
    if quarantined:
        output.write_refused(out / "quarantine.jsonl", quarantined)
    if quarantined and not refused:
        raise InputRejected(
            f"{quarantined[0].name}: all that could be used is quarantined: "
            f"{quarantine.remedy(quarantined)} (see {out / 'quarantine.jsonl'})"
        )
    if not refused:
        raise InputRejected(
            f"--plane {options.plane}: all {elsewhere:,} slices lie in other planes, or in none "
            "that is known; use --plane any"
        )
    more = f" (and {len(refused) - 1:,} more, see {out / 'rejects.jsonl'})" if refused[1:] else ""
    raise InputRejected(f"{refused[0]}{more}")


def write_sheet(folder: Path, options: PrepareOptions) -> None:
    """contact_sheet.png: slices spread evenly over the set, twins side by side."""
    slices = np.load(folder / "slices.npy", mmap_mode="r")  # [N, H, W]
    columns = min(16, max(4, 1056 // (options.size + 2)) // 2 * 2)
    sides = 2 if options.pairs is not None else 1
    shown = min(len(slices), columns * columns // sides)
    picked = np.linspace(0, len(slices) - 1, shown).round().astype(np.int64)
    tiles = slices[picked][:, None]  # [n, 1, H, W]
    if options.pairs is not None:
        targets = np.load(folder / "targets.npy", mmap_mode="r")
        tiles = np.concatenate([tiles, targets[picked][:, None]], axis=1)  # [n, 2, H, W]
    flat = to_float(tiles.reshape(-1, *slices.shape[1:]))
    write_png(folder / "contact_sheet.png", contact_sheet(flat, columns=columns))
