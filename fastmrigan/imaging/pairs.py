"""Registered twins: which file of one contrast belongs to which of the other."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.imaging.walker import Refused, Walk, keep_regular, stem, walk


@dataclass(frozen=True)
class Job:
    """One file to prepare, and its twin in a paired set."""

    name: str  # relative to the source folder
    path: Path
    twin: tuple[str, Path] | None = None  # name and path


def pair_folder(source: Walk, targets: Path) -> tuple[list[Job], list[Refused]]:
    """Pairs files whose relative names without extension are equal in two folders.

    Files left without a twin, or with several, are refused by name.
    """
    found = walk(targets)
    twins: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for name, path in found.files:
        twins[stem(name)].append((name, path))
    jobs, refused = [], list(found.refused)
    for name, path in source.files:
        match twins.get(stem(name), []):
            case [twin]:
                jobs.append(Job(name, path, twin))
            case []:
                refused.append(Refused(name, f"has no twin {stem(name)}.* in {targets}"))
            case several:
                names = ", ".join(other for other, _ in several)
                refused.append(Refused(name, f"has several twins in {targets}: {names}"))
    wanted = {stem(name) for name, _ in source.files}
    for name, _ in found.files:
        if stem(name) not in wanted:
            refused.append(Refused(name, "a target without a source of the same name"))
    return jobs, refused


def pair_table(root: Path, table: Path) -> tuple[list[Job], list[Refused]]:
    """Pairs files by a CSV with the columns source and target, both relative to `root`.

    Rows whose files are absent, or lie outside `root`, are refused by name. Raises UsageError
    for a table that cannot be read as one.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = [(row.get("source"), row.get("target")) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"--pairs {table}: not a CSV file ({error})") from error
    if not {"source", "target"} <= set(columns):
        raise UsageError(
            f"--pairs {table}: expected the columns source and target, found "
            f"{', '.join(columns) or 'none'}"
        )
    jobs, refused = [], []
    for number, (source, target) in enumerate(rows, start=2):
        if not source or not target:
            refused.append(Refused(f"{table.name} line {number}", "lacks a source or a target"))
            continue
        sides = Walk()
        for name in (source, target):
            if (root / name).resolve().is_relative_to(root.resolve()):
                keep_regular(sides, root / name, name)
            else:
                sides.refused.append(Refused(name, f"lies outside {root}"))
        refused += sides.refused
        if not sides.refused:
            jobs.append(Job(*sides.files[0], twin=sides.files[1]))
    return jobs, refused
