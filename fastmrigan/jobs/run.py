"""Running a job in this process: every slice of its plan, once each, whatever interrupts it.

The engine makes the next shard while a thread packs and writes the one before. `run.json` pins
all that the bytes depend on; a later run into the same folder must agree with it and goes on where
the last one stopped.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmrigan.errors import DiskFull, Interrupted, UsageError
from fastmrigan.files import TMP, is_full, write_whole
from fastmrigan.interrupt import StopSignal
from fastmrigan.jobs import quarantine, receipts
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.job import Job
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.shards import remove
from fastmrigan.jobs.watch import ShardDone, Watch

SHARDS_WAITING = 2  # finished by the engine, not yet on the disk


@dataclass(frozen=True)
class JobResult:
    """How a job ended."""

    slices: int  # of the plan, made or left out, in the folder now
    made: int  # by this run
    seconds: float  # of this run, engine start left out
    quarantined: int = 0  # inputs that are left out, since they ended processes


def run(job: Job) -> JobResult:
    """Makes every slice of `job` that is not in its folder yet.

    Raises UsageError (a folder that belongs to another job, a second writer), DiskFull, or
    Interrupted on Ctrl-C and SIGTERM with every finished shard kept.
    """
    with only_writer(job.output.out):
        pin(job.output.out, job.work.task, job.pinned)
        job.skipped.update(quarantine.read(job.output.out))
        todo = unfinished(job.output, job.plan)
        done = job.work.count - sum(shard.count for shard in todo)
        with (
            StopSignal() as signal,
            Watch(job.work.command, job.work.count, done) as watch,
        ):
            _make(job, todo, watch, signal)
        return JobResult(watch.done, watch.made, watch.seconds, len(job.skipped))


def _make(job: Job, todo: Sequence[Shard], watch: Watch, signal: StopSignal) -> None:
    try:
        make_all(job, todo, watch.shard_done, lambda: signal.stopped)
    except OSError as error:
        raise disk_error(error, job.output, job.work.count, watch.done) from error
    if signal.stopped:
        raise interrupted(job.output, job.work.count, watch.done)


def make_all(
    job: Job,
    shards: Iterable[Shard],
    told: Callable[[ShardDone], None],
    stopped: Callable[[], bool],
) -> None:
    """Makes shards, taken as they are needed, and puts each on the disk for good before it is
    `told`.

    Ends early once `stopped`, with every finished shard kept. Raises what the engine raises, and
    OSError as the disk does.
    """
    waiting: deque[Future[ShardDone]] = deque()

    def settle(leave: int) -> None:
        while len(waiting) > leave:
            told(waiting[0].result())
            waiting.popleft()

    with ThreadPoolExecutor(1, "shard-writer") as writer:
        try:
            for content in job.make(shards, stopped):
                waiting.append(writer.submit(job.commit, content))
                settle(SHARDS_WAITING)
            settle(0)
        except OSError:
            for written in waiting:
                written.cancel()
            raise


def pin(out: Path, task: str, pinned: dict[str, Any]) -> None:
    """Writes run.json, or holds an existing one against this run."""
    path = out / "run.json"
    if path.exists():
        try:
            known = json.loads(path.read_text())
            began = known.get("task", "sample")  # a job that samples states none
            differing = [key for key in known | pinned if known.get(key) != pinned.get(key)]
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: unreadable ({error}); take another --out") from error
        if began != task:
            raise UsageError(
                f"{path}: a job of task {began!r} began there, this one is {task!r}; take "
                "another --out"
            )
        if differing:
            key = differing[0]
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
    clear_up(output, plan)
    return [shard for shard in plan if not finished(output, shard)]


def clear_up(output: Output, shards: Sequence[Shard]) -> None:
    """Removes what is half-made of `shards`, and of no others: those may be in the making."""
    numbers = {shard.number for shard in shards}
    stem = FORMATS[output.format].stem
    for leftover in (
        *output.out.glob(f"{stem}-*{TMP}"),
        *(output.out / receipts.FOLDER).glob(f".{stem}-*{TMP}"),
    ):
        named = re.match(rf"\.?{stem}-(\d+)\.", leftover.name)
        if named is not None and int(named[1]) in numbers:
            remove(leftover)


def finished(output: Output, shard: Shard) -> bool:
    """Whether all that a shard can be is on the disk."""
    fmt = FORMATS[output.format]
    if (output.out / fmt.name(shard)).exists():
        return True
    receipt = receipts.path_of(output.out, fmt.name(shard))
    return fmt.entire and receipt.exists() and not receipts.read(receipt).files


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Holds the folder's lock; the operating system lets go of it however the process ends."""
    if (out / "dataset.json").exists():
        raise UsageError(f"{out}: is a prepared dataset; name another folder for --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise UsageError(f"{out}: cannot write there: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{out}: another job is writing there; wait for it to end") from error
        yield


def interrupted(output: Output, count: int, done: int) -> Interrupted:
    return Interrupted(
        f"{output.out}: stopped with {done:,} of {count:,} slices made; the same command goes on "
        "from there"
    )


def disk_error(error: OSError, output: Output, count: int, done: int) -> Exception:
    kept = f"{done:,} of {count:,} slices are safe"
    if is_full(error):
        return DiskFull(f"{output.out}: no space left; {kept}: free some, run the same command")
    return UsageError(f"{output.out}: cannot write: {error.strerror}; {kept}")
