"""The Generator: a model file compiled on a backend, ready to make slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.runtime.backends import BackendOptions, choose, open_backend
from fastmrigan.runtime.backends.base import Float32, reason
from fastmrigan.runtime.engine_file import EngineFile, read_model
from fastmrigan.runtime.latents import normal_latents
from fastmrigan.runtime.model_file import ModelFile

MAX_BATCH = 4096  # slices a call; more gains nothing and may not fit into memory


class Generator:
    """Makes slices in batches of one fixed size; the last batch is filled up and cut.

    Slice i of a seed depends on the model, the seed and i alone: every call the engine sees has
    the same shape, and the place of a slice in its batch is i modulo the batch where a range
    starts at a multiple of the batch.
    """

    def __init__(
        self,
        model: ModelFile | EngineFile,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        batch: int = 64,
    ) -> None:
        if not 1 <= batch <= MAX_BATCH:
            raise UsageError(f"batch {batch}: expected 1 to {MAX_BATCH:,}")
        if threads is not None and threads < 1:
            raise UsageError(f"threads {threads}: expected at least 1")
        name, self.reason = choose(backend, model)
        self.model = model
        self.metadata = model.metadata
        self.batch = batch
        self.backend = open_backend(model, name, BackendOptions(batch, precision, threads))

    def sample(self, count: int, seed: int = 0, first: int = 0) -> Float32:
        """Slices `first` .. `first + count - 1` of `seed`: float32 [count, H, W] in [-1, 1]."""
        if count < 0:
            raise UsageError(f"count {count}: expected at least 0")
        parts = list(self.stream(count, seed, first))
        return np.concatenate(parts) if parts else np.empty((0, *self.metadata.slice_size), "f4")

    def stream(self, count: int, seed: int = 0, first: int = 0) -> Iterator[Float32]:
        """The same slices, a batch at a time: float32 [<= batch, H, W]."""
        size = self.metadata.latent_size
        if self.metadata.task != "sample" or size is None:
            raise UsageError(f"{self.model.path}: translates slices and cannot sample them")
        for start in range(first, first + count, self.batch):
            latents = normal_latents(seed, start, self.batch, size)  # [batch, latent]
            yield self._run(latents)[: first + count - start]

    def translate(self, slices: Float32) -> Float32:
        """Translates slices of the source contrast: float32 [N, H, W] in [-1, 1], in and out."""
        if self.metadata.task != "translate":
            raise UsageError(f"{self.model.path}: samples slices and cannot translate them")
        expected = self.metadata.slice_size
        if slices.ndim != 3 or slices.shape[1:] != expected:
            raise UsageError(
                f"translate: expected slices [N, {expected[0]}, {expected[1]}], "
                f"got {list(slices.shape)}; prepare them at that size"
            )
        if not np.isfinite(slices).all():
            raise UsageError("translate: the slices hold NaN or infinite values")
        if len(slices) == self.batch:  # whole: no copy in, none out
            return self._run(np.ascontiguousarray(slices, np.float32)[:, None])
        out = np.empty(slices.shape, np.float32)
        for start in range(0, len(slices), self.batch):
            part = slices[start : start + self.batch]
            x = np.zeros((self.batch, 1, *expected), np.float32)  # [batch, 1, H, W]
            x[: len(part), 0] = part
            out[start : start + self.batch] = self._run(x)[: len(part)]
        return out

    def _run(self, x: Float32) -> Float32:
        path, name = self.model.path, self.backend.name
        try:
            y = self.backend.run(x)
        except Exception as error:  # engines raise their own kinds
            raise ModelRefused(f"{path}: {name} cannot run it: {reason(error)}") from error
        expected = (self.batch, 1, *self.metadata.slice_size)
        if y.shape != expected:
            raise ModelRefused(
                f"{path}: makes {list(y.shape)} where its metadata says {list(expected)}; "
                "export it again"
            )
        if not np.isfinite(y).all():
            raise ModelRefused(f"{path}: makes NaN or infinite pixels on {name}; train it again")
        return y[:, 0]  # [batch, H, W]


def load(
    path: str | Path,
    backend: str = "auto",
    *,
    precision: str = "auto",
    threads: int | None = None,
    batch: int = 64,
) -> Generator:
    """Opens a model file, or a TensorRT engine (.engine) with its sidecar.

    backend: auto, openvino, onnxruntime or onnxruntime-cuda; for an engine auto or tensorrt, which
    runs in what it was built in. precision: auto, fp32 or bf16; auto
    takes bf16 only where the processor has it and the model file records at least 45 dB for it. A
    file exported in bf16, fp16 or int8 runs in that alone, and auto means it.
    batch: slices a call. threads: None takes what this process may use.
    Raises UsageError, MissingDependency or ModelRefused.
    """
    return Generator(
        read_model(path), backend=backend, precision=precision, threads=threads, batch=batch
    )
