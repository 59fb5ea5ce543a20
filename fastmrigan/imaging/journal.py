"""What finished units came to, kept beside the arrays they were written to: a killed run goes on.

The arrays grow in the order of the units, and one line of the journal says what each unit added to
them. A line is written after its arrays; a run that goes on keeps the units from the first on whose
files are unchanged and whose bytes are all there, cuts off what lies behind, and writes the rest as
an uninterrupted run would have. Nothing in it names a patient.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan import __version__
from fastmrigan.imaging.array_file import ArrayFile
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.squares import Facts, Squares
from fastmrigan.imaging.walker import Refused

NAME, THUMBNAILS = "journal.jsonl", "thumbnails.npy"
FLUSH_SECONDS = 0.5  # of work lost to a kill, at most


@dataclass(frozen=True)
class Entry:
    """One finished unit."""

    unit: str  # Unit.key
    facts: list[Facts]  # of the slices it added
    volume: bool
    empty: int
    elsewhere: int
    refused: list[Refused]

    def as_json(self, checksum: int) -> str:
        own = {"unit": self.unit, "facts": self.facts, "volume": self.volume, "empty": self.empty}
        own |= {"elsewhere": self.elsewhere, "checksum": checksum}
        own |= {"refused": [(each.name, each.reason) for each in self.refused]}
        return json.dumps(own)


class Journal:
    """The arrays of the data set in the making, and the journal of what they hold."""

    def __init__(self, folder: Path, request: str, options: PrepareOptions) -> None:
        """Opens what an earlier run with the same request left in `folder`, or begins anew."""
        self.path = folder / NAME
        self.head = json.dumps({"request": request, "version": __version__}) + "\n"
        old = self.path.read_bytes() if self.path.exists() else b""
        self.earlier = old.splitlines(keepends=True)
        square = (options.size, options.size)
        kinds: dict[str, tuple[tuple[int, ...], npt.DTypeLike]] = {
            "slices.npy": (square, np.uint16)
        }
        if options.pairs is not None:
            kinds["targets.npy"] = square, np.uint16
        if options.label_maps is not None:
            kinds["labels.npy"] = square, np.uint8
        kinds[THUMBNAILS] = (1024,), np.float32
        if not self.earlier or self.earlier[0] != self.head.encode():
            self.earlier = []
        mine = {NAME, *kinds} if self.earlier else set()
        for path in folder.iterdir():  # what another request left, or a run killed near its end
            if path.is_file() and path.name not in mine:
                path.unlink()
        self.arrays = [ArrayFile(folder / name, *kind) for name, kind in kinds.items()]
        self.thumbnails = folder / THUMBNAILS
        self._pending: list[str] = []
        self._flushed = time.monotonic()

    def resume(self, units: Sequence[str]) -> list[Entry]:
        """What is kept of an earlier run: the entries of the first units, as far as they are whole.

        units: Unit.key of all of them, in order. To be called once, before `append`.
        """
        entries: list[Entry] = []
        count = 0
        for unit, line in zip(units, self.earlier[1:], strict=False):
            entry = self._whole(line, unit, count)
            if entry is None:
                break
            entries.append(entry)
            count += len(entry.facts)
        for array in self.arrays:
            array.truncate(count)
        if not self.earlier:
            self.path.write_bytes(self.head.encode())
        self._file = self.path.open("r+b")
        self._file.truncate(len(self.head) + sum(map(len, self.earlier[1 : len(entries) + 1])))
        self._file.seek(0, os.SEEK_END)
        return entries

    def _whole(self, line: bytes, unit: str, first: int) -> Entry | None:
        """The entry of a line, if it is the unit's and its arrays' bytes are all there."""
        try:
            own: dict[str, Any] = json.loads(line)
            if not line.endswith(b"\n") or own["unit"] != unit:
                return None
            count, checksum = len(own["facts"]), 0
            for array in self.arrays:
                data = array.read(first, count)
                if len(data) != count * array.row_bytes:
                    return None
                checksum = zlib.crc32(data, checksum)
            if checksum != own["checksum"]:
                return None
            refused = [Refused(name, reason) for name, reason in own["refused"]]
            kept = (own["unit"], own["facts"], own["volume"], own["empty"], own["elsewhere"])
            return Entry(*kept, refused)
        except (ValueError, KeyError, TypeError):  # a line that was cut short
            return None

    def append(self, unit: str, squares: Squares | None, refused: Sequence[Refused]) -> Entry:
        """Adds what a unit came to; squares None where nothing of it was kept."""
        if squares is None:
            entry = Entry(unit, [], False, 0, 0, list(refused))
            checksum = 0
        else:
            entry = Entry(
                unit,
                squares.facts,
                squares.volume,
                squares.empty,
                squares.elsewhere,
                list(refused),
            )
            parts = (squares.slices, squares.targets, squares.labels, squares.thumbnails)
            present = [part for part in parts if part is not None]
            checksum = 0
            for array, rows in zip(self.arrays, present, strict=True):
                checksum = zlib.crc32(array.append(rows), checksum)
        self._pending.append(entry.as_json(checksum) + "\n")
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()
        return entry

    def flush(self) -> None:
        """Hands all that is finished to the operating system: arrays first, then their lines."""
        for array in self.arrays:
            array.flush()
        self._file.write("".join(self._pending).encode())
        self._file.flush()
        self._pending.clear()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Completes the arrays' headers. The journal stays, should the rest of the work fail."""
        self.flush()
        self._file.close()
        for array in self.arrays:
            array.close()

    def abandon(self) -> None:
        """Keeps everything for a later run."""
        self.flush()
        self._file.close()
        for array in self.arrays:
            array.abandon()

    def remove(self) -> None:
        """Takes away what is no part of the data set."""
        self.path.unlink()
        self.thumbnails.unlink()
