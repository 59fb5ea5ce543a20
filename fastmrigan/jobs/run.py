"""Running a job in this process: every slice of its plan, once each, whatever interrupts it.

The engine makes the next shard while a thread packs and writes the one before. `run.json` pins
all that the bytes depend on; a later run into the same folder must agree with it and goes on where
the last one stopped.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmrigan.errors import DiskFull, Interrupted, UsageError
from fastmrigan.files import TMP, is_full, shortage, write_whole
from fastmrigan.interrupt import StopSignal
from fastmrigan.jobs import receipts
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.job import Job
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Content, Shard
from fastmrigan.jobs.shards import remove
from fastmrigan.jobs.watch import ShardDone, Watch

SHARDS_WAITING = 2  # finished by the engine, not yet on the disk


@dataclass(frozen=True)
class JobResult:
    """How a job ended."""

    slices: int  # in the folder now
    made: int  # by this run
    seconds: float  # of this run, engine start left out


def run(job: Job) -> JobResult:
    """Makes every slice of `job` that is not in its folder yet.

    Raises UsageError (a folder that belongs to another job, a second writer), DiskFull, or
    Interrupted on Ctrl-C and SIGTERM with every finished shard kept.
    """
    with only_writer(job.output.out):
        pin(job.output.out, job.work.task, job.pinned)
        todo = unfinished(job.output, job.plan)
        done = job.work.count - sum(shard.count for shard in todo)
        with (
            StopSignal() as signal,
            Watch(job.work.command, job.work.count, done) as watch,
        ):
            _make(job, todo, watch, signal)
        return JobResult(watch.done, watch.made, watch.seconds)


def _make(job: Job, todo: Sequence[Shard], watch: Watch, signal: StopSignal) -> None:
    waiting: deque[Future[ShardDone]] = deque()

    def settle(leave: int) -> None:
        while len(waiting) > leave:
            watch.shard_done(waiting[0].result())
            waiting.popleft()

    with ThreadPoolExecutor(1, "shard-writer") as writer:
        try:
            for content in job.make(todo, lambda: signal.stopped):
                waiting.append(writer.submit(_commit, job, content))
                settle(SHARDS_WAITING)
            settle(0)
        except (OSError, DiskFull) as error:
            for written in waiting:
                written.cancel()
            raise disk_error(error, job.output, job.work.count, watch.done) from error
    if signal.stopped:
        raise Interrupted(
            f"{job.output.out}: stopped with {watch.done:,} of {job.work.count:,} slices made; "
            "the same command goes on from there"
        )


def _commit(job: Job, content: Content) -> ShardDone:
    check_ours(job.output.out, job.pinned)
    return job.commit(content)


def check_ours(out: Path, pinned: dict[str, Any]) -> None:
    """Raises UsageError where the folder was taken away since, or another job began in its place.

    The lock does not tell: it goes with the folder that is gone.
    """
    try:
        known = json.loads((out / "run.json").read_text())
        ours = not differing(known, pinned)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError):
        ours = False
    if not ours:
        raise UsageError(taken_away(out))


def differing(known: dict[str, Any], pinned: dict[str, Any]) -> list[str]:
    """What two jobs pin differently, by its name in run.json."""
    return [key for key in known | pinned if known.get(key) != pinned.get(key)]


def taken_away(out: Path) -> str:
    return (
        f"{out}: was removed, moved or replaced while this job ran; what it had made is not there "
        "any more, and nothing else is written: run the same command to make all of it"
    )


def pin(out: Path, task: str, pinned: dict[str, Any]) -> None:
    """Writes run.json, or holds an existing one against this run."""
    path = out / "run.json"
    if path.exists():
        try:
            known = json.loads(path.read_text())
            began = known.get("task", "sample")  # a job that samples states none
            differs = differing(known, pinned)
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: unreadable ({error}); take another --out") from error
        if began != task:
            raise UsageError(
                f"{path}: a job of task {began!r} began there, this one is {task!r}; take "
                "another --out"
            )
        if differs:
            key = differs[0]
            raise UsageError(
                f"{path}: {key} is {known.get(key)!r} there and {pinned.get(key)!r} here; "
                "resume with the same settings, or take another --out"
            )
        return
    if any(path for fmt in FORMATS.values() for path in out.glob(f"{fmt.stem}-*")):
        raise UsageError(f"{out}: holds shards but no run.json to go on from; take another --out")
    write_whole(path, (json.dumps(pinned, indent=2) + "\n").encode())


def unfinished(output: Output, plan: Sequence[Shard]) -> list[Shard]:
    """The shards that are not on the disk; clears up what an earlier run left half-made."""
    fmt = FORMATS[output.format]
    # Shards; receipts, run.json and other notes of a job that was killed while it wrote them
    for pattern in (f"{fmt.stem}-*{TMP}", f".*{TMP}", f"{receipts.FOLDER}/.*{TMP}"):
        for leftover in output.out.glob(pattern):
            remove(leftover)
    return [shard for shard in plan if not (output.out / fmt.name(shard)).exists()]


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Holds the folder's lock; the operating system lets go of it however the process ends."""
    if (out / "dataset.json").exists():
        raise UsageError(f"{out}: is a prepared dataset; name another folder for --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"{out}: {shortage(out.parent)}; free some, run it again") from error
        raise UsageError(f"{out}: cannot write there: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{out}: another job is writing there; wait for it to end") from error
        yield


def disk_error(error: OSError | DiskFull, output: Output, count: int, done: int) -> Exception:
    """What a job ends with that could not write. done: slices, of `count`."""
    kept = f"{done:,} of {count:,} slices are safe"
    if isinstance(error, DiskFull) or is_full(error):
        short = shortage(output.out)
        return DiskFull(f"{output.out}: {short}; {kept}: free some, run the same command")
    if not (output.out / "run.json").exists():
        return UsageError(taken_away(output.out))
    path = output.out if error.filename is None else os.fsdecode(error.filename)
    return UsageError(f"{path}: cannot write: {error.strerror}; {kept}")
