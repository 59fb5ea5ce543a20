"""TensorRT: an engine file on CUDA's first device.

Not run: no machine with TensorRT and a GPU has been at hand. The tests hold every call of this
file and of tensorrt_cuda.py against a stand-in for both packages.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.runtime.backends.base import Backend, BackendOptions, Float32, GraphFile
from fastmrigan.runtime.backends.tensorrt_cuda import CudaStream, cuda_runtime
from fastmrigan.runtime.backends.tensorrt_package import logger, version_on_disk
from fastmrigan.runtime.cuda_driver import first_device
from fastmrigan.runtime.engine_file import (
    PACKAGE,
    EngineFile,
    check_device,
    check_package,
    check_precision,
    check_version,
)
from fastmrigan.runtime.tensorrt_plugin import plugin_library


class EngineError(RuntimeError):
    """A call to TensorRT that failed, with its own last word."""


@dataclass(frozen=True)
class Bucket:
    """What runs one batch size: a call fills `given`, launches `graph` and reads `made`."""

    given: Float32  # [batch, …], pinned
    made: Float32  # [batch, 1, H, W], pinned
    graph: Any  # the copy in, the engine and the copy out, recorded
    context: Any  # with this batch's profile for good; the graph runs in its memory


class TensorRTBackend(Backend):
    """A deserialised engine, and a Bucket for each batch size that was asked of it.

    A batch is filled up with zeros to the next bucket; one beyond the largest is cut by it. No
    context ever changes its profile, and after a bucket's first use nothing is allocated on the
    device.
    """

    name = "tensorrt"
    package = PACKAGE
    extra = "gpu"
    precisions: ClassVar[tuple[str, ...]] = ()  # an engine file's own, and no .onnx file's
    typed: ClassVar[tuple[str, ...]] = ()
    loaded: ClassVar[set[Path]] = set()  # plugins: a registry takes each once a process

    def __init__(self, model: GraphFile, options: BackendOptions) -> None:
        file = self._checked(model, options)
        library = plugin_of(file)
        data = file.data  # the sha256; only then the driver, whose start takes longer
        self.device = check_device(file, first_device()).name
        trt = import_module(self.package)
        check_version(file, trt.__version__)
        self.version = trt.__version__
        self.precision, self.why_precision = file.precision, why(file)
        self.threads = 1  # of the host
        self._file, self._facts = file, file.sidecar
        self._trt, self._log = trt, logger(trt)
        self._cuda = CudaStream(cuda_runtime())
        try:
            self._open(data, library, options.batch)
        except BaseException:
            self._cuda.close()
            raise

    def _open(self, data: bytes, library: Path | None, batch: int) -> None:
        if library is not None and library not in self.loaded:
            registry = self._trt.get_plugin_registry()
            self._made(registry.load_library(str(library)), "plugin")
            self.loaded.add(library)
        runtime = self._trt.Runtime(self._log)
        # a version-compatible engine brings its own runtime along, as host code
        runtime.engine_host_code_allowed = self._facts.version_compatible
        self._engine = self._made(runtime.deserialize_cuda_engine(data), "engine")
        self._item = self._item_shape()
        self._slice = (1, *self._file.metadata.slice_size)
        self._buckets: dict[int, Bucket] = {}
        for first in range(0, batch, self._facts.buckets[-1]):
            self._bucket(batch - first)

    def run(self, x: Float32) -> Float32:
        made = np.empty((len(x), *self._slice), np.float32)
        largest = self._facts.buckets[-1]
        for first in range(0, len(x), largest):
            part = x[first : first + largest]
            bucket = self._bucket(len(part))
            bucket.given[: len(part)] = part
            bucket.given[len(part) :] = 0
            self._cuda.launch(bucket.graph)
            made[first : first + len(part)] = bucket.made[: len(part)]
        return made

    def describe(self) -> dict[str, str | int]:
        return {**super().describe(), "engine_sha256": self._facts.engine_sha256}

    def _checked(self, model: GraphFile, options: BackendOptions) -> EngineFile:
        """The engine file, with every check passed that asks neither its bytes nor the driver."""
        if not isinstance(model, EngineFile):
            raise UsageError(
                f"backend tensorrt: runs engines, and {model.path} is a model file; build one with "
                f"`fastmrigan export {model.path} --engine tensorrt --out NAME.engine`"
            )
        check_package(model)
        check_precision(model, options.precision)
        if options.threads is not None:
            raise UsageError(
                f"threads {options.threads}: backend tensorrt runs on the GPU; leave --threads out"
            )
        here = version_on_disk(self.package)
        if here is not None:  # else it is asked of the module itself
            check_version(model, here)
        return model

    def _item_shape(self) -> tuple[int, ...]:
        """Of one input, [latent] or [1, H, W], where the engine is as its sidecar says."""
        trt, engine, facts = self._trt, self._engine, self._facts
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        if sorted(names) != sorted((facts.input, facts.output)):
            raise self._refused(f"has the tensors {', '.join(names)}")
        for name in names:
            if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
                raise self._refused(f"takes or makes {name} in another type than fp32")
        if engine.num_optimization_profiles != len(facts.buckets):
            raise self._refused(f"has {engine.num_optimization_profiles} profiles")
        shape = tuple(engine.get_tensor_shape(facts.input))
        for profile, batch in enumerate(facts.buckets):
            low, _, high = engine.get_tensor_profile_shape(facts.input, profile)
            if not tuple(low) == tuple(high) == (batch, *shape[1:]):
                raise self._refused(f"has no profile {profile} of batch {batch}")
        return shape[1:]

    def _bucket(self, count: int) -> Bucket:
        """Of the smallest batch that takes `count` slices, or else of the largest; made once."""
        buckets = self._facts.buckets
        batch = next((batch for batch in buckets if batch >= count), buckets[-1])
        if batch not in self._buckets:
            with self._cuda.together():
                self._buckets[batch] = self._new_bucket(batch, buckets.index(batch))
        return self._buckets[batch]

    def _new_bucket(self, batch: int, profile: int) -> Bucket:
        cuda, facts = self._cuda, self._facts
        # memory for this profile; the default would take the largest one's for each
        strategy = self._trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        context = self._made(self._engine.create_execution_context(strategy), "context")
        self._held(context.set_optimization_profile_async(profile, cuda.handle), "profile")
        given, made = cuda.pinned((batch, *self._item)), cuda.pinned((batch, *self._slice))
        self._held(context.set_input_shape(facts.input, given.shape), "input shape")
        if tuple(context.get_tensor_shape(facts.output)) != made.shape:
            raise self._refused(f"makes {tuple(context.get_tensor_shape(facts.output))}")
        to, back = cuda.device_memory(given.nbytes), cuda.device_memory(made.nbytes)
        self._held(context.set_tensor_address(facts.input, to), "input address")
        self._held(context.set_tensor_address(facts.output, back), "output address")

        def call() -> None:
            cuda.copy_in(to, given)
            self._held(context.execute_async_v3(cuda.handle), "call")
            cuda.copy_out(made, back)

        call()  # what choosing a profile put off happens now, since no graph may hold it
        cuda.wait()
        return Bucket(given, made, cuda.record(call), context)

    def _made(self, thing: Any, what: str) -> Any:
        """`thing`, unless TensorRT returned None for it."""
        if thing is None:
            raise EngineError(f"TensorRT gives no {what}: {self._last_error()}")
        return thing

    def _held(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(f"TensorRT refuses the {what}: {self._last_error()}")

    def _refused(self, fact: str) -> ModelRefused:
        """Where the engine is not what its sidecar says, though the sha256 holds."""
        return ModelRefused(
            f"{self._file.path}: {fact}, which its sidecar does not say; build it again"
        )

    def _last_error(self) -> str:
        return self._log.errors[-1] if self._log.errors else "no reason given"


def plugin_of(engine: EngineFile) -> Path | None:
    """The library to load before the engine; None where it needs none. Raises UsageError where it
    is not installed, ModelRefused where it is another one than the engine was built with."""
    plugin = engine.sidecar.plugin
    if plugin is None:
        return None
    library = plugin_library(str(engine.path))
    with library.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != plugin.sha256:
        raise ModelRefused(
            f"{engine.path}: was built with another {plugin.library} (sha256 {plugin.sha256[:8]}…) "
            f"than {library} ({found[:8]}…); build it again"
        )
    return library


def why(engine: EngineFile) -> str:
    """Where the precision comes from, with the model file's own figure for it, if it has one."""
    figures = engine.parity.get(f"openvino-{engine.precision}", {})
    if "psnr_db" not in figures:
        return "as the engine was built"
    return f"as the engine was built; {figures['psnr_db']:.1f} dB by the model file, on OpenVINO"
