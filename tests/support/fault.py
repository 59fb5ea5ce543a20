"""Runs the command line and kills it at one exact point of putting a shard on the disk.

    python fault.py POINT SHARD COMMAND …

POINT is before-fsync (written, not synced), before-rename (synced under its temporary name),
before-folder-fsync (renamed, the folder not synced) or after-folder-fsync, counted for the
SHARD-th rename.
"""

from __future__ import annotations

import os
import signal
import stat
import sys

point, wanted = sys.argv[1], int(sys.argv[2])
# The budget is measured by writing shards, which would be counted too
sys.argv = ["fastmrigan", *sys.argv[3:], "--no-budget-check"]
renamed = 0
real_fsync, real_replace = os.fsync, os.replace


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fsync(descriptor: int) -> None:
    folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    if point == "before-fsync" and not folder and renamed == wanted - 1:
        die()
    if point == "before-folder-fsync" and folder and renamed == wanted:
        die()
    real_fsync(descriptor)
    if point == "after-folder-fsync" and folder and renamed == wanted:
        die()


def replace(source: str, target: str) -> None:
    global renamed
    if "shard-" not in str(target) or "receipts" in str(target):
        real_replace(source, target)
        return
    if point == "before-rename" and renamed == wanted - 1:
        die()
    real_replace(source, target)
    renamed += 1


os.fsync, os.replace = fsync, replace

from fastmrigan.cli import main  # noqa: E402 - it must see the patched calls

main()
