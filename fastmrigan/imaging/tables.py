"""Tables that say what belongs together: CSV files with a line of column names."""

from __future__ import annotations

import csv
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.imaging.walker import printable
from fastmrigan.progress import counted


def read_columns(option: str, table: Path, columns: tuple[str, str]) -> list[tuple[int, str, str]]:
    """Two columns of a CSV file, each row after its line's number; what it lacks is empty.

    Raises UsageError, which names the option, for a file that is no such table.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            there = reader.fieldnames or []
            first, second = columns
            rows = [
                (reader.line_num, row.get(first) or "", row.get(second) or "") for row in reader
            ]
    except OSError as error:
        raise UsageError(f"{option} {table}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {table}: not a CSV file ({error})") from error
    if not set(columns) <= set(there):
        raise UsageError(
            f"{option} {table}: expected the columns {' and '.join(columns)}, found "
            f"{', '.join(there) or 'none'}"
        )
    return rows


def plain(file: str) -> str:
    """The one way to write a file's name: "./a//b " is "a/b", and letters are composed (NFC).

    File systems and spreadsheets differ in how they write an é.
    """
    file = file.strip()
    return unicodedata.normalize("NFC", posixpath.normpath(file)) if file else ""


@dataclass(frozen=True)
class Groups:
    """Who each file shows, by the table of --groups, as it was when it was read."""

    table: Path
    group: dict[str, str]  # by the file's name, as `plain` writes it
    rows: tuple[tuple[int, str], ...]  # of each its line and the file it names

    def shared(self, files: Sequence[str]) -> str | None:
        """The group of files that are one series; None where no row names any of them.

        Raises UsageError where their groups differ.
        """
        named = [(file, self.group[plain(file)]) for file in files if plain(file) in self.group]
        if not named:
            return None
        first, group = named[0]
        for file, other in named:
            if other != group:
                raise UsageError(
                    f"--groups {self.table}: {printable(first)} and {printable(file)} are of "
                    "one DICOM series, but in two groups; give the series one"
                )
        return group

    def amiss(self, there: Iterable[str], ungrouped: int) -> str | None:
        """What a warning says of rows that name none of the files `there`, and of files that are
        left without a group."""
        names = {plain(file) for file in there}
        idle = [(line, file) for line, file in self.rows if file not in names]
        facts = []
        if idle:
            line, file = idle[0]
            example = f"{printable(file)} in line {line}" if file else f"line {line}"
            verb = "names" if len(idle) == 1 else "name"
            rows = counted(len(self.rows), "row")
            facts.append(f"{len(idle):,} of {rows} {verb} no file, e.g. {example}")
        if ungrouped:
            have = counted(ungrouped, "file has", "files have")
            facts.append(f"{have} no row with a group")
        return f"--groups {self.table}: {'; '.join(facts)}" if facts else None

    def partition(self) -> list[tuple[str, int]]:
        """Which files share a group, without its name: each file with a number of its group."""
        numbers: dict[str, int] = {}
        return [
            (file, numbers.setdefault(group, len(numbers)))
            for file, group in sorted(self.group.items())
        ]


def read_groups(table: Path) -> Groups:
    """A CSV with the columns file (relative to the source) and group.

    Raises UsageError for a table that cannot be read as one, or gives a file two groups.
    """
    groups: dict[str, str] = {}
    lines: dict[str, int] = {}
    rows = [
        (line, plain(file), unicodedata.normalize("NFC", group.strip()))
        for line, file, group in read_columns("--groups", table, ("file", "group"))
    ]
    for line, file, group in rows:
        if not file or not group:
            continue
        lines.setdefault(file, line)
        if groups.setdefault(file, group) != group:  # not named: a group may be a person's name
            raise UsageError(
                f"--groups {table}: {file} is in two groups, by lines {lines[file]} and {line}; "
                "keep one"
            )
    return Groups(table, groups, tuple((line, file) for line, file, _ in rows))
