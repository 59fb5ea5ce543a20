"""What every engine offers the runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import abc, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Batches = abc.Generator[Float32, None, None]  # closing it waits for the calls in flight

MODES = ("latency", "throughput")
MOST_STREAMS = 8  # each keeps the activations of a batch: on larger machines a stream gets threads


@dataclass(frozen=True)
class BackendOptions:
    """How an engine is set up."""

    batch: int = 64  # slices a call; an engine of fixed shapes is compiled for it at once
    precision: str = "auto"  # fp32, bf16, or auto: what the engine takes on this processor
    threads: int | None = None  # None: as many as this process may use
    mode: str = "latency"  # or throughput: on the CPU several calls at once, with a stream each
    streams: int | None = None  # on the CPU; None: what the mode takes
    pinning: bool | None = None  # threads that keep to their cores; None: what the engine takes

    def shared_out(self, threads: int) -> tuple[int, int]:
        """Streams, and threads of each, that `threads` are cut into."""
        streams = self.streams
        if streams is None:
            streams = 1 if self.mode == "latency" else threads
            if streams > MOST_STREAMS:
                streams = threads // -(-threads // MOST_STREAMS)
        return streams, max(1, threads // streams)


class GraphFile(Protocol):
    """What an engine reads of a model file: all that it needs of any .onnx graph."""

    @property
    def path(self) -> Path:
        """For messages."""

    @property
    def data(self) -> bytes:
        """The whole .onnx file."""

    @property
    def parity(self) -> Mapping[str, Any]:
        """Measured differences from PyTorch, by engine; empty where none were."""

    @property
    def precision(self) -> str:
        """What the graph is typed in: fp32, or bf16, fp16 or int8, and then it runs in nothing
        else."""


class Backend(ABC):
    """A model compiled for one engine."""

    name: ClassVar[str]
    package: ClassVar[str]  # what must be importable
    extra: ClassVar[str]  # which extra of fastmrigan brings it
    precisions: ClassVar[tuple[str, ...]]  # that it can run an fp32 graph in
    typed: ClassVar[tuple[str, ...]]  # graphs typed in these it runs as they are

    version: str
    device: str
    precision: str
    why_precision: str = ""  # in a few words, where it was left to the engine
    mode: str = "latency"
    streams: int = 1  # calls it computes at once
    threads: int  # of all streams together
    pinning: bool = False  # whether the engine keeps its threads to their cores

    @abstractmethod
    def __init__(self, model: GraphFile, options: BackendOptions) -> None: ...

    @abstractmethod
    def run(self, x: Float32) -> Float32:
        """x float32 [n, …] in, slices float32 [n, 1, H, W] out, a fresh array.

        n: the batch it was opened for, or another: an engine of fixed shapes compiles the graph
        once for each. One call at a time, and so one stream of several: see `run_all`.
        """

    def start(self, x: Float32) -> Callable[[], Float32]:
        """Begins `run(x)`; what comes back waits for it and gives its slices."""
        y = self.run(x)
        return lambda: y

    @property
    def in_flight(self) -> int:
        """Calls to begin before the first one's slices are waited for: one a stream, and one that
        is ready when a stream is."""
        return 1 if self.mode == "latency" else self.streams + 1

    def run_all(self, xs: Iterable[Float32]) -> Batches:
        """`run` of each x, in their order, as many at once as the engine has streams."""
        return in_order((self.start(x) for x in xs), self.in_flight)

    def nodes(self) -> dict[str, int]:
        """Operators of the compiled graph by provider; empty where the engine does not tell."""
        return {}

    def describe(self) -> dict[str, Any]:
        """What runs, for `run.json`, `bench` and the messages."""
        return {
            "backend": self.name,
            "version": self.version,
            "device": self.device,
            "precision": self.precision,
            "mode": self.mode,
            "streams": self.streams,
            "threads": self.threads,
            "pinning": self.pinning,
            "nodes": self.nodes(),
        }


def in_order(begun: Iterable[Callable[[], Float32]], in_flight: int) -> Batches:
    """What calls give that begin when they are taken from `begun`, `in_flight` at a time."""
    waiting: deque[Callable[[], Float32]] = deque()
    try:
        for finish in begun:
            waiting.append(finish)
            if len(waiting) == in_flight:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()
    finally:
        for finish in waiting:  # left behind by an error or by who has enough
            with suppress(Exception):
                finish()


def reason(error: Exception) -> str:
    """The last telling line of an engine's own message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception from")]
    return (telling or lines or [type(error).__name__])[-1]
