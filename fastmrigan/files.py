"""Files that appear whole or not at all, and are on the disk once they have appeared."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastmrigan.errors import DiskFull

TMP = ".tmp"


def beside(path: Path) -> Path:
    """Where a file is made before it takes the name `path`; nobody else's name, nor another
    machine's: numbers of processes are the same in every container."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{TMP}")


def is_full(error: OSError) -> bool:
    """True where the disk, the user's share of it or the largest size of a file is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def shortage(folder: Path) -> str:
    """What a full file system has run out of, in words: its own error is the same for both.

    folder: on that file system, or where it is to be.
    """
    usage = os.statvfs(next(each for each in (folder, *folder.absolute().parents) if each.exists()))
    space, inodes = usage.f_bavail / max(usage.f_blocks, 1), usage.f_favail / max(usage.f_files, 1)
    if usage.f_files and inodes < min(0.1, space / 2):
        return "no inodes left (see df -i)"
    return "no space left"


def write_synced(path: Path, content: bytes | memoryview) -> None:
    """Writes a file and waits until its content is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes | memoryview, *, sync: bool = True) -> None:
    """Writes aside, syncs, renames, syncs the folder: a reader sees all of it or nothing.

    sync=False leaves the disk to the operating system: for the many files of a folder that can be
    made again. Raises DiskFull, or another OSError, with nothing left behind.
    """
    with _made_aside(path) as aside:
        if sync:
            write_synced(aside, content)
        else:
            aside.write_bytes(content)
        os.replace(aside, path)
    if sync:
        sync_folder(path.parent)


NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def write_new(path: Path, content: bytes) -> None:
    """`write_whole`, which never replaces a file: of several processes, on several machines, that
    write one at the same moment, one does. Raises FileExistsError in the others.

    On a file system without hard links (exFAT) the last one's stays in place of the first one's.
    """
    with _made_aside(path) as aside:
        write_synced(aside, content)
        try:
            os.link(aside, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.replace(aside, path)
    sync_folder(path.parent)


@contextmanager
def _made_aside(path: Path) -> Iterator[Path]:
    """Where `path` is made; nothing is left there. Raises DiskFull."""
    aside = beside(path)
    try:
        yield aside
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"{path}: no space left; free some, run the same command") from error
        raise
    finally:
        aside.unlink(missing_ok=True)  # a full disk needs its space back
