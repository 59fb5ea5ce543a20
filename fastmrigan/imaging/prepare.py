"""A folder of images to a prepared data set: read, check, grade, square, group, split, write."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from fastmrigan import __version__
from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging import output
from fastmrigan.imaging.contact_sheet import contact_sheet, write_png
from fastmrigan.imaging.dataset import (
    DatasetInfo,
    Float32,
    SliceGrading,
    SliceRecord,
    SliceWriter,
    SplitInfo,
    fingerprint,
    write_info,
)
from fastmrigan.imaging.duplicates import digest, exact_groups, near_groups, thumbnail
from fastmrigan.imaging.geometry import fit_square
from fastmrigan.imaging.grading import Grading, GradingRule, grade, measure
from fastmrigan.imaging.nifti import brain_shares
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.pairs import Job, pair_folder, pair_table
from fastmrigan.imaging.quantise import to_float
from fastmrigan.imaging.readers import ReadImage, read
from fastmrigan.imaging.split import Side, Ties, split
from fastmrigan.imaging.walker import Refused, Walk, walk
from fastmrigan.progress import Progress


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made, for the closing lines."""

    info: DatasetInfo
    refused: list[Refused]
    ignored: Counter[str]  # files that are no images, by extension
    empty: int  # slices of volumes with too little brain
    split_reason: str
    nameless: int  # slices of unknown patients


@dataclass
class Collected:
    """What is known of the slices written so far; all lists run alongside the slices."""

    jobs: list[Job] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # relative name, and slice number of a volume
    patients: list[tuple[str, str] | None] = field(default_factory=list)  # never written
    sizes: list[tuple[int, int]] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    gradings: list[Grading] = field(default_factory=list)
    target_gradings: list[Grading] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    thumbnails: list[Float32] = field(default_factory=list)
    empty: int = 0


def prepare(source: Path, out: Path, options: PrepareOptions) -> Prepared:
    """Makes the prepared data set `out` of a folder or one file.

    Raises UsageError for options, folders without images and outputs that cannot be used;
    InputRejected where every file was refused (rejects.jsonl is written all the same).
    """
    options.check()
    out = out.absolute()
    found, jobs, refused = find_jobs(source, options)
    request = request_of(jobs, options)
    before = output.existing(out, request, force=options.force)
    with output.making(out) as folder:
        collected = Collected()
        writers = [SliceWriter(folder / "slices.npy", options.size)]
        if options.pairs is not None:
            writers.append(SliceWriter(folder / "targets.npy", options.size))
        with Progress("prepare", len(jobs), "files") as progress:
            for job in jobs:
                try:
                    add(job, collected, writers, options)
                except Refused as error:
                    refused.append(error)
                progress.advance()
        for writer in writers:
            writer.close()
        if not collected.keys:
            reject_all(out, refused)
        info, reason = describe(folder, collected, options, request)
        if before is not None and before.fingerprint != info.fingerprint and not options.force:
            raise UsageError(
                f"--out {out}: holds a data set made from other bytes under the same names; name "
                "another folder or add --force to replace it"
            )
        output.write_rejects(folder / "rejects.jsonl", refused)
        write_sheet(folder, options)
        write_info(folder, info)
        output.publish(folder, out)
    nameless = collected.patients.count(None)
    return Prepared(info, refused, found.ignored, collected.empty, reason, nameless)


def find_jobs(source: Path, options: PrepareOptions) -> tuple[Walk, list[Job], list[Refused]]:
    """The files to read and those refused already. Raises UsageError where there are none."""
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    pairs = options.pairs
    if pairs is not None and not pairs.exists():
        raise UsageError(f"--pairs {pairs}: no such file or folder")
    found = Walk()
    if pairs is not None and pairs.is_file():
        jobs, refused = pair_table(source, pairs)
    else:
        found = walk(source)
        if pairs is None:
            jobs, refused = [Job(name, path) for name, path in found.files], []
        else:
            jobs, refused = pair_folder(found, pairs)
    refused = found.refused + refused
    if not jobs and not refused:
        ignored = f" ({sum(found.ignored.values()):,} other files)" if found.ignored else ""
        raise UsageError(f"{source}: no images in this folder{ignored}")
    pattern = options.group_pattern
    if pattern is not None and jobs and not any(re.search(pattern, job.name) for job in jobs):
        raise UsageError(f"--group-pattern {pattern}: matches no name, e.g. {jobs[0].name}")
    return found, jobs, refused


