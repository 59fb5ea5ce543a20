"""Running a job in this process: every slice of its plan, once each, whatever interrupts it.

The engine makes the next shard while a thread packs and writes the one before. `run.json` pins
all that the bytes depend on; a later run into the same folder must agree with it and goes on where
the last one stopped.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmrigan.errors import DiskFull, Interrupted, UsageError
from fastmrigan.files import TMP, is_full, shortage, write_new
from fastmrigan.interrupt import StopSignal
from fastmrigan.jobs import quarantine, receipts
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.job import Job, Work
from fastmrigan.jobs.locks import only_writer
from fastmrigan.jobs.ours import (
    TakenAway,
    check_ours,
    differing,
    settings_of,
    taken_away,
    telling,
)
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Content, Shard
from fastmrigan.jobs.shards import remove
from fastmrigan.jobs.watch import ShardDone, Watch
from fastmrigan.progress import counted

SHARDS_WAITING = 2  # finished by the engine, not yet on the disk


@dataclass(frozen=True)
class Share:
    """Places of a plan that a run was for, and what is in the folder of the whole."""

    part: range
    there: int  # shards
    planned: int  # shards


@dataclass(frozen=True)
class JobResult:
    """How a job ended; of a part of its plan, where it was for that alone."""

    slices: int  # of the plan, made or left out, in the folder now
    made: int  # by this run
    seconds: float  # of this run, engine start left out
    quarantined: int = 0  # inputs that are left out, since they ended processes
    share: Share | None = None  # None: the whole


def run(job: Job, part: range | None = None) -> JobResult:
    """Makes every slice of `job` that is not in its folder yet.

    part: the places of the plan to make, where not all; other runs may make others meanwhile.
    Raises UsageError (a folder that belongs to another job, a second writer), DiskFull, or
    Interrupted on Ctrl-C and SIGTERM with every finished shard kept.
    """
    own = range(len(job.plan)) if part is None else part
    with only_writer(job.output.out, own):
        pin(job.output.out, job.work.task, job.pinned)
        job.skipped.update(quarantine.read(job.output.out))
        shards = [job.plan[place] for place in own]
        todo = unfinished(job.output, shards)
        if part is None:
            clear_up_notes(job.output.out)
        total = slices_of(shards)
        with (
            StopSignal() as signal,
            Watch(
                job.work,
                job.output,
                total - slices_of(todo),
                total=total,
                part="" if part is None else f"{part.start}-{part.stop}",
            ) as watch,
        ):
            _make(job, todo, total, watch, signal)
        share = None if part is None else share_of(job.output, job.plan, part)
        left_out = lying_in(job.skipped, shards)
        return JobResult(watch.done, watch.made, watch.seconds, left_out, share)


def _make(job: Job, todo: Sequence[Shard], total: int, watch: Watch, signal: StopSignal) -> None:
    try:
        make_all(job, todo, watch.shard_done, lambda: signal.stopped)
    except (OSError, DiskFull) as error:
        raise disk_error(error, job.output, total, watch.done) from error
    if signal.stopped:
        raise interrupted(job.output, total, watch.done)


def make_all(
    job: Job,
    shards: Iterable[Shard],
    told: Callable[[ShardDone], None],
    stopped: Callable[[], bool],
) -> None:
    """Makes shards, taken as they are needed, and puts each on the disk for good; then it is
    `told`, at once and in the thread that writes.

    Ends early once `stopped`, with every finished shard kept. Raises what the engine raises,
    OSError as the disk does, DiskFull, and UsageError where the folder was taken away.
    """
    waiting: deque[Future[None]] = deque()
    refused = threading.Event()  # by the disk; what follows is not tried

    def put(content: Content) -> None:
        if refused.is_set():
            return
        try:
            told(_commit(job, content))  # of a slow engine, the next shard may be minutes away
        except (OSError, DiskFull):
            refused.set()
            raise

    def settle(leave: int) -> None:
        while len(waiting) > leave:
            waiting.popleft().result()

    with ThreadPoolExecutor(1, "shard-writer") as writer:
        for content in job.make(shards, stopped):
            waiting.append(writer.submit(put, content))
            settle(SHARDS_WAITING)
        settle(0)


def _commit(job: Job, content: Content) -> ShardDone:
    check_ours(job.output.out, job.pinned)
    return job.commit(content)


def check_planned(out: Path, work: Work, pinned: dict[str, Any]) -> None:
    """Raises UsageError where processes pin other work than was planned: its inputs were changed
    since."""
    planned = {**work.pins, "count": work.count}
    if differs := differing(pinned, planned, planned):
        key = differs[0]
        raise UsageError(
            f"{out}: {key} was {planned[key]!r} when the job was planned and is "
            f"{pinned.get(key)!r} now: its inputs were changed; run the same command"
        )


def pin(out: Path, task: str, pinned: dict[str, Any]) -> None:
    """Writes run.json, or holds an existing one against this run."""
    if agrees(out, task, pinned):
        return
    try:
        write_new(out / "run.json", (json.dumps(pinned, indent=2) + "\n").encode())
    except FileExistsError:  # another part of the job has begun meanwhile
        agrees(out, task, pinned)


def agrees(out: Path, task: str, pinned: dict[str, Any], *, partly: bool = False) -> bool:
    """Whether a job began in `out` that pins the same; False where none did.

    partly: `pinned` is some of what a run pins, and the rest is not looked at. Raises UsageError
    where another job began there.
    """
    path = out / "run.json"
    # Looked for first: another part may begin, and make its first shard, before the second look
    has_shards = any(path for fmt in FORMATS.values() for path in out.glob(f"{fmt.stem}-*"))
    if path.exists():
        try:
            known = json.loads(path.read_text())
            began = known.get("task", "sample")  # a job that samples states none
            differs = differing(known, pinned, pinned if partly else known | pinned)
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: unreadable ({error}); take another --out") from error
        if began != task:
            raise UsageError(
                f"{path}: a job of task {began!r} began there, this one is {task!r}; take "
                "another --out"
            )
        if differs:
            key = telling(differs)
            raise UsageError(
                f"{path}: {key} is {known.get(key)!r} there and {pinned.get(key)!r} here; resume "
                f"{settings_of(known, key)}, or take another --out"
            )
        return True
    if has_shards:
        raise UsageError(f"{out}: holds shards but no run.json to go on from; take another --out")
    return False


def unfinished(output: Output, shards: Sequence[Shard]) -> list[Shard]:
    """Those of `shards` that are not on the disk; clears up what earlier runs left of them."""
    clear_up(output, shards)
    return missing(output, shards)


def missing(output: Output, shards: Sequence[Shard]) -> list[Shard]:
    """Those of `shards` that are not on the disk."""
    return [shard for shard in shards if not finished(output, shard)]


def finished(output: Output, shard: Shard) -> bool:
    """Whether all that a shard can be is on the disk."""
    fmt = FORMATS[output.format]
    if (output.out / fmt.name(shard)).exists():
        return True
    receipt = receipts.path_of(output.out, fmt.name(shard))
    return fmt.entire and receipt.exists() and not receipts.read(receipt).files


def clear_up(output: Output, shards: Sequence[Shard]) -> None:
    """Removes what is half-made of `shards`, and of no others: those may be in the making."""
    numbers = {shard.number for shard in shards}
    stem = FORMATS[output.format].stem
    for leftover in (
        *output.out.glob(f"{stem}-*{TMP}"),
        *(output.out / receipts.FOLDER).glob(f".{stem}-*{TMP}"),
    ):
        named = re.match(rf"\.?{stem}-(\d+)\.", leftover.name)
        if named is None or int(named[1]) not in numbers:
            continue
        # A process that outlived its job may still write a folder, which it must not finish
        # without the files that are removed here: first of all it loses its name.
        gone = leftover.with_name(f"{named[0]}{secrets.token_hex(8)}{TMP}")
        with suppress(FileNotFoundError):  # it has finished it
            os.replace(leftover, gone)
            remove(gone)


def clear_up_ours(output: Output, shards: Sequence[Shard], pinned: dict[str, Any]) -> None:
    """The same at the end of a job, where the folder is still that of the one that pins this: with
    another's it has no business."""
    with suppress(TakenAway):
        check_ours(output.out, pinned)
        clear_up(output, shards)


