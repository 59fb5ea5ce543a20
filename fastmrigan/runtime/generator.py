"""The Generator: a model file compiled on a backend, ready to make slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fastmrigan import _core
from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.runtime.backends import BackendOptions, choose, open_backend
from fastmrigan.runtime.backends.base import MODES, Batches, Float32, in_order, reason
from fastmrigan.runtime.engine_file import EngineFile, read_model
from fastmrigan.runtime.latents import normal_latents
from fastmrigan.runtime.model_file import ModelFile

MAX_BATCH = 4096  # slices a call; more gains nothing and may not fit into memory
BUCKETS = (1, 4, 8, 16, 32)  # slices a call, where no batch is given


def check_options(*, threads: int | None, batch: int | None, mode: str) -> None:
    """Raises UsageError on what no engine could be meant to have."""
    if batch is not None and not 1 <= batch <= MAX_BATCH:
        raise UsageError(f"batch {batch}: expected 1 to {MAX_BATCH:,}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: expected at least 1")
    if mode not in MODES:
        raise UsageError(f"mode {mode!r}: unknown; choose one of {', '.join(MODES)}")


class Generator:
    """Makes any number of slices, in engine calls of a few sizes.

    Without `batch`, a call has 1, 4, 8, 16 or 32 slices, or those an engine file was built for, and
    a size is compiled when it is first needed. 20 slices take calls of 16 and 4; 3 fill up a call
    of 4; at most a third more slices are computed than asked for. The engine may round a slice
    differently in a call of another size.

    With `batch`, every call has that shape, and the last one is filled up and cut. Slice i of a
    seed then depends on the model, the seed and i alone: its place in its call is i modulo the
    batch where a range starts at a multiple of the batch.

    mode: in "latency", one call at a time has all threads. In "throughput", `stream` and
    `translate_all` keep several calls in flight, each on its share of the threads; a call by
    itself takes longer then. The engine may round differently in the other mode, too: OpenVINO does
    at batch 1 where there are instance norms (ResNet-9 with random weights: 48 dB apart in bf16,
    which is as far as bf16 is from fp32, and 74 dB in fp32).
    """

    def __init__(
        self,
        model: ModelFile | EngineFile,
        *,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        batch: int | None = None,
        mode: str = "latency",
    ) -> None:
        check_options(threads=threads, batch=batch, mode=mode)
        name, self.reason = choose(backend, model)
        self.model = model
        self.metadata = model.metadata
        sizes = model.sidecar.buckets if isinstance(model, EngineFile) else BUCKETS
        self.buckets = sizes if batch is None else (batch,)
        self.batch = max(self.buckets)  # slices of the largest call
        options = BackendOptions(min(self.buckets), precision, threads, mode)
        self.backend = open_backend(model, name, options)

    def sample(self, count: int, seed: int = 0, first: int = 0) -> Float32:
        """Slices `first` .. `first + count - 1` of `seed`: float32 [count, H, W] in [-1, 1]."""
        if count < 0:
            raise UsageError(f"count {count}: expected at least 0")
        parts = list(self.stream(count, seed, first))
        return np.concatenate(parts) if parts else np.empty((0, *self.metadata.slice_size), "f4")

    def stream(self, count: int, seed: int = 0, first: int = 0) -> Batches:
        """The same slices, a call at a time: float32 [<= batch, H, W]."""
        return self.sample_ranges([(first, count)], seed)

    def sample_ranges(self, ranges: Iterable[tuple[int, int]], seed: int = 0) -> Batches:
        """The slices of ranges (first, count) of `seed`, as `stream` gives those of one; no call
        has slices of two ranges."""
        size = self.metadata.latent_size
        if self.metadata.task != "sample" or size is None:
            raise UsageError(f"{self.model.path}: translates slices and cannot sample them")

        def begun() -> Iterator[Callable[[], Float32]]:
            for first, count in ranges:
                for at, taken, bucket in calls(count, self.buckets):
                    latents = normal_latents(seed, first + at, bucket, size)  # [bucket, latent]
                    yield self._begin(latents, taken)

        return in_order(begun(), self.backend.in_flight)

    def translate(self, slices: Float32) -> Float32:
        """Translates slices of the source contrast: float32 [N, H, W] in [-1, 1], in and out."""
        self._must_translate()
        if slices.ndim == 3 and len(slices) in self.buckets:  # one call: no copy in, none out
            self._check_source(slices)
            return self._begin(np.ascontiguousarray(slices, np.float32)[:, None], len(slices))()
        out = np.empty(slices.shape, np.float32)
        at = 0
        for part in self.translate_all([slices]):
            out[at : at + len(part)] = part
            at += len(part)
        return out

    def translate_all(self, parts: Iterable[Float32]) -> Batches:
        """Translates slices [N, H, W] as they come, a call at a time: float32 [<= batch, H, W]; no
        call has slices of two parts."""
        self._must_translate()

        def begun() -> Iterator[Callable[[], Float32]]:
            for slices in parts:
                self._check_source(slices)
                for at, taken, bucket in calls(len(slices), self.buckets):
                    x = np.ascontiguousarray(slices[at : at + taken], np.float32)[:, None]
                    if taken < bucket:  # [taken, 1, H, W] to [bucket, 1, H, W]
                        x = np.pad(x, ((0, bucket - taken), (0, 0), (0, 0), (0, 0)))
                    elif self.backend.in_flight > 1:  # the caller may fill his array again
                        x = x.copy()
                    yield self._begin(x, taken)

        return in_order(begun(), self.backend.in_flight)

    def _must_translate(self) -> None:
        if self.metadata.task != "translate":
            raise UsageError(f"{self.model.path}: samples slices and cannot translate them")

    def _check_source(self, slices: Float32) -> None:
        expected = self.metadata.slice_size
        if slices.ndim != 3 or slices.shape[1:] != expected:
            raise UsageError(
                f"translate: expected slices [N, {expected[0]}, {expected[1]}], "
                f"got {list(slices.shape)}; prepare them at that size"
            )
        if not _core.all_finite(np.asarray(slices, np.float32, order="C")):
            raise UsageError("translate: the slices hold NaN or infinite values")

    def _begin(self, x: Float32, count: int) -> Callable[[], Float32]:
        """Starts an engine call on x [bucket, …]; what comes back gives its first `count` slices,
        [count, H, W]."""
        try:
            finish = self.backend.start(x)
        except Exception as error:  # engines raise their own kinds
            raise self._refusal(error) from error

        def checked() -> Float32:
            try:
                y = finish()
            except Exception as error:
                raise self._refusal(error) from error
            path, expected = self.model.path, (len(x), 1, *self.metadata.slice_size)
            if y.shape != expected:
                raise ModelRefused(
                    f"{path}: makes {list(y.shape)} where its metadata says {list(expected)}; "
                    "export it again"
                )
            if not _core.all_finite(y):
                raise ModelRefused(
                    f"{path}: makes NaN or infinite pixels on {self.backend.name}; train it again"
                )
            return y[:count, 0]

        return checked

    def _refusal(self, error: Exception) -> ModelRefused:
        path, name = self.model.path, self.backend.name
        return ModelRefused(f"{path}: {name} cannot run it: {reason(error)}")


def calls(count: int, buckets: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The engine calls that `count` slices take: (first slice, slices, bucket), [bucket >= slices].

    A call is filled up where at most a quarter of it is wasted or there is no smaller one; else
    the largest that is whole comes first.
    """
    at = 0
    while at < count:
        left = count - at
        enough = [b for b in buckets if b >= left and 3 * b <= 4 * left]
        whole = [b for b in buckets if b <= left]
        bucket = min(enough) if enough else max(whole, default=min(buckets))
        yield at, min(left, bucket), bucket
        at += bucket


def load(
    path: str | Path,
    backend: str = "auto",
    *,
    precision: str = "auto",
    threads: int | None = None,
    batch: int | None = None,
    mode: str = "latency",
) -> Generator:
    """Opens a model file, or a TensorRT engine (.engine) with its sidecar.

    backend: auto, openvino, onnxruntime or onnxruntime-cuda; for an engine auto or tensorrt, which
    runs in what it was built in. precision: auto, fp32 or bf16; auto
    takes bf16 only where the processor has it and the model file records at least 45 dB for it. A
    file exported in bf16, fp16 or int8 runs in that alone, and auto means it.
    batch: slices a call; None takes 1, 4, 8, 16 or 32, whatever comes nearest, each compiled when
    it is first needed. threads: None takes what this process may use. mode: latency or throughput.
    `Generator` says what batch and mode mean. Raises UsageError, MissingDependency or ModelRefused.
    """
    return Generator(
        read_model(path),
        backend=backend,
        precision=precision,
        threads=threads,
        batch=batch,
        mode=mode,
    )
