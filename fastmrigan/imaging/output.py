"""Where a prepared data set goes: whole or not at all, and never over anything else.

Beside the set NAME lie, while it is made, `.NAME.making` (what is finished so far; an interrupted
run leaves it, and the same command goes on from there) and, for the moment between two renames,
`.NAME.old`, the set that is being replaced. Both belong to the process that holds the lock on
`.NAME.making`, so that what lies there without one was left by a kill.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastmrigan.errors import DiskFull, InputRejected, Interrupted, UsageError
from fastmrigan.files import is_full, sync_folder, write_whole
from fastmrigan.imaging.dataset import DatasetInfo, read_info
from fastmrigan.imaging.walker import Refused

REFUSALS = frozenset(("rejects.jsonl", "quarantine.jsonl"))
FILES = REFUSALS | {
    "dataset.json",
    "index.jsonl",
    "slices.npy",
    "targets.npy",
    "labels.npy",
    "contact_sheet.png",
}


def existing(out: Path, request: str, *, force: bool) -> DatasetInfo | None:
    """What `out` holds already: None where it may be written freely.

    Raises UsageError where it holds anything but a data set made by the same request (or, with
    `force`, by any).
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise UsageError(f"--out {out}: is a file; name a folder")
    names = {entry.name for entry in out.iterdir()}
    if names <= REFUSALS:
        return None
    foreign = sorted(names - FILES)
    if "dataset.json" not in names or foreign:
        also = foreign[0] if foreign else sorted(names)[0]
        raise UsageError(
            f"--out {out}: holds {also}, which is no part of a prepared data set; name a new or "
            "empty folder"
        )
    try:
        info = read_info(out)
    except InputRejected as error:
        if force:
            return None
        raise UsageError(f"--out {error}; add --force to replace it") from error
    if info.request != request and not force:
        raise UsageError(
            f"--out {out}: holds a different prepared data set ({info.count:,} slices of "
            f"{info.size[0]}x{info.size[1]}); name another folder or add --force to replace it"
        )
    return info


@dataclass
class Making:
    """The hidden folder a set is made in."""

    folder: Path
    begun: bool = False  # whether this run has written to it

    @property
    def unpacked(self) -> Path:
        """What archives hold, with names and dates in it: gone at the end, however that comes."""
        return self.folder / "unpacked"


@contextmanager
def making(out: Path) -> Iterator[Making]:
    """Opens the hidden folder beside `out`, with what an interrupted run left in it.

    A set that a process killed between two renames had moved aside is put back first. At the end
    the folder is gone, but after Ctrl-C, a kill or on a full disk: then the next run finds it.
    Raises UsageError where it cannot be made, or another process is making the same set.
    """
    folder = out.with_name(f".{out.name}.making")
    for parent in out.parents:
        if parent.exists() and not parent.is_dir():
            raise UsageError(f"--out {out}: {parent} is a file; name a folder elsewhere")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Making(folder, begun=not folder.exists())
        folder.mkdir(exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if is_full(error):
            raise
        raise UsageError(
            f"--out {out}: cannot be written ({error.strerror}); name a folder you may write to"
        ) from error
    try:
        take(lock, folder, out)
        recover(out)
        try:
            yield made
        except BaseException as error:
            shutil.rmtree(made.unpacked, ignore_errors=True)
            if made.begun and not resumable(error) and folder.exists():
                shutil.rmtree(folder)
            raise
    finally:
        os.close(lock)  # and with it goes the lock, as it does with a process that is killed


def resumable(error: BaseException) -> bool:
    """Whether the same command would go on where this error ended it."""
    if isinstance(error, OSError):
        return is_full(error)
    return isinstance(error, KeyboardInterrupt | Interrupted | DiskFull)


def take(lock: int, folder: Path, out: Path) -> None:
    """Locks the open folder. Raises UsageError where another process has it, or just had."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), folder.stat()):
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:  # of a network's file system, say
        raise UsageError(
            f"--out {out}: its file system locks no folders ({error.strerror}), and two processes "
            "could not be told apart; prepare it on a local disk, and copy it there"
        ) from error
    raise UsageError(
        f"--out {out}: another process is preparing it; wait for it, or name another folder"
    )


def aside(out: Path) -> Path:
    """Where the set in `out` lies while it is replaced."""
    return out.with_name(f".{out.name}.old")


def recover(out: Path) -> None:
    """Puts back the set that a killed process had moved aside, or removes it where its successor
    stands. To be called under the lock.
    """
    old = aside(out)
    if not old.is_dir() or old.is_symlink():
        return
    if out.exists():
        shutil.rmtree(old)
    else:
        os.replace(old, out)


def publish(folder: Path, out: Path) -> None:
    """Puts a finished folder, once it is on the disk, in the place of `out`."""
    for path in folder.iterdir():
        sync_file(path)
    sync_folder(folder)
    old = aside(out)
    if out.exists():
        os.replace(out, old)
    os.replace(folder, out)
    sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)  # what stays is removed by the next run


def sync_file(path: Path) -> None:
    """Waits until a file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_refused(path: Path, refused: Sequence[Refused]) -> None:
    """{"name", "reason"} a line; the file appears whole or not at all."""
    lines = [json.dumps({"name": r.name, "reason": r.reason}) + "\n" for r in refused]
    write_whole(path, "".join(lines).encode())