def request_of(jobs: Sequence[Job], options: PrepareOptions) -> str:
    """sha256 over the options and the names and sizes of all files: what was asked for."""
    asked = asdict(options) | {"pairs": options.pairs is not None}
    del asked["force"]
    total = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for job in jobs:
        for name, path in ((job.name, job.path), *((job.twin,) if job.twin else ())):
            total.update(f"{path.stat().st_size} {name}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def add(
    job: Job, collected: Collected, writers: Sequence[SliceWriter], options: PrepareOptions
) -> None:
    """Reads one file (and its twin) and writes its slices. Raises Refused."""
    image, grading = read_graded(job.path, job.name, options.rule())
    sides = [(image, grading)]
    if job.twin is not None:
        name, path = job.twin
        try:
            twin = read_graded(path, name, options.rule())
        except Refused as error:
            raise Refused(job.name, f"its twin {error}") from error
        if twin[0].slices.shape != image.slices.shape:
            raise Refused(
                job.name,
                f"{shape(image)}, but its twin {name} is {shape(twin[0])}; twins are registered",
            )
        sides.append(twin)

    kept = np.arange(len(image.slices))
    if image.volume:
        kept = np.flatnonzero(brain_shares(image.slices) > options.min_brain)
        collected.empty += len(image.slices) - len(kept)
        if kept.size == 0:
            raise Refused(job.name, f"no slice has more than {options.min_brain:.0%} brain")
    for z in kept.tolist():
        raw = image.slices[z]  # [H, W]
        fitted = [fit_square(grade(i.slices[z], g), options.size) for i, g in sides]
        for writer, x in zip(writers, fitted, strict=True):
            writer.append(x)
        collected.jobs.append(job)
        collected.keys.append(f"{job.name}#{z}" if image.volume else job.name)
        collected.patients.append(patient_of(job.name, image, options.group_pattern))
        collected.sizes.append((raw.shape[0], raw.shape[1]))
        collected.modes.append(image.mode)
        collected.gradings.append(grading)
        collected.target_gradings += [g for _, g in sides[1:]]
        collected.digests.append(digest(raw))
        collected.thumbnails.append(thumbnail(fitted[0]))


def read_graded(path: Path, name: str, rule: GradingRule) -> tuple[ReadImage, Grading]:
    """One file and the one range of all its slices: a volume is graded as a whole."""
    image = read(path, name)
    try:
        return image, measure(image.slices, rule)
    except ValueError as error:
        raise Refused(name, str(error)) from error


def shape(image: ReadImage) -> str:
    count, height, width = image.slices.shape
    return f"{width}x{height} pixels" + (f" x {count} slices" if image.volume else "")


def patient_of(name: str, image: ReadImage, pattern: str | None) -> tuple[str, str] | None:
    """Who a slice shows, as far as is known: a pattern comes before what the file itself says."""
    match = re.search(pattern, name) if pattern is not None else None
    if match is not None and match[1] is not None:
        return "pattern", match[1]
    if image.patient is not None:
        return "file", image.patient
    return ("volume", name) if image.volume else None


def describe(
    folder: Path, collected: Collected, options: PrepareOptions, request: str
) -> tuple[DatasetInfo, str]:
    """Groups, splits, writes index.jsonl and returns what dataset.json will say."""
    numbers: dict[tuple[str, str], str] = {}
    for patient in collected.patients:
        if patient is not None:
            numbers.setdefault(patient, f"patient-{len(numbers) + 1:04}")
    groups = [None if patient is None else numbers[patient] for patient in collected.patients]
    thumbnails = np.array(collected.thumbnails)  # [N, 1024]
    exact, near = exact_groups(collected.digests), near_groups(thumbnails, groups)
    by, reason, sides = split(
        Ties(groups, exact, near, thumbnails), options.split, options.test_fraction, options.seed
    )
    targets: Sequence[Grading | None] = collected.target_gradings or [None] * len(groups)
    labels: Counter[str] = Counter()
    with (folder / "index.jsonl").open("w", encoding="utf-8") as file:
        for i, key in enumerate(collected.keys):
            target = targets[i]
            record = SliceRecord(
                index=i,
                source=hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16],
                label=label_of(collected.jobs[i].name, options.label),
                source_size=collected.sizes[i],
                mode=collected.modes[i],
                group=groups[i],
                exact_group=exact[i],
                near_group=near[i],
                split=sides[i],
                grading=SliceGrading(**asdict(collected.gradings[i])),
                target_grading=None if target is None else SliceGrading(**asdict(target)),
            )
            labels[record.label] += 1
            file.write(record.model_dump_json() + "\n")
    paired = options.pairs is not None
    info = DatasetInfo(
        count=len(groups),
        size=(options.size, options.size),
        grading=options.rule().as_dict(),
        labels=dict(sorted(labels.items())),
        split=SplitInfo(
            by=by,
            seed=options.seed,
            test_fraction=options.test_fraction,
            counts={side: sides.count(side) for side in get_args(Side) if side in sides},
        ),
        contrast=options.contrast,
        target_contrast=options.target_contrast if paired else None,
        paired=paired,
        request=request,
        fingerprint=fingerprint(folder, paired=paired),
        version=__version__,
    )
    return info, reason


def label_of(name: str, label: str | None) -> str:
    """The given label, else the name of the folder that holds the file, else empty."""
    if label is not None:
        return label
    folder = name.rpartition("/")[0].rpartition("/")[2]
    return folder.encode("utf-8", "backslashreplace").decode()


def reject_all(out: Path, refused: Sequence[Refused]) -> None:
    """Writes rejects.jsonl and raises InputRejected naming the first file and its fact."""
    out.mkdir(exist_ok=True)
    output.write_rejects(out / "rejects.jsonl", refused)
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
