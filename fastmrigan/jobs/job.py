"""A job with its engine: how its shards are made, and all that their bytes depend on.

What a job makes is `Work`: of `sampling` what is sampled, of `translation` what is translated.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from fastmrigan import __version__, _core
from fastmrigan.imaging.dataset import Marks
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.gate import Gate
from fastmrigan.jobs.output import QUANTISERS, Output
from fastmrigan.jobs.plan import Content, Origin, Plan, Shard, Slices
from fastmrigan.jobs.shards import commit
from fastmrigan.jobs.stages import STAGES, Stopwatch
from fastmrigan.jobs.watch import ShardDone
from fastmrigan.runtime.backends.base import Batches, Float32
from fastmrigan.runtime.generator import Generator

HOLE = "another slice of its volume is left out, and a volume has no holes"
LAYOUT = 1  # of the bytes in a shard; a change that alters them raises it


@dataclass(frozen=True)
class Work:
    """What tells one kind of job from another: its inputs, and what is said of its slices."""

    command: str  # of fastmrigan
    task: str  # of the model file
    count: int  # slices
    # The slices of shards in their order, [<= batch, H, W] at a time; none from two shards. Shards
    # are taken as they are needed; of inputs that are skipped (by index) nothing is read, and what
    # is made in their places has no meaning.
    batches: Callable[[Generator, Iterable[Shard], Container[int]], Batches]
    origin: Origin
    pins: dict[str, Any]  # what the bytes depend on beside the engine, the plan and the output
    shards: Sequence[Shard] | None = None  # where not the plan's, of `Output.shard_size` each
    warnings: tuple[str, ...] = ()  # lines for who began the job
    read: Marks | None = None  # of the inputs' files, before they were read through
    # Of reading inputs and making them ready, within `batches`: no waiting for the engine
    reading: Stopwatch = field(default_factory=Stopwatch, compare=False)

    def plan(self, output: Output) -> Sequence[Shard]:
        """Every shard of the job."""
        return self.shards or list(Plan(self.count, output.shard_size))


class Job:
    """Work, where it goes, and the engine that does it.

    skipped: inputs that are left out (index: why), e.g. because they ended a process twice.
    gate: which slices are refused; None keeps all.
    """

    def __init__(
        self,
        work: Work,
        output: Output,
        generator: Generator,
        skipped: Mapping[int, str] | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.output, self.generator = output, generator
        self.skipped = dict(skipped or {})
        self.gate = gate
        pinned = _pinned(generator, work, output)
        # A slice that passes is the same without a gate, and has the same identifiers.
        self.work = replace(work, origin=replace(work.origin, run=_name_of(pinned)))
        self.pinned = pinned | (gate.pins if gate is not None else {})
        self.plan = work.plan(output)
        stages = STAGES if gate is None else (*STAGES, "gate")
        self.busy = dict.fromkeys(stages, 0.0)  # seconds
        self._begun: dict[int, tuple[float, list[float]]] = {}  # by shard: when; waits for batches

    def make(
        self, shards: Iterable[Shard], stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Content]:
        """The content of each shard, in their order; ends early once `stopped`.

        Shards are taken ahead of what is made of them: all are one flow, so that the engine never
        waits for the end of one.
        """
        quantise = QUANTISERS[self.output.depth]
        begun: deque[Shard] = deque()

        def taken() -> Iterator[Shard]:
            for shard in shards:
                begun.append(shard)
                yield shard

        parts: list[Slices] = []
        since, waits = time.perf_counter(), list[float]()
        with closing(self.work.batches(self.generator, taken(), self.skipped)) as made:
            while True:
                part, waited = self._next(made)
                if part is None:
                    return
                waits.append(waited)
                with self._stage("quantise"):
                    parts.append(quantise(part))  # while it is in cache
                if stopped():
                    return
                if sum(map(len, parts)) == begun[0].count:
                    slices = cast(Slices, np.concatenate(parts))
                    shard = begun.popleft()
                    self._begun[shard.number] = since, waits
                    yield Content.whole(shard, slices).without(self.skipped)
                    parts = []
                    since, waits = time.perf_counter(), []

    def commit(self, content: Content) -> ShardDone:
        """Puts a shard on the disk for good; may run in another thread than `make`."""
        output, fmt = self.output, FORMATS[self.output.format]
        if self.gate is not None:
            with self._stage("gate"):
                content = self.gate(content, self.work.origin.sources)
        if fmt.entire and content.left_out:
            content = content.without(dict.fromkeys(content.indices, HOLE))
        with self._stage("write"):
            commit(output.out, fmt, content, self.work.origin)
        now = time.perf_counter()
        since, waits = self._begun.pop(content.shard.number, (now, []))
        return ShardDone.of(content, self.busy, now - since, waits)

    def make_shard(
        self, shard: Shard, stopped: Callable[[], bool] = lambda: False
    ) -> ShardDone | None:
        """Makes one shard and puts it on the disk for good; None once `stopped`."""
        for content in self.make([shard], stopped):
            return self.commit(content)
        return None

    def _next(self, made: Batches) -> tuple[Float32 | None, float]:
        """The next batch, and the seconds for which the engine was waited for."""
        read, began = self.work.reading.seconds, time.perf_counter()
        part = next(made, None)
        read = self.work.reading.seconds - read
        waited = time.perf_counter() - began - read
        self.busy["read"] += read
        self.busy["engine"] += waited
        return part, waited

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.busy[name] += time.perf_counter() - began


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
