"""A bulk job: every slice of a plan, once each, whatever interrupts it.

What a job samples is said here, what it translates in `translation`; both are `Work` to `run`.
The engine makes the next shard while a thread packs and writes the one before. `run.json` pins
all that the bytes depend on; a later run into the same folder must agree with it and goes on where
the last one stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from fastmrigan import __version__, _core
from fastmrigan.errors import DiskFull, Interrupted, UsageError
from fastmrigan.files import TMP, is_full, write_whole
from fastmrigan.imaging.quantise import to_uint8, to_uint16
from fastmrigan.interrupt import StopSignal
from fastmrigan.progress import Progress
from fastmrigan.runtime.backends.base import Batches
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.shards import (
    FORMATS,
    Origin,
    Plan,
    Shard,
    Slices,
    commit,
    remove,
)

LAYOUT = 1  # of the bytes in a shard; a change that alters them raises it
QUANTISERS: dict[str, Callable[[Any], Slices]] = {"uint8": to_uint8, "uint16": to_uint16}
SHARDS_WAITING = 2  # finished by the engine, not yet on the disk


@dataclass(frozen=True)
class Output:
    """Where the slices of a job go, and as what."""

    out: Path
    format: str = "shard"  # one of shards.FORMATS
    shard_size: int = 256  # slices a shard; of nifti, a shard is a series
    dtype: str | None = None  # uint8 or uint16; None takes what the format is made for

    def check(self) -> None:
        """Raises UsageError on a value that cannot be meant, MissingDependency."""
        if self.shard_size < 1:
            raise UsageError(f"--shard-size {self.shard_size}: expected at least 1")
        for name, chosen, known in (
            ("format", self.format, list(FORMATS)),
            ("dtype", self.dtype or "uint8", list(QUANTISERS)),
        ):
            if chosen not in known:
                raise UsageError(f"--{name} {chosen}: unknown; choose one of {', '.join(known)}")
        fmt = FORMATS[self.format]
        if self.depth not in fmt.dtypes:
            raise UsageError(
                f"--dtype {self.depth}: --format {self.format} has 16 bits; take uint16, or leave "
                "--dtype out"
            )
        fmt.check()

    @property
    def depth(self) -> str:
        """uint8 or uint16: of the stored pixels."""
        return self.dtype or FORMATS[self.format].dtypes[0]


@dataclass(frozen=True)
class JobOptions:
    """What a job that samples makes, and where."""

    out: Path
    count: int
    seed: int = 0
    format: str = "shard"  # one of shards.FORMATS
    shard_size: int = 256  # slices a shard; of nifti, a shard is a series
    dtype: str | None = None  # uint8 or uint16; None takes what the format is made for

    @property
    def output(self) -> Output:
        return Output(self.out, self.format, self.shard_size, self.dtype)

    def check(self) -> None:
        """Raises UsageError on a value that cannot be meant."""
        if self.count < 1:
            raise UsageError(f"--count {self.count}: expected at least 1")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"--seed {self.seed}: expected a whole number from 0 to 2^64 - 1")
        if self.format == "nifti":
            raise UsageError(
                "--format nifti: sampled slices each show a head of their own and make no "
                "volume; take dicom, shard, png or npz"
            )
        self.output.check()


@dataclass(frozen=True)
class Work:
    """What tells one kind of job from another: its inputs, and what is said of its slices."""

    command: str  # of fastmrigan
    task: str  # of the model file
    count: int  # slices
    # The slices of shards in their order, [<= batch, H, W] at a time; none from two shards
    batches: Callable[[Sequence[Shard]], Batches]
    origin: Origin
    pins: dict[str, Any]  # what the bytes depend on beside the engine, the plan and the output
    shards: Sequence[Shard] | None = None  # where not the plan's, of `Output.shard_size` each


@dataclass(frozen=True)
class JobResult:
    """How a job ended."""

    slices: int  # in the folder now
    made: int  # by this run
    seconds: float  # of this run, engine start left out


def synthesise(generator: Generator, options: JobOptions) -> JobResult:
    """Samples every slice of the job that is not in its folder yet.

    Raises UsageError (wrong options, a model that translates, a folder that belongs to another
    job, a second writer), DiskFull, or Interrupted on Ctrl-C and SIGTERM with every finished shard
    kept.
    """
    options.check()
    if generator.metadata.task != "sample":
        raise UsageError(
            f"{generator.model.path}: translates slices and cannot sample them; use "
            "`fastmrigan translate`"
        )
    work = Work(
        command="synth",
        task="sample",
        count=options.count,
        batches=lambda shards: generator.sample_ranges(
            ((shard.first, shard.count) for shard in shards), options.seed
        ),
        origin=Origin(
            options.seed,
            generator.model.sha256,
            recipe=generator.metadata.recipe,
            contrast=generator.metadata.target_contrast or "unknown",
        ),
        pins={"seed": options.seed},
    )
    return run(generator, work, options.output)


def run(generator: Generator, work: Work, output: Output) -> JobResult:
    """Makes every slice of `work` that is not in its folder yet; raises as `synthesise` does."""
    plan = work.shards or list(Plan(work.count, output.shard_size))
    pinned = _pinned(generator, work, output)
    work = replace(work, origin=replace(work.origin, run=_name_of(pinned)))
    with _only_writer(output.out):
        _pin(output.out, work, pinned)
        todo = _unfinished(output, plan)
        with (
            StopSignal() as signal,
            Progress(
                work.command, work.count, "slices", start=work.count - sum(s.count for s in todo)
            ) as progress,
        ):
            _make(work, output, todo, progress, signal)
        return JobResult(progress.done, progress.done - progress.start, progress.seconds)


def _make(
    work: Work,
    output: Output,
    todo: list[Shard],
    progress: Progress,
    signal: StopSignal,
) -> None:
    fmt, quantise = FORMATS[output.format], QUANTISERS[output.depth]
    waiting: deque[tuple[Shard, Future[None]]] = deque()

    def settle(leave: int) -> None:
        while len(waiting) > leave:
            shard, written = waiting[0]
            written.result()
            waiting.popleft()
            progress.advance(shard.count)

    # All shards are one flow, so that the engine never waits for the end of one
    with ThreadPoolExecutor(1, "shard-writer") as writer, closing(work.batches(todo)) as made:
        try:
            for shard in todo:
                slices = _shard_slices(made, shard.count, quantise, signal)
                if slices is None:
                    break
                written = writer.submit(commit, output.out, fmt, shard, slices, work.origin)
                waiting.append((shard, written))
                settle(SHARDS_WAITING)
            settle(0)
        except OSError as error:
            for _, written in waiting:
                written.cancel()
            raise _disk_error(error, output, work.count, progress.done) from error
    if signal.stopped:
        raise Interrupted(
            f"{output.out}: stopped with {progress.done:,} of {work.count:,} slices made; "
            "the same command goes on from there"
        )


def _shard_slices(
    made: Batches, count: int, quantise: Callable[[Any], Slices], signal: StopSignal
) -> Slices | None:
    """The next `count` slices [count, H, W], or None where a signal came first."""
    parts: list[Slices] = []
    missing = count
    while missing:
        parts.append(quantise(next(made)))  # while it is in cache
        if signal.stopped:
            return None
        missing -= len(parts[-1])
    return cast(Slices, np.concatenate(parts))


def _pinned(generator: Generator, work: Work, output: Output) -> dict[str, Any]:
    """Everything the bytes of the shards depend on."""
    names_us = FORMATS[output.format].package is not None  # DICOM and NIfTI say what wrote them
    return {
        "layout": LAYOUT,
        "model_sha256": generator.model.sha256,
        **work.pins,
        "count": work.count,
        "shard_size": output.shard_size,
        "format": output.format,
        "dtype": output.depth,
        "batch": list(generator.buckets) if len(generator.buckets) > 1 else generator.batch,
        **generator.backend.describe(),
        "instruction_set": _core.isa(),
        **({"fastmrigan": __version__} if names_us else {}),
    }


def _name_of(pinned: dict[str, Any]) -> str:
    """A name for the run: the same wherever the same slices are made."""
    return hashlib.sha256(json.dumps(pinned, sort_keys=True).encode()).hexdigest()


def _pin(out: Path, work: Work, pinned: dict[str, Any]) -> None:
    """Writes run.json, or holds an existing one against this run."""
    path = out / "run.json"
    if path.exists():
        try:
            known = json.loads(path.read_text())
            task = known.get("task", "sample")  # a job that samples states none
            differing = [key for key in known | pinned if known.get(key) != pinned.get(key)]
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: unreadable ({error}); take another --out") from error
        if task != work.task:
            raise UsageError(
                f"{path}: a job of task {task!r} began there, this one is {work.task!r}; take "
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


def _unfinished(output: Output, plan: Sequence[Shard]) -> list[Shard]:
    fmt = FORMATS[output.format]
    for leftover in output.out.glob(f"{fmt.stem}-*{TMP}"):
        remove(leftover)
    return [shard for shard in plan if not (output.out / fmt.name(shard)).exists()]


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
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


def _disk_error(error: OSError, output: Output, count: int, done: int) -> Exception:
    kept = f"{done:,} of {count:,} slices are safe"
    if is_full(error):
        return DiskFull(f"{output.out}: no space left; {kept}: free some, run the same command")
    return UsageError(f"{output.out}: cannot write: {error.strerror}; {kept}")
