"""Where a prepared data set goes: whole or not at all, and never over anything else."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.files import is_full, sync_folder, write_whole
from fastmrigan.imaging.dataset import DatasetInfo, read_info
from fastmrigan.imaging.walker import Refused

FILES = frozenset(
    (
        "dataset.json",
        "index.jsonl",
        "slices.npy",
        "targets.npy",
        "rejects.jsonl",
        "contact_sheet.png",
    )
)


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
    if names <= {"rejects.jsonl"}:
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


@contextmanager
def making(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` to write in; gone at the end unless it was published.

    Those that killed processes left beside the same `out` are removed first.
    Raises UsageError where it cannot be made.
    """
    folder = out.with_name(f".{out.name}.making-{os.getpid()}")
    for parent in out.parents:
        if parent.exists() and not parent.is_dir():
            raise UsageError(f"--out {out}: {parent} is a file; name a folder elsewhere")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(out)
        folder.mkdir()
    except OSError as error:
        if is_full(error):
            raise
        raise UsageError(
            f"--out {out}: cannot be written ({error.strerror}); name a folder you may write to"
        ) from error
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)


def remove_stale(out: Path) -> None:
    """Removes the folders of `making` whose process is gone; our own number is one used before."""
    pattern = re.compile(re.escape(f".{out.name}.making-") + r"([0-9]{1,10})")
    for entry in list(out.parent.iterdir()):
        match = pattern.fullmatch(entry.name)
        if match is None or entry.is_symlink() or not entry.is_dir():
            continue
        if int(match[1]) == os.getpid() or not is_running(int(match[1])):
            shutil.rmtree(entry)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has so large a number
        return False
    except PermissionError:  # someone else's
        return True
    return True


def publish(folder: Path, out: Path) -> None:
    """Puts a finished folder, once it is on the disk, in the place of `out`."""
    for path in folder.iterdir():
        sync_file(path)
    sync_folder(folder)
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    if out.exists():
        os.replace(out, old)
    os.replace(folder, out)
    sync_folder(out.parent)
    if old.exists():
        shutil.rmtree(old)


def sync_file(path: Path) -> None:
    """Waits until a file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_rejects(path: Path, refused: Sequence[Refused]) -> None:
    """{"name", "reason"} a line; the file appears whole or not at all."""
    lines = [json.dumps({"name": r.name, "reason": r.reason}) + "\n" for r in refused]
    write_whole(path, "".join(lines).encode())
