"""The finished slices to index.jsonl and dataset.json: patients, duplicates, split, notes."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from fastmrigan import __version__
from fastmrigan.imaging.dataset import fingerprint
from fastmrigan.imaging.duplicates import BLOCK, exact_groups, mirrored, near_groups
from fastmrigan.imaging.journal import Entry
from fastmrigan.imaging.options import AUTO, PrepareOptions
from fastmrigan.imaging.records import (
    DatasetInfo,
    RecordedPosition,
    SliceGrading,
    SliceRecord,
    SplitInfo,
)
from fastmrigan.imaging.split import Side, Ties, split
from fastmrigan.imaging.squares import Facts
from fastmrigan.imaging.units import Unit
from fastmrigan.progress import Progress

Float32 = npt.NDArray[np.float32]

VOLUME = "volume"  # what told a patient apart: nothing but its being another volume


@dataclass
class Listed:
    """Every slice, in order, with what its unit says of it."""

    facts: list[Facts] = field(default_factory=list)
    patients: list[tuple[str, str] | None] = field(default_factory=list)  # never written
    series: list[int | None] = field(default_factory=list)
    contrasts: list[str] = field(default_factory=list)
    target_contrasts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Described:
    """What came of `describe` besides the files."""

    info: DatasetInfo
    split_reason: str
    nameless: int  # slices of unknown patients
    assumed: int  # volumes that are each taken for a patient, as nothing tells whose they are


def describe(
    folder: Path,
    units: Sequence[Unit],
    entries: Sequence[Entry],
    tabled: Sequence[str | None],
    options: PrepareOptions,
    request: str,
    thumbnails: Float32,
    pause: Callable[[], None],
) -> Described:
    """Groups, splits, writes index.jsonl; thumbnails [N, 1024] of all slices, in order.

    tabled: who each unit shows by the table of --groups, where there is one.
    `pause` is called now and then and may raise. Raises UsageError where the split cannot be made.
    """
    listed = listing(units, entries, tabled, options)
    groups = number_patients(listed.patients)
    mirrors = mirrored(thumbnails)
    exact = exact_groups([bytes.fromhex(fact["digest"]) for fact in listed.facts])
    with steps_of(len(groups)) as progress:

        def step() -> None:
            pause()
            progress.advance()

        near = near_groups(thumbnails, groups, mirrors, step)
    by, reason, sides = split(
        Ties(groups, exact, near, thumbnails, mirrors),
        options.split,
        options.test_fraction,
        options.seed,
    )
    labels: Counter[str] = Counter()
    key = source_key(listed.facts)
    with (folder / "index.jsonl").open("w", encoding="utf-8") as file:
        for i, fact in enumerate(listed.facts):
            record = record_of(i, listed, groups[i], exact[i], near[i], sides[i], key)
            labels[fact["label"]] += 1
            file.write(record.model_dump_json() + "\n")
    paired, mapped = options.pairs is not None, options.label_maps is not None
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
        contrast=common(listed.contrasts),
        target_contrast=common(listed.target_contrasts) if paired else None,
        paired=paired,
        label_maps=mapped,
        notes=listed.notes,
        request=request,
        fingerprint=fingerprint(folder, paired=paired, label_maps=mapped),
        version=__version__,
    )
    assumed = {patient for patient in listed.patients if patient and patient[0] == VOLUME}
    return Described(info.sealed(), reason, groups.count(None), len(assumed))


def steps_of(count: int) -> Progress:
    """The progress of comparing `count` slices with one another; few say nothing."""
    side = -(-count // BLOCK)
    total = side * (side + 1) // 2
    return Progress("prepare: duplicates", total, "blocks", shown=total > 20)


def listing(
    units: Sequence[Unit],
    entries: Sequence[Entry],
    tabled: Sequence[str | None],
    options: PrepareOptions,
) -> Listed:
    """All slices of all units; series are numbered in order of appearance."""
    listed = Listed()
    count = 0
    for unit, entry, group in zip(units, entries, tabled, strict=True):
        if not entry.facts:
            continue
        number = None
        if unit.frames or entry.volume:
            count += 1
            number = count
        size = len(entry.facts)
        listed.facts += entry.facts
        listed.patients += [patient_of(unit, entry, options.group_pattern, group)] * size
        listed.series += [number] * size
        listed.contrasts += [unit.contrast] * size
        listed.target_contrasts += [unit.target_contrast] * size
        notes = list(unit.notes)
        if unit.frames and entry.refused:
            notes.append(f"refused {len(entry.refused):,} of its {len(unit.jobs):,} files")
        listed.notes += [f"series {number}: {note}" for note in notes]
    planes = Counter(fact["plane"] for fact in listed.facts if fact["plane"] is not None)
    if len(planes) > 1:
        counts = ", ".join(f"{plane} {count:,}" for plane, count in sorted(planes.items()))
        listed.notes.append(f"slices of several planes: {counts}; --plane keeps one of them")
    kinds = Counter(listed.contrasts)
    if options.contrast == AUTO and kinds["unknown"]:
        listed.notes.append(f"contrast unknown of {kinds['unknown']:,} slices")
    if len(kinds) > 1:
        counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items()))
        listed.notes.append(f"slices of several contrasts: {counts}")
    return listed


def patient_of(
    unit: Unit, entry: Entry, pattern: str | None, group: str | None
) -> tuple[str, str] | None:
    """Who a unit shows, as far as is known: a table or a pattern comes before what the file itself
    says."""
    if group is not None:
        return "table", group
    name = unit.jobs[0].name
    match = re.search(pattern, name) if pattern is not None else None
    if match is not None and match[1] is not None:
        return "pattern", match[1]
    if unit.patient is not None:
        return "file", unit.patient
    return (VOLUME, name) if entry.volume else None


def number_patients(patients: Sequence[tuple[str, str] | None]) -> list[str | None]:
    """A number for each patient, in order of appearance, in place of the name."""
    numbers: dict[tuple[str, str], str] = {}
    for patient in patients:
        if patient is not None:
            numbers.setdefault(patient, f"patient-{len(numbers) + 1:04}")
    return [None if patient is None else numbers[patient] for patient in patients]


def source_key(facts: Sequence[Facts]) -> bytes:
    """What the names of sources are hashed with: the same for the same set, and nowhere written.

    Names of files may tell who was imaged, and a plain hash of one is found by trying names. The
    key is made of all raw pixels, which only those who have the sources know.
    """
    return hashlib.sha256("".join(fact["digest"] for fact in facts).encode()).digest()


def record_of(
    index: int,
    listed: Listed,
    group: str | None,
    exact: int | None,
    near: int | None,
    side: Side,
    key: bytes,
) -> SliceRecord:
    fact, number = listed.facts[index], listed.series[index]
    target, position = fact["target_grading"], fact["position"]
    return SliceRecord(
        index=index,
        source=hmac.new(key, fact["source"].encode(), "sha256").hexdigest()[:16],
        label=fact["label"],
        source_size=fact["source_size"],
        mode=fact["mode"],
        group=group,
        exact_group=exact,
        near_group=near,
        split=side,
        grading=SliceGrading(**fact["grading"]),
        target_grading=None if target is None else SliceGrading(**target),
        series=number,
        order=None if number is None else fact["order"],
        position=None if position is None else RecordedPosition(**position),
        contrast=listed.contrasts[index],
        tags=fact["tags"],
    )


def common(contrasts: Sequence[str]) -> str:
    """The one contrast of all slices; "unknown" where they differ."""
    return contrasts[0] if len(set(contrasts)) == 1 else "unknown"
