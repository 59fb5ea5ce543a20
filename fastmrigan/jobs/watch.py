"""What a running job tells of itself: on the terminal, and in files of its folder.

status.json and log.jsonl while it runs, contact_sheet.png and job.html at its end. None of them
decides how the job ends: what cannot be told (a full disk, a folder that nobody may write to) is
said once on stderr, with the reason, and the job goes on; the error that ends a job stays its own.
Where the folder was taken away meanwhile, or is another job's, nothing is written there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fastmrigan import __version__
from fastmrigan.errors import Interrupted
from fastmrigan.files import TMP
from fastmrigan.imaging.contact_sheet import write_png
from fastmrigan.jobs import contact, disk, history, log, report, status
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.locks import TOLD, in_turn
from fastmrigan.jobs.ours import check_ours, pinned_in
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Content, Shard
from fastmrigan.jobs.stages import Stages, limiting, shares
from fastmrigan.jobs.telling import Telling
from fastmrigan.progress import Progress

if TYPE_CHECKING:
    from fastmrigan.jobs.job import Work

EVERY = 1.0  # seconds from one status.json to the next


@dataclass(frozen=True)
class ShardDone:
    """A shard that is on the disk for good; plain values, so that it crosses processes."""

    shard: Shard
    left_out: Mapping[int, str]  # index: why
    flagged: Mapping[int, str]
    # Seconds that the process which made it has spent so far in each stage: reading inputs, waiting
    # for the engine, quantising, writing
    busy: Mapping[str, float]
    seconds: float = 0.0  # from its first engine call until it was on the disk
    waits: Sequence[float] = ()  # seconds for which each of its batches was waited for
    worker: int = 0  # the number of the process, from 0

    @classmethod
    def of(
        cls,
        content: Content,
        busy: Mapping[str, float],
        seconds: float = 0.0,
        waits: Sequence[float] = (),
    ) -> ShardDone:
        shard, left_out, flagged = content.shard, dict(content.left_out), dict(content.flagged)
        return cls(shard, left_out, flagged, dict(busy), seconds, tuple(waits))


class Watch:
    """Tells of a job; use it in a `with` statement, by the one process that leads the job, once
    run.json is there.

    start: slices of the plan that are on the disk already, or left out. workers: processes that
    make slices, until `staffed` says otherwise. Where several lead parts of one job at the same
    time, on a range of its shards each: `part` names the range, A-B of the places A up to B of the
    plan, in status-<part>.json and log-<part>.jsonl; `total` is its slices, `start` those of it.
    """

    def __init__(
        self,
        work: Work,
        output: Output,
        start: int,
        *,
        workers: int = 1,
        total: int | None = None,
        part: str = "",
    ) -> None:
        self._work, self._output, self._workers = work, output, workers
        self._manned = self._manned_until = 0.0  # worker-seconds, up to when their number changed
        self._total = work.count if total is None else total
        self._progress = Progress(work.command, self._total, "slices", start=start)
        self._part = part
        self._status_path = named(output.out, status.NAME, part)
        self._log_path = named(output.out, log.NAME, part)
        self._telling = Telling(self._progress.say)
        self._lock = threading.Lock()  # of all that follows: a thread tells what another counts
        self._stages = Stages()
        self._left_out = self._flagged = 0
        self._newest: Shard | None = None  # not measured yet
        self._measured = disk.Measured()
        self._log: log.JobLog | None = None
        self._seconds: float | None = None
        self._ended = threading.Event()
        self._teller = threading.Thread(target=self._tell, name="job-status", daemon=True)

    def __enter__(self) -> Watch:
        self._progress.__enter__()
        self._started = log.now()
        self._pinned: dict[str, Any] = {}  # none, where it is gone already: then nobody's is ours
        with contextlib.suppress(OSError, ValueError):
            self._pinned = pinned_in(self._output.out)
        self._tell_in_folder(self._log_path, self._open_log)
        work, done = self._work, self._progress.start
        self.event(
            "resume" if done else "start",
            command=work.command,
            version=__version__,
            model_sha256=work.origin.model_sha256,
            recipe=work.origin.recipe,
            contrast=work.origin.contrast,
            total=self._total,
            done=done,
            workers=self._workers,
            pid=os.getpid(),
            host=socket.gethostname(),
        )
        self._write_status("running")
        self._teller.start()
        return self

    def shard_done(self, done: ShardDone) -> None:
        """Counts a shard that is on the disk."""
        with self._lock:
            spent = self._stages.add(done.worker, done.busy)
            self._left_out += len(done.left_out)
            self._flagged += len(done.flagged)
            self._newest = done.shard
            self._progress.advance(done.shard.count)
        self.event(
            "shard",
            number=done.shard.number,
            first=done.shard.first,
            count=done.shard.count,
            left_out=len(done.left_out),
            flagged=len(done.flagged),
            worker=done.worker,
            seconds=round(done.seconds, 6),
            waits=[round(wait, 6) for wait in done.waits],
            busy={stage: round(seconds, 6) for stage, seconds in spent.items()},
        )

    def staffed(self, workers: int) -> None:
        """So many processes make slices from now on."""
        with self._lock:
            seconds = self.seconds
            self._manned += (seconds - self._manned_until) * self._workers
            self._manned_until, self._workers = seconds, workers
        self.event("workers", workers=workers)

    def event(self, event: str, **facts: object) -> None:
        """Adds a line to the log, e.g. event("quarantine", index=7, why="…")."""
        with self._lock:
            if self._log is not None:
                write, elapsed = self._log.write, self.seconds
                self._telling.attempt(self._log_path, lambda: write(event, elapsed, **facts))

    @property
    def done(self) -> int:
        """Slices of the plan that are on the disk, or left out."""
        return self._progress.done

    @property
    def made(self) -> int:
        """By this run."""
        return self._progress.done - self._progress.start

    @property
    def seconds(self) -> float:
        """Of this run; the time for the report does not count."""
        return self._progress.seconds if self._seconds is None else self._seconds

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._seconds = self._progress.seconds
        self._ended.set()
        self._teller.join()
        self._progress.__exit__(kind, error, tb)
        state, message = "finished", None
        if error is not None:
            stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
            state = "stopped" if stopped else "failed"
            message = str(error) or type(error).__name__
            self.event("stopped" if stopped else "error", message=message)
        self.event("end", state=state, done=self.done)
        if self._log is not None:
            self._telling.attempt(self._log_path, self._log.close)
        ended = self._write_status(state, message)
        out = self._output.out
        if error is None:  # who stops a job does not want to wait for pictures
            self._tell_in_folder(out / contact.NAME, self._write_sheet)
        told = self._tell_in_folder(out / report.NAME, lambda: report.write(out))
        if ended.busy:
            self._progress.say(f"{self._work.command}: {status.what_limits(ended)}")
        if told:
            self._progress.say(f"{self._work.command}: see {out / report.NAME}")

    def _open_log(self) -> None:
        out = self._output.out
        for leftover in out.glob(f".{self._status_path.name}.*{TMP}"):  # of a run that was killed
            leftover.unlink()
        self._log = log.JobLog(self._log_path)
        earlier = history.rejects(out, history.read(out), self._own())
        self._left_out, self._flagged = len(earlier.left_out), len(earlier.flagged)

    def _own(self) -> Collection[int] | None:
        """Numbers of the shards of its part; None where that is the whole."""
        if not self._part:
            return None
        first, behind = map(int, self._part.split("-"))
        return {shard.number for shard in self._work.plan(self._output)[first:behind]}

    def _tell(self) -> None:
        while not self._ended.wait(EVERY):
            with contextlib.suppress(OSError):  # then it stays unknown
                self._measure()
            now = self._write_status("running")
            with self._lock:
                self._progress.advance(0, status.note(now))

    def _measure(self) -> None:
        """What slices take on the disk: of one shard, the newest, each time."""
        with self._lock:
            shard, self._newest = self._newest, None
        if shard is not None:
            name = FORMATS[self._output.format].name(shard)
            self._measured.add(self._output.out, name, shard.count)

    def _status(self, state: str, error: str | None) -> status.Status:
        try:
            disk_left = disk.free_bytes(self._output.out)
        except OSError:
            disk_left = None
        with self._lock:
            done, made, seconds = self.done, self.made, self.seconds
            left_out, flagged = self._left_out, self._flagged
            workers = self._workers
            manned = self._manned + (seconds - self._manned_until) * workers
            busy = shares(self._stages.seconds, manned, 1)
        rest = self._total - done
        needed = self._measured.needed(rest)
        return status.Status(
            command=self._work.command,
            state=state,
            total=self._total,
            done=done,
            made=made,
            left_out=left_out,
            flagged=flagged,
            rate=round(made / seconds, 3),
            seconds=round(seconds, 3),
            seconds_left=round(rest * seconds / max(made, 1), 1) if made or not rest else None,
            disk_left=disk_left,
            disk_needed=needed,
            disk_suffices=None if needed is None or disk_left is None else needed <= disk_left,
            workers=workers,
            busy={stage: round(share, 4) for stage, share in busy.items()},
            limit=limiting(busy),
            pid=os.getpid(),
            host=socket.gethostname(),
            started=self._started,
            updated=log.now(),
            error=error,
        )

    def _write_status(self, state: str, error: str | None = None) -> status.Status:
        now = self._status(state, error)
        self._tell_in_folder(self._status_path, lambda: now.write(self._status_path))
        return now

    def _tell_in_folder(self, path: Path, tell: Callable[[], None]) -> bool:
        """Has `path` written, but not into a folder that is not the job's any more."""

        def where_ours() -> None:
            check_ours(self._output.out, self._pinned)
            tell()

        return self._telling.attempt(path, where_ours)

    def _write_sheet(self) -> None:
        output = self._output
        with in_turn(output.out, TOLD, report.TURN_SECONDS):
            sheet = contact.sheet(output, self._work.plan(output))
            if sheet is not None:
                write_png(output.out / contact.NAME, sheet)


def named(out: Path, name: str, part: str) -> Path:
    """status.json, or status-<part>.json."""
    stem, dot, extension = name.partition(".")
    return out / (f"{stem}-{part}{dot}{extension}" if part else name)
