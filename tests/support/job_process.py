"""A bulk job in a process of its own, which may be killed at any moment, and what it left."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PATIENCE = 300  # seconds; a job that says nothing for so long hangs


def command_of(*arguments: object) -> list[str]:
    """The command line, as a user would run it."""
    return [sys.executable, "-P", "-m", "fastmrigan", *map(str, arguments)]


def finished(out: Path) -> list[str]:
    """Names of the shards that are there under their final names."""
    if not out.is_dir():
        return []
    return sorted(path.name for path in out.iterdir() if _is_final(path.name))


def _is_final(name: str) -> bool:
    return name.startswith(("shard-", "series-")) and not name.endswith(".tmp")


def contents(out: Path) -> dict[str, str]:
    """sha256 of all that must not depend on what happened to a job: run.json, finished shards and
    their receipts, by name. What else lies there (.lock, notes of the run) may differ."""
    paths = [out / "run.json", *out.glob("receipts/[!.]*")]
    for name in finished(out):
        shard = out / name
        paths += sorted(shard.iterdir()) if shard.is_dir() else [shard]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def half_made(out: Path) -> list[str]:
    """What is there under a temporary name."""
    return sorted(str(p.relative_to(out)) for p in out.rglob("*.tmp"))


class JobProcess:
    """A job that has been started; use it in a `with` statement, which leaves nothing running.

    command: its program and arguments, e.g. of `command_of`; out: the folder it writes.
    """

    def __init__(self, command: Sequence[str], out: Path) -> None:
        self.out = out
        # Not a pipe, which what it started would hold open
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on leaving
        self.process = subprocess.Popen(
            command, stdout=self._said, stderr=self._said, start_new_session=True
        )

    def __enter__(self) -> JobProcess:
        return self

    def family(self) -> list[int]:
        """Itself and all that it started and that still runs, by process number."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(after_name[3]) == self.process.pid and after_name[0] not in "ZX":
                found.append(int(entry.name))
        return sorted(found)

    def wait_for(self, shards: int) -> None:
        """Until so many are finished, or the job has ended."""
        until = time.monotonic() + PATIENCE
        while len(finished(self.out)) < shards and self.process.poll() is None:
            if time.monotonic() > until:
                raise TimeoutError(f"{shards} shards are not there in {PATIENCE} s: {self.said()}")
            time.sleep(0.001)

    def kill(self, dice: random.Random) -> bool:
        """Kills -9: every process of the job, or the one that was started, or another one of them.

        True where that ended the job; then it waits until all are gone, which must be by
        themselves. One that lost a worker goes on.
        """
        family = self.family()
        others = [number for number in family if number != self.process.pid]
        whom = dice.choice(["all", "first", *(["other"] if others else [])])
        if whom == "other":
            _kill(dice.choice(others))
            return False
        for number in family if whom == "all" else []:
            _kill(number)
        self.process.kill()
        return self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """The exit status, once it and all that it started have ended."""
        status = self.process.wait(PATIENCE)
        until = time.monotonic() + PATIENCE
        while left := self.family():
            if time.monotonic() > until:
                raise TimeoutError(f"processes {left} outlive the job that started them")
            time.sleep(0.005)
        return status

    def said(self) -> str:
        """All that it has printed."""
        self._said.seek(0)
        return self._said.read()

    def __exit__(self, *_: object) -> None:
        for number in self.family():
            _kill(number)
        self.process.wait(PATIENCE)
        self._said.close()


def _kill(number: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.kill(number, signal.SIGKILL)
