"""Files whose content is trusted for who can have written it: engines and their sidecars."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from fastmrigan.errors import ModelRefused, UsageError


@contextmanager
def opened_private(path: Path) -> Iterator[BufferedReader]:
    """A file that passes `check_private` while it is open. Raises UsageError where it cannot be
    read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not be waited for
        try:
            check_private(path, os.fstat(descriptor))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UsageError(f"{path}: cannot read it: {error.strerror}") from error


def check_private(path: Path, status: os.stat_result) -> None:
    """Raises ModelRefused unless only this user, or root, can have written what is there."""
    if not stat.S_ISREG(status.st_mode):
        raise ModelRefused(f"{path}: is no plain file; name an engine that export has built")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ModelRefused(
            f"{path}: others may write to it (mode {stat.S_IMODE(status.st_mode):04o}), and an "
            "engine is executable; build it again, or chmod 600 it where you trust it"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise ModelRefused(
            f"{path}: belongs to another user (uid {status.st_uid}), and an engine is executable; "
            "build your own"
        )
