"""A file system of one's own, as small as a test wants it, that can be filled and made read-only.

A tmpfs in a mount namespace of its own, seen from outside through /proc: it needs no root where
users may make namespaces, and it is gone when the process that holds it is, however that ends.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class NoSmallDisk(Exception):
    """Why there is none here, in a line."""


class SmallDisk:
    """Use it in a `with` statement; `path` is its root. Raises NoSmallDisk on entering.

    options: of tmpfs(5): "size=1m", "nr_inodes=40".
    """

    def __init__(self, where: Path, options: str) -> None:
        self.where, self.options = where.resolve(), options

    def __enter__(self) -> SmallDisk:
        if shutil.which("unshare") is None:
            raise NoSmallDisk("no unshare, to mount a small disk of one's own")
        self.where.mkdir(exist_ok=True)
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--map-root-user", "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        told = self._say(f"mount -t tmpfs -o {self.options} tmpfs '{self.where}'")
        self.path = Path(f"/proc/{self._holder.pid}/root{self.where}")
        if told or not self.path.is_dir():
            self._holder.communicate()
            raise NoSmallDisk(f"cannot mount a small disk here: {told}")
        return self

    def _say(self, command: str) -> str:
        """Runs a command where the disk is mounted; gives what it prints, in a line."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        with suppress(BrokenPipeError):  # why, it has printed
            self._holder.stdin.write(f"{command}; echo; echo done\n")
            self._holder.stdin.flush()
        lines = []
        for line in self._holder.stdout:
            if line == "done\n":
                break
            lines.append(line.strip())
        return " ".join(filter(None, lines))

    def remount(self, options: str) -> None:
        """Changes its options, as of mount(8): "ro", "size=2m"."""
        told = self._say(f"mount -o remount,{options} '{self.where}'")
        if told:
            raise OSError(f"cannot remount {self.where}: {told}")

    @property
    def free(self) -> int:
        """Bytes."""
        usage = os.statvfs(self.path)
        return usage.f_bavail * usage.f_frsize

    def fill(self, but: int) -> None:
        """Leaves `but` bytes free, rounded up to the disk's blocks; `empty` gives the rest back."""
        block = os.statvfs(self.path).f_frsize
        with (self.path / "filler").open("wb") as file:
            while (size := (self.free - but) // block * block) > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                    return
                except OSError as error:
                    if error.errno != errno.ENOSPC:  # somebody else took some meanwhile
                        raise

    def empty(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._holder.communicate()  # it ends with its input
