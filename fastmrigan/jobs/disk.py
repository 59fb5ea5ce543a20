"""The disk a job writes to: what is left of it, and what the rest of the job will take."""

from __future__ import annotations

import os
from pathlib import Path

from fastmrigan.jobs import receipts

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def free_bytes(folder: Path) -> int:
    """What this user may still write to the file system of `folder`. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Measured:
    """What slices take on the disk, by the shards that were looked at so far."""

    def __init__(self) -> None:
        self._bytes = self._slices = 0

    def add(self, out: Path, name: str, slices: int) -> None:
        """Looks at the shard `name` of a job's folder. Raises OSError."""
        self._bytes += taken_bytes(out, name)
        self._slices += slices

    def needed(self, slices: int) -> int | None:
        """Bytes that as many more will take; None where no shard was looked at."""
        if not slices:
            return 0
        return round(slices * self._bytes / self._slices) if self._slices else None


def taken_bytes(out: Path, name: str) -> int:
    """What the shard `name` of a job's folder takes on the disk, its receipt with it: whole
    blocks, so that small files count as what they cost. Raises OSError."""
    path = out / name
    files = [path, receipts.path_of(out, name)]
    if path.is_dir():
        files += path.iterdir()
    return sum(512 * file.stat().st_blocks for file in files)


def told(count: float) -> str:
    """Bytes in three figures: 1.23 GB."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {UNITS[power]}"
