"""What every engine offers the runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BackendOptions:
    """How an engine is set up."""

    batch: int = 64  # slices a call, fixed when the engine is compiled
    precision: str = "auto"  # fp32, bf16, or auto: what the engine takes on this processor
    threads: int | None = None  # None: as many as this process may use


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
    """A model compiled for one engine, at one batch size."""

    name: ClassVar[str]
    package: ClassVar[str]  # what must be importable
    extra: ClassVar[str]  # which extra of fastmrigan brings it
    precisions: ClassVar[tuple[str, ...]]  # that it can run an fp32 graph in
    typed: ClassVar[tuple[str, ...]]  # graphs typed in these it runs as they are

    version: str
    device: str
    precision: str
    why_precision: str = ""  # in a few words, where it was left to the engine
    threads: int

    @abstractmethod
    def __init__(self, model: GraphFile, options: BackendOptions) -> None: ...

    @abstractmethod
    def run(self, x: Float32) -> Float32:
        """x float32 [batch, …] in, slices float32 [batch, 1, H, W] out, a fresh array."""

    def describe(self) -> dict[str, str | int]:
        """What runs, for `run.json`, `bench` and the messages."""
        return {
            "backend": self.name,
            "version": self.version,
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
        }


def reason(error: Exception) -> str:
    """The last telling line of an engine's own message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception from")]
    return (telling or lines or [type(error).__name__])[-1]
