"""Running a job in worker processes, each with an engine of its own, which the job survives.

The supervisor opens no engine. It holds the folder, hands shards out as workers can take them, and
makes up for workers that die: another takes the place, and `inquest.py` says what becomes of what
they had in hand.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any

from fastmrigan.errors import DiskFull, FastMriganError, UsageError
from fastmrigan.files import sync_folder
from fastmrigan.interrupt import StopSignal
from fastmrigan.jobs import quarantine, receipts
from fastmrigan.jobs.diary import Diary
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.inquest import Casualty, Inquest
from fastmrigan.jobs.job import Work
from fastmrigan.jobs.locks import only_writer
from fastmrigan.jobs.messages import Begun, Failed, Make, Ready, Survived
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.process import Worker, devices_for, manner_of_death
from fastmrigan.jobs.run import (
    JobResult,
    check_planned,
    clear_up,
    clear_up_notes,
    disk_error,
    drop_ours,
    finished,
    interrupted,
    lying_in,
    missing,
    pin,
    share_of,
    slices_of,
)
from fastmrigan.jobs.search import Search
from fastmrigan.jobs.spec import JobSpec
from fastmrigan.jobs.watch import ShardDone, Watch
from fastmrigan.runtime.engine_file import SUFFIX
from fastmrigan.runtime.machine import usable_cores

MAX_WORKERS = 256
AHEAD = 2  # shards that a worker has waiting beside those it has begun
STILLBORN = 3  # deaths of a worker in a row, before it is ready, that end a job
LISTEN_SECONDS = 0.2  # until a signal is looked for
GRACE_SECONDS = 10.0  # for a worker to put on the disk what is finished, once it is told to end


def of_each(spec: JobSpec, workers: int) -> JobSpec:
    """The job as each of `workers` processes opens it: without spec.engine.threads the usable cores
    are shared out, at least one to each; an .engine has none, since it runs on the GPU. Raises
    UsageError on a number that cannot be meant."""
    if not 1 <= workers <= MAX_WORKERS:
        raise UsageError(f"--workers {workers}: expected 1 to {MAX_WORKERS}")
    if spec.engine.threads is not None or spec.engine.model.suffix == SUFFIX:
        return spec
    threads = max(1, usable_cores() // workers)
    return replace(spec, engine=replace(spec.engine, threads=threads))


def supervise(
    spec: JobSpec,
    work: Work,
    workers: int,
    started: Callable[[Ready, int], None] = lambda ready, workers: None,
) -> JobResult:
    """Makes every slice of a job that is not in its folder yet, in `workers` processes.

    work: what `spec` makes; workers open it as `of_each` says. Of a backend that runs on CUDA, each
    worker has one of the visible devices.
    started: is told what the first worker reports, and how many there are.
    Raises as `run.run` does; UsageError too where a worker's engine is not the first one's, and
    ModelRefused where workers die of what cannot be left out.
    """
    spec = of_each(spec, workers).read_through(work)
    output, plan, part = spec.output, work.plan(spec.output), spec.part(work)
    own = range(len(plan)) if part is None else part
    shards = [plan[place] for place in own]
    total = slices_of(shards)
    with only_writer(output.out, own):
        skipped = quarantine.read(output.out)
        todo = missing(output, shards)
        done = total - slices_of(todo)
        size = max(1, min(workers, len(todo)))
        with (
            StopSignal() as stop,
            Supervisor(spec, work, size, (done, total), skipped, stop) as led,
        ):
            ready = led.first_report()
            check_planned(output.out, work, ready.pinned)
            pin(output.out, work.task, ready.pinned)
            started(ready, led.size)
            clear_up(output, shards)
            if part is None:
                clear_up_notes(output.out)
            name = "" if part is None else f"{part.start}-{part.stop}"
            with Watch(work, output, done, workers=led.size, total=total, part=name) as watch:
                led.make(todo, watch)
        share = None if part is None else share_of(output, plan, part)
        left_out = lying_in(skipped, shards)
        return JobResult(watch.done, watch.made, watch.seconds, left_out, share)


class Supervisor:
    """The workers of a job; use it in a `with` statement, which leaves none behind.

    size: how many. counts: slices that are there, or left out, before they begin; of how many.
    skipped: inputs that are left out; those that are quarantined are added.
    """

    def __init__(
        self,
        spec: JobSpec,
        work: Work,
        size: int,
        counts: tuple[int, int],
        skipped: dict[int, str],
        stop: StopSignal,
    ) -> None:
        self.spec, self.size = spec, size
        self.done, self.count = counts
        self.stop = stop
        self.output: Output = spec.output
        self.inquest = Inquest(self.output, work.origin.sources, skipped)
        self.devices = devices_for(spec.engine)
        self.workers: list[Worker] = []
        self.report: Ready | None = None  # the first worker's
        self.failure: BaseException | None = None  # that a worker raised, or is to blame for
        self.watch: Watch | None = None  # while shards are made
        self.diary = Diary()
        self.left: set[Shard] = set()
        self.todo: deque[Shard] = deque()  # given to nobody
        self.stillborn: Counter[int] = Counter()  # deaths of a worker since it was last ready
        self.in_vain = 0  # deaths since a shard was last done

    def __enter__(self) -> Supervisor:
        for number in range(self.size):
            self._start(number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for worker in self.workers:
            if kind is not None or not worker.ready:  # it may be compiling
                worker.process.kill()
            worker.channel.close()  # they know by that
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self.workers:
            worker.end(max(0.0, deadline - time.monotonic()))
            self._clear_up([*worker.begun, *worker.waiting])  # begun too, where that was not heard

    def first_report(self) -> Ready:
        """What the first worker to have its engine open says of it."""
        while self.report is None:
            self._turn()
        return self.report

    def make(self, todo: Sequence[Shard], watch: Watch) -> None:
        """Has shards made, and tells of each once it is on the disk for good."""
        self.todo, self.left, self.watch = deque(todo), set(todo), watch
        self.diary.open(watch)
        lacking = set(range(self.size)) - {worker.number for worker in self.workers}
        for number in sorted(lacking) if todo else ():
            self._restart(number)  # it died while there was nothing to make yet
        for worker in self.workers:
            self._feed(worker)
        while self.left:
            self._turn()

    def _turn(self) -> None:
        """Listens for a while; raises what ends the job."""
        self._listen(LISTEN_SECONDS)
        if self.stop.stopped or self.failure is not None:
            self._dismiss()
            count = self.count
            if isinstance(self.failure, OSError | DiskFull) and self.report is not None:
                raise disk_error(self.failure, self.output, count, self.done) from self.failure
            if isinstance(self.failure, Casualty):
                raise self.failure.refusal(self.output, count, self.done)
            raise self.failure or interrupted(self.output, count, self.done)

    def _dismiss(self) -> None:
        """Tells every worker to come to an end, and hears what is still finished."""
        for worker in self.workers:
            if worker.ready:
                worker.process.terminate()
                worker.send(None)
            else:
                worker.process.kill()
        deadline = time.monotonic() + GRACE_SECONDS
        while self.workers and time.monotonic() < deadline:
            self._listen(deadline - time.monotonic(), dismissed=True)

    def _listen(self, seconds: float, dismissed: bool = False) -> None:
        """Waits until workers say something, and takes a message of each."""
        by_channel = {worker.channel: worker for worker in self.workers}
        for channel in wait(list(by_channel), seconds):
            worker = by_channel[channel]  # type: ignore[index]
            try:
                message = worker.channel.recv()
            except (EOFError, OSError):  # reset, where it left something unread
                status = self._bury(worker)
                if not dismissed:
                    self._mourn(worker, status)
                continue
            self._hear(worker, message)
            if not dismissed:
                self._feed(worker)

    def _hear(self, worker: Worker, message: Any) -> None:
        if isinstance(message, Ready):
            worker.ready = True
            self.stillborn[worker.number] = 0
            self.report = self.report or message
            self.failure = self.failure or self._difference(worker, message.pinned)
        elif isinstance(message, Begun):
            worker.begun.append(message.shard)  # first: at no moment is it in neither
            worker.waiting.remove(message.shard)
        elif isinstance(message, ShardDone):
            worker.begun.remove(message.shard)
            worker.alone = False
            self._finish(replace(message, worker=worker.number))
        elif isinstance(message, Survived) and worker.search is not None:
            search, worker.search = worker.search, None
            self.in_vain = 0
            self.inquest.survived(search)
        elif isinstance(message, Failed):
            self.failure = self.failure or message.error()

    def _difference(self, worker: Worker, pinned: dict[str, Any]) -> UsageError | None:
        """Why a worker must not have a part in this: others would make other bytes."""
        assert self.report is not None
        first = self.report.pinned
        for key in first | pinned:
            if first.get(key) != pinned.get(key):
                return UsageError(
                    f"{self.output.out}: worker {worker.number} would make other bytes: its {key} "
                    f"is {pinned.get(key)!r}, the first one's {first.get(key)!r}; run all on "
                    "devices and with settings that are alike"
                )
        return None

    def _finish(self, done: ShardDone) -> None:
        self.in_vain = 0
        self.left.discard(done.shard)
        self.done += done.shard.count
        if self.watch is not None:
            self.watch.shard_done(done)

    def _feed(self, worker: Worker) -> None:
        """Gives a worker what it may have: shards a few ahead of it, or one thing alone."""
        if not worker.ready or worker.alone or worker.search or self.failure is not None:
            return
        inquest = self.inquest
        if worker.idle and inquest.searches:
            worker.search = inquest.searches.popleft()
            worker.send(worker.search.next_try(inquest.skipped))
            return
        if worker.idle and inquest.suspects:
            worker.alone = True
            self._give(worker, inquest.suspects.popleft())
        while self.todo and not worker.alone and len(worker.waiting) < AHEAD:
            self._give(worker, self.todo.popleft())
        if (worker.alone or not self.todo) and not worker.flushed:
            worker.send(None)
            worker.flushed = True

    def _give(self, worker: Worker, shard: Shard) -> None:
        worker.send(Make(shard, self.inquest.skipped_in(shard)))
        worker.waiting.append(shard)
        worker.flushed = False

    def _start(self, number: int) -> None:
        device = self.devices[number % len(self.devices)] if self.devices else None
        self.workers.append(Worker(number, self.spec, device))

    def _restart(self, number: int) -> None:
        """Puts another process in the place of a worker that died."""
        self._start(number)
        self.diary.event("restart", worker=number, pid=self.workers[-1].process.pid)

    def _bury(self, worker: Worker) -> int:
        """Takes leave of a worker that has ended: the status it ended with."""
        status = worker.end(GRACE_SECONDS)
        for shard in [*worker.begun]:
            if finished(self.output, shard):  # but for its message
                sync_folder(self.output.out)
                name = FORMATS[self.output.format].name(shard)
                receipt = receipts.read(receipts.path_of(self.output.out, name))
                worker.begun.remove(shard)
                worker.alone = False
                self._finish(
                    ShardDone(shard, receipt.left_out, receipt.flagged, {}, worker=worker.number)
                )
        self._clear_up(worker.begun)
        self.workers.remove(worker)  # last: a second Ctrl-C leaves it to `__exit__`
        return status

    def _clear_up(self, shards: Sequence[Shard]) -> None:
        """Removes what is half-made of them, where the folder is still the job's."""
        if shards and self.report is not None:
            with suppress(OSError):  # told is what ended the job; the next run clears up
                drop_ours(self.output, shards, self.report.pinned)

    def _mourn(self, worker: Worker, status: int) -> None:
        """Makes up for a worker that died: what it had goes to others, and another takes its place;
        or says why the job ends."""
        how = manner_of_death(status)
        if self.failure is not None:  # of which it told before
            return
        at = [worker.search.shard] if worker.search is not None else worker.begun
        numbers = [shard.number for shard in at]
        pid = worker.process.pid
        self.diary.event("death", worker=worker.number, pid=pid, how=how, shards=numbers)
        if not worker.ready:
            self.stillborn[worker.number] += 1
            if self.stillborn[worker.number] == STILLBORN:
                self.failure = Casualty(
                    f"worker {worker.number} ended {STILLBORN} times before its engine was open "
                    f"({how}): take fewer --workers, or another --backend"
                )
                return
        self.in_vain += 1
        if self.in_vain > 4 + 2 * self.size:  # a search may take four
            self.failure = Casualty(
                f"workers keep ending, the last one by {how}: take fewer --workers, a smaller "
                "--batch or another --backend"
            )
            return
        print(f"worker {worker.number} ended ({how}); what it had is made again", file=sys.stderr)
        inquest = self.inquest
        (inquest.suspects if worker.alone else self.todo).extendleft(reversed(worker.waiting))
        try:
            if worker.search is not None:
                self._close_in(worker.search, how)
            for shard in worker.begun:
                if worker.alone:
                    assert self.report is not None
                    inquest.died_alone(shard, how, self.report.pinned["batch"])
                else:
                    inquest.suspects.append(shard)
        except (Casualty, OSError, FastMriganError) as error:
            self.failure = error
            return
        if self.todo or inquest.suspects or inquest.searches or self.report is None:
            self._restart(worker.number)
        for other in self.workers:
            self._feed(other)

    def _close_in(self, search: Search, how: str) -> None:
        """Takes a death in a search into account. Raises as `Inquest.died_in` does."""
        index = self.inquest.died_in(search, how)
        if index is not None:
            reason = self.inquest.skipped[index]
            self.in_vain = 0
            self.diary.event("quarantine", index=index, why=reason)
            print(f"input {index:,} is quarantined: it {reason}", file=sys.stderr)
