"""What one hostile file costs, measured inside the worker that meets it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import nibabel  # noqa: F401 (before anything is measured: imports are no file's own)
import pydicom.pixels.decoders  # noqa: F401
from pace import pace

from fastmrigan.imaging.archives import open_archive
from fastmrigan.imaging.readers import read
from fastmrigan.imaging.walker import Refused


@dataclass(frozen=True)
class Cost:
    """What came of a file, and at what price."""

    refused: list[tuple[str, str]]  # name and reason
    read: dict[str, bytes | tuple[int, ...]]  # members' content, or the shape of the slices
    seconds: float  # of processor time, as in a quiet hour
    resident: int  # bytes at the peak, beyond what the worker had before


def peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the kernel does not say VmHWM")


def forget_peak() -> int:
    """Starts a new peak at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def cost(refused: list, found: dict, seconds: float, before: int, slower: float) -> Cost:
    """slower: the machine's pace when it began; what it is now counts where that is more."""
    resident = peak() - before
    return Cost(refused, found, seconds / max(slower, pace()), resident)


def measured_read(path: Path, name: str) -> Cost:
    """`readers.read`, with its price."""
    slower, before, began = pace(), forget_peak(), time.process_time()
    try:
        shape = read(path, name).slices.shape
        refused, found = [], {name: shape}
    except Refused as error:
        refused, found = [(error.name, error.reason)], {}
    return cost(refused, found, time.process_time() - began, before, slower)


def measured_open(path: Path, scratch: Path) -> Cost:
    """`archives.open_archive`, with its price; the archive's own refusal by its file name."""
    slower, before, began = pace(), forget_peak(), time.process_time()
    refused, found = [], {}
    try:
        for member in open_archive(path, scratch):
            if isinstance(member, Refused):
                refused.append((member.name, member.reason))
            else:
                found[member[0]] = member[1].read_bytes()
                member[1].unlink()
    except Refused as error:
        refused.append((error.name, error.reason))
    return cost(refused, found, time.process_time() - began, before, slower)