def drop_ours(output: Output, shards: Sequence[Shard], pinned: dict[str, Any]) -> None:
    """The same of shards that a process had in hand which has ended, killed perhaps between a
    receipt and its shard: such a receipt goes too. Nobody else may be making them."""
    with suppress(TakenAway):
        check_ours(output.out, pinned)
        for shard in unfinished(output, shards):
            name = FORMATS[output.format].name(shard)
            receipts.path_of(output.out, name).unlink(missing_ok=True)


def clear_up_notes(out: Path) -> None:
    """Removes what is half-made of run.json and other notes; who holds all shards may, and nobody
    else: another part may be writing one."""
    for leftover in out.glob(f".*{TMP}"):
        remove(leftover)


def slices_of(shards: Sequence[Shard]) -> int:
    return sum(shard.count for shard in shards)


def lying_in(indices: Iterable[int], shards: Sequence[Shard]) -> int:
    """How many slices of `shards` these are."""
    return sum(
        any(shard.first <= index < shard.first + shard.count for shard in shards)
        for index in indices
    )


def share_of(output: Output, plan: Sequence[Shard], part: range) -> Share:
    return Share(part, sum(finished(output, shard) for shard in plan), len(plan))


def interrupted(output: Output, count: int, done: int) -> Interrupted:
    return Interrupted(
        f"{output.out}: stopped with {done:,} of {counted(count, 'slice')} made; the same command "
        "goes on from there"
    )


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
