"""When a job would end: its engine and its writer, measured for a moment. Nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.job import Job
from fastmrigan.jobs.output import QUANTISERS
from fastmrigan.jobs.plan import Content, Shard, Slices
from fastmrigan.jobs.process import devices_for
from fastmrigan.jobs.shards import commit
from fastmrigan.jobs.spec import Engine
from fastmrigan.runtime.machine import usable_cores

SECONDS = 2.0  # of the engine
FEWEST = 2  # engine calls
SHARD_BYTES = 1 << 25  # of slices that are written to see how long that takes


@dataclass(frozen=True)
class Forecast:
    """How fast a job would go."""

    engine: float  # slices/s, of one
    writing: float  # slices/s, of one writer, to a temporary folder
    measured: float  # seconds, of the engine
    engines: float = 1  # that go at once,
    writers: float = 1

    @property
    def rate(self) -> float:
        """Slices/s: engines and writers work at once."""
        return min(self.engines * self.engine, self.writers * self.writing)


def forecast(
    job: Job,
    todo: Sequence[Shard],
    seconds: float = SECONDS,
    many: tuple[float, float] = (1, 1),
) -> Forecast:
    """Makes a few of the slices of `todo` (at least one shard), and writes a shard of them to a
    temporary folder. many: engines and writers that the job has, of which one is measured."""
    slices, rate, measured = _engine(job, todo, seconds)
    return Forecast(rate, _writing(job, todo[0], slices), measured, *many)


def at_once(engine: Engine, workers: int | None, shards: int) -> tuple[float, float]:
    """How many times the slices of one engine, and of one writer, `workers` processes make of so
    many shards, if they share nothing but cores and devices; None is this process."""
    if workers is None:
        return 1, 1
    size, cores, devices = max(1, min(workers, shards)), usable_cores(), devices_for(engine)
    room = len(devices) or max(1, cores / (engine.threads or cores))
    return min(size, room), min(size, cores)


def _engine(job: Job, todo: Sequence[Shard], seconds: float) -> tuple[Slices, float, float]:
    """Some slices [n, H, W], slices/s, and over how many seconds.

    The first calls, until the engine has all in hand that it works on at once, are not counted;
    where a job has no more than those, they are.
    """
    quantise = QUANTISERS[job.output.depth]
    warm = job.generator.backend.in_flight
    began = since = time.perf_counter()
    calls = total = counted = 0
    with closing(job.work.batches(job.generator, iter(todo), job.skipped)) as made:
        for part in made:
            slices = quantise(part)
            calls += 1
            total += len(part)
            now = time.perf_counter()
            if calls <= warm:
                since = now
            else:
                counted += len(part)
                if calls - warm >= FEWEST and now - since >= seconds:
                    break
    now = time.perf_counter()
    if calls - warm < FEWEST:
        counted, since = total, began
    return slices, counted / max(now - since, 1e-9), now - since


def _writing(job: Job, shard: Shard, slices: Slices) -> float:
    """Slices/s of the writer: of as much of a shard as is kept in memory without thought."""
    count = max(1, min(shard.count, SHARD_BYTES // slices[0].nbytes))
    filled = np.resize(slices, (count, *slices.shape[1:]))  # over and over
    indices = range(shard.first, shard.first + count)
    began = time.perf_counter()
    with TemporaryDirectory(prefix="fastmrigan-") as folder:
        content = Content(shard, filled, indices)
        if job.gate is not None:
            content = job.gate(content, job.work.origin.sources)
        commit(Path(folder), FORMATS[job.output.format], content, job.work.origin)
        taken = time.perf_counter() - began
    return float(count / max(taken, 1e-9))
