"""What belongs to a file: its registered twin of another contrast, and its label map."""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.imaging.tables import read_columns
from fastmrigan.imaging.walker import Refused, Walk, keep_regular, printable, stem

Named = tuple[str, Path]  # a name to show and to match by, and where the file is


@dataclass(frozen=True)
class Job:
    """One file to prepare, its twin in a paired set, and its label map."""

    name: str  # relative to the source folder
    path: Path
    twin: Named | None = None
    label_map: Named | None = None
    size: int = 0  # bytes of all of them
    stamp: str = ""  # changes where one of them does: sizes and times

    @property
    def files(self) -> list[Named]:
        """The file itself, then its twin and its label map where it has them."""
        return [(self.name, self.path), *(each for each in (self.twin, self.label_map) if each)]


def pair_folder(
    sources: Sequence[Named], found: Walk, targets: Path
) -> tuple[list[Job], list[Refused]]:
    """Pairs files whose relative names without extension are equal in two folders.

    found: what a walk through the folder `targets` found. Files left without a twin, or with
    several, are refused by name.
    """
    twins: dict[str, list[Named]] = defaultdict(list)
    for name, path in found.files:
        twins[stem(name)].append((name, path))
    jobs, refused = [], list(found.refused)
    for name, path in sources:
        match twins.get(stem(name), []):
            case [twin]:
                jobs.append(Job(name, path, twin))
            case []:
                refused.append(Refused(name, f"has no twin {stem(name)}.* in {targets}"))
            case several:
                names = ", ".join(other for other, _ in several)
                refused.append(Refused(name, f"has several twins in {targets}: {names}"))
    wanted = {stem(name) for name, _ in sources}
    for name, _ in found.files:
        if stem(name) not in wanted:
            refused.append(Refused(name, "a target without a source of the same name"))
    return jobs, refused


def pair_table(root: Path, table: Path) -> tuple[list[Job], list[Refused]]:
    """Pairs files by a CSV with the columns source and target, both relative to `root`.

    Rows whose files are absent, or lie outside `root`, are refused by name. Raises UsageError
    for a table that cannot be read as one.
    """
    rows = read_columns("--pairs", table, ("source", "target"))
    jobs, refused = [], []
    absent = f"is not there, though {printable(table.name)} names it"
    for number, source, target in rows:
        if not source or not target:
            refused.append(Refused(f"{table.name} line {number}", "lacks a source or a target"))
            continue
        sides = Walk()
        for name in (source, target):
            if (root / name).resolve().is_relative_to(root.resolve()):
                keep_regular(sides, root / name, name, absent=absent)
            else:
                sides.refused.append(Refused(name, f"lies outside {root}"))
        refused += sides.refused
        if not sides.refused:
            jobs.append(Job(*sides.files[0], twin=sides.files[1]))
    return jobs, refused


@dataclass(frozen=True)
class LabelMaps:
    """Which label maps belong to which files."""

    wanted: str  # as asked for
    of: dict[str, list[Named]]  # by a file's name; none, one or (which is refused) several
    refused: list[Refused]
    inside: frozenset[str]  # names in the source that are label maps and no images

    def attach(self, jobs: Sequence[Job]) -> tuple[list[Job], list[Refused]]:
        """The jobs with their label maps; those without one, or with several, are refused."""
        kept, refused = [], list(self.refused)
        for job in jobs:
            match self.of.get(job.name, []):
                case [own]:
                    kept.append(replace(job, label_map=own))
                case []:
                    refused.append(Refused(job.name, f"has no label map in {self.wanted}"))
                case several:
                    names = ", ".join(name for name, _ in several)
                    refused.append(Refused(job.name, f"has several label maps: {names}"))
        return kept, refused


def find_label_maps(wanted: str, files: Sequence[Named], found: Walk | None) -> LabelMaps:
    """wanted: a folder, whose files share the images' relative names without extension; or a
    pattern of names in the source, where {folder} and {stem} are the image's and * is anything.

    found: what a walk through the folder found. Raises UsageError where `wanted` is neither.
    """
    of: dict[str, list[Named]] = {}
    if found is not None:
        by_stem: dict[str, list[Named]] = defaultdict(list)
        for file in found.files:
            by_stem[stem(file[0])].append(file)
        of = {name: by_stem[stem(name)] for name, _ in files}
        return LabelMaps(wanted, of, found.refused, frozenset())
    if not any(mark in wanted for mark in ("{folder}", "{stem}")):
        raise UsageError(
            f"--label-maps {wanted}: no such folder, and no pattern with {{folder}} or {{stem}}, "
            "such as '{folder}/seg.nii.gz' or '{folder}/{stem}_seg.nii.gz'"
        )
    by_folder: dict[str, list[Named]] = defaultdict(list)
    for file in files:
        by_folder[file[0].rpartition("/")[0]].append(file)
    for name, _ in files:
        folder, _, base = name.rpartition("/")
        filled = wanted.replace("{folder}", glob.escape(folder))
        filled = filled.replace("{stem}", glob.escape(stem(base))).lstrip("/")
        parent = filled.rpartition("/")[0]
        beside = files if glob.has_magic(parent) else by_folder[parent]
        of[name] = [each for each in beside if each[0] != name and fnmatchcase(each[0], filled)]
    inside = frozenset(name for maps in of.values() for name, _ in maps)
    return LabelMaps(wanted, of, [], inside)
