"""Who may write which shards of a folder, and what else in it is for one at a time.

Its .lock is locked by byte ranges, byte k standing for place k of the plan, so that jobs of other
ranges go on beside; what these share has a byte beyond all plans. The locks belong to an open file
(fcntl(2), "open file description locks"); the system lets go of them however the process ends, and
over NFSv4 they hold between machines.
"""

from __future__ import annotations

import fcntl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fastmrigan.errors import DiskFull, UsageError
from fastmrigan.files import is_full, shortage

FLOCK = struct.Struct("hhqqi4x")  # of 64-bit Linux: type, whence, start, length, pid
# Bytes: the images that are prepared; quarantine.jsonl; what tells of the job at its end
INPUTS, QUARANTINE, TOLD = range(2**62, 2**62 + 3)


@contextmanager
def only_writer(out: Path, part: range) -> Iterator[None]:
    """Holds the places `part` of the plan; makes the folder where there is none.

    Raises UsageError where another job holds one of them, or nothing can be written.
    """
    if (out / "dataset.json").exists():
        raise UsageError(f"{out}: is a prepared dataset; name another folder for --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("ab")
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"{out}: {shortage(out)}; free some, run the same command") from error
        raise UsageError(f"{out}: cannot write there: {error.strerror}") from error
    with lock:
        while (holder := _take(lock, out, part)) is not None:
            if len(holder):  # or it has let go since
                raise UsageError(
                    f"{out}: another job is writing shards {holder.start}:{holder.stop} there; "
                    "wait for it to end, or take others with --shard-range"
                )
        yield


@contextmanager
def alone(out: Path, what: int, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds what all jobs of the folder `out` share, INPUTS or QUARANTINE; where another has it,
    tells `waiting` and waits for that one to let go. Raises OSError where there is no folder."""
    part = range(what, what + 1)
    with (out / ".lock").open("ab") as lock:
        if _take(lock, out, part) is not None:
            waiting()
            fcntl.fcntl(lock, fcntl.F_OFD_SETLKW, _wanted(part))
        yield


@contextmanager
def in_turn(out: Path, what: int, seconds: float) -> Iterator[None]:
    """Holds it as `alone` does, but waits no longer than that, and goes on without: for what is
    written whole by each, so that at worst the older one stays."""
    part, until = range(what, what + 1), time.monotonic() + seconds
    with (out / ".lock").open("ab") as lock:
        while _take(lock, out, part) is not None and time.monotonic() < until:
            time.sleep(0.05)
        yield


def _wanted(part: range) -> bytes:
    return FLOCK.pack(fcntl.F_WRLCK, 0, part.start, len(part), 0)


def _take(lock: BinaryIO, out: Path, part: range) -> range | None:
    """None once `part` is ours, or what another holds of it."""
    wanted = _wanted(part)
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, wanted)
        return None
    except (BlockingIOError, PermissionError):
        kind, _, start, length, _ = FLOCK.unpack(fcntl.fcntl(lock, fcntl.F_OFD_GETLK, wanted))
        return range(0) if kind == fcntl.F_UNLCK else range(start, start + length)
    except OSError as error:
        raise UsageError(
            f"{out}: its file system has no locks ({error.strerror}), and two jobs could not be "
            "told apart; take another --out"
        ) from error
