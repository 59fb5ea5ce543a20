"""A stand-in for `tensorrt` and `cuda.bindings.runtime` that holds its caller to their protocol.

Nothing enqueued happens before the stream is waited for, and nothing at all that is captured
before its graph is launched. Memory on either side is a buffer of its own; a copy into any other
address, a call out of order or a second free is an AssertionError. `fail` names the calls that
return their error code, None or False, and which time.
"""

# ruff: noqa: N801, N802, N815 (the names are CUDA's)

from __future__ import annotations

import ctypes
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny_model as tiny
from engine_files import COMPUTE, MAGIC, VERSION

from fastmrigan.runtime.backends import tensorrt as backend
from fastmrigan.runtime.cuda_driver import CudaDevice

DEVICE = CudaDevice("Stand-in GPU", COMPUTE)


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class DataType(IntEnum):
    FLOAT, HALF = 0, 1


class Strategy(IntEnum):
    STATIC, ON_PROFILE_CHANGE = 0, 1


class Severity(IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class Logger:
    Severity = Severity

    def __init__(self) -> None: ...


class World:
    """Both packages, what they were asked, and what they hold."""

    def __init__(self, buckets: tuple[int, ...]) -> None:
        self.buckets = buckets
        self.fail: dict[str, int] = {}  # call: which time
        self.calls: list[str] = []
        self.memory: dict[int, tuple[str, Any]] = {}  # address: side and buffer
        self.streams: set[int] = set()
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.queue: list[Callable[[], None]] = []
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()  # TensorRT's objects
        self.libraries: set[str] = set()
        self.profiles: dict[int, int] = {}  # profile: contexts that took it
        self.runtime, self.tensorrt = runtime_module(self), tensorrt_module(self)
        self.tensors = {"latent": DataType.FLOAT, "slice": DataType.FLOAT}  # what the engine has
        self.slice_side = tiny.SIZE

    def asked(self, name: str) -> bool:
        """Notes a call; False where it is to fail."""
        self.calls.append(name)
        return self.calls.count(name) != self.fail.get(name)

    def enqueue(self, work: Callable[[], None]) -> None:
        (self.queue if self.captured is None else self.captured).append(work)

    def buffer(self, address: int, side: str, size: int) -> Any:
        assert address in self.memory, "an address that was never given, or is free again"
        found, buffer = self.memory[address]
        assert found == side, f"{found} memory where {side} memory is due"
        assert size <= len(buffer)
        return buffer

    @property
    def counted(self) -> Counter[str]:
        return Counter(self.calls)

    def nothing_left(self) -> bool:
        return not (
            self.memory or self.streams or self.graphs or self.executables or len(self.alive)
        )


def runtime_module(world: World) -> ModuleType:
    """cuda.bindings.runtime: each function returns a tuple, its error code first."""
    fake = ModuleType("cuda.bindings.runtime")
    failed = (cudaError_t.cudaErrorMemoryAllocation, None)
    numbers = iter(range(1000, 10_000))

    def function(call: Callable[..., Any]) -> None:
        def checked(*arguments: Any) -> tuple[Any, ...]:
            may = ("cudaMemcpyAsync", "cudaStreamEndCapture")
            assert world.captured is None or call.__name__ in may, "not while capturing"
            if not world.asked(call.__name__):
                if call.__name__ == "cudaStreamEndCapture":
                    world.captured = None  # it ends all the same
                if call.__name__ == "cudaStreamSynchronize":
                    world.queue = []
                return failed if call.__annotations__["return"] != "None" else failed[:1]
            found = call(*arguments)
            return (cudaError_t.cudaSuccess,) if found is None else (cudaError_t.cudaSuccess, found)

        setattr(fake, call.__name__, checked)

    def allocate(side: str, size: int) -> int:
        assert size > 0
        buffer = (ctypes.c_byte * size)(*([1] * min(size, 64)))  # never zeros by chance
        address = ctypes.addressof(buffer)
        world.memory[address] = (side, buffer)
        return address

    def free(side: str, address: int) -> None:
        assert not world.queue, "freed while work waits"
        world.buffer(address, side, 0)
        del world.memory[address]

    @function
    def cudaSetDevice(device: int) -> None:
        assert device == 0

    @function
    def cudaStreamCreateWithFlags(flags: int) -> int:
        assert flags == fake.cudaStreamNonBlocking
        world.streams.add(number := next(numbers))
        return number

    @function
    def cudaStreamDestroy(stream: int) -> None:
        assert not world.memory, "the stream was the first thing taken"
        world.streams.remove(stream)

    @function
    def cudaMalloc(size: int) -> int:
        return allocate("device", size)

    @function
    def cudaMallocHost(size: int) -> int:
        return allocate("host", size)

    @function
    def cudaFree(address: int) -> None:
        free("device", address)

    @function
    def cudaFreeHost(address: int) -> None:
        free("host", address)

    @function
    def cudaMemcpyAsync(to: int, source: int, size: int, kind: cudaMemcpyKind, stream: int) -> None:
        assert stream in world.streams
        sides = (
            ("device", "host")
            if kind is cudaMemcpyKind.cudaMemcpyHostToDevice
            else ("host", "device")
        )
        for address, side in zip((to, source), sides, strict=True):
            world.buffer(address, side, size)
        world.enqueue(lambda: ctypes.memmove(to, source, size) and None)

    @function
    def cudaStreamSynchronize(stream: int) -> None:
        assert stream in world.streams
        waiting, world.queue = world.queue, []
        for work in waiting:
            work()

    @function
    def cudaStreamBeginCapture(stream: int, mode: cudaStreamCaptureMode) -> None:
        assert stream in world.streams
        assert not world.queue
        assert mode is cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        world.captured = []

    @function
    def cudaStreamEndCapture(stream: int) -> int:
        assert world.captured is not None
        world.graphs[number := next(numbers)] = world.captured
        world.captured = None
        return number

    @function
    def cudaGraphInstantiate(graph: int, flags: int) -> int:
        assert flags == 0
        world.executables[number := next(numbers)] = world.graphs[graph]
        return number

    @function
    def cudaGraphDestroy(graph: int) -> None:
        del world.graphs[graph]

    @function
    def cudaGraphExecDestroy(executable: int) -> None:
        del world.executables[executable]

    @function
    def cudaGraphLaunch(executable: int, stream: int) -> None:
        assert stream in world.streams
        world.queue += world.executables[executable]

    fake.cudaGetErrorString = lambda code: (cudaError_t.cudaSuccess, b"out of memory")
    fake.cudaStreamNonBlocking = 1
    for kind in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode):
        setattr(fake, kind.__name__, kind)
    return fake


def tensorrt_module(world: World) -> ModuleType:
    """tensorrt: what cannot be done returns None or False, and the logger hears why."""
    fake = ModuleType("tensorrt")

    class Registry:
        def load_library(self, path: str) -> Any:
            if not world.asked("load_library") or path in world.libraries:
                return None  # what is registered is not taken again
            world.libraries.add(path)
            return object()

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger
            self.engine_host_code_allowed = False
            world.alive.add(self)

        def deserialize_cuda_engine(self, data: bytes) -> Any:
            if not world.asked("deserialize_cuda_engine") or not data.startswith(MAGIC):
                self.logger.log(Severity.WARNING, "not this one")
                self.logger.log(Severity.ERROR, "Magic tag\ndoes not match")
                return None
            return Engine(self)

    class Engine:
        def __init__(self, runtime: Runtime) -> None:
            self.runtime = runtime
            world.alive.add(self)

        @property
        def num_io_tensors(self) -> int:
            return len(world.tensors)

        @property
        def num_optimization_profiles(self) -> int:
            return len(world.buckets)

        def get_tensor_name(self, index: int) -> str:
            return list(world.tensors)[index]

        def get_tensor_dtype(self, name: str) -> DataType:
            return world.tensors[name]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return (-1, tiny.LATENT) if name == "latent" else (-1, 1, tiny.SIZE, tiny.SIZE)

        def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
            assert name == "latent"
            return [(world.buckets[profile], tiny.LATENT)] * 3

        def create_execution_context(self, strategy: Strategy) -> Any:
            assert strategy is Strategy.ON_PROFILE_CHANGE
            return Context(self) if world.asked("create_execution_context") else None

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine
            self.profile: int | None = None
            self.batch = 0
            self.addresses: dict[str, int] = {}
            self.put_off = True  # what a profile's choice leaves to the first call
            world.alive.add(self)

        def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
            assert stream in world.streams
            assert self.profile is None, "a context changes its profile"
            assert world.profiles.setdefault(profile, 0) == 0, "two contexts of one profile"
            if not world.asked("set_optimization_profile_async"):
                return False
            self.profile = profile
            world.profiles[profile] += 1
            weakref.finalize(self, world.profiles.__setitem__, profile, 0)
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            assert self.profile is not None, "the shape comes after the profile"
            assert name == "latent"
            assert tuple(shape) == (world.buckets[self.profile], tiny.LATENT)
            self.batch = shape[0]
            return world.asked("set_input_shape")

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            assert self.batch
            return (self.batch, 1, world.slice_side, tiny.SIZE)

        def set_tensor_address(self, name: str, address: int) -> bool:
            floats = tiny.LATENT if name == "latent" else tiny.SIZE**2
            world.buffer(address, "device", 4 * self.batch * floats)
            self.addresses[name] = address
            return world.asked("set_tensor_address")

        def execute_async_v3(self, stream: int) -> bool:
            assert stream in world.streams
            assert self.addresses.keys() == {"latent", "slice"}
            assert not (self.put_off and world.captured is not None), "captured the first call"
            if not world.asked("execute_async_v3"):
                self.engine.runtime.logger.log(Severity.ERROR, "illegal state")
                return False
            self.put_off = False
            world.enqueue(self._compute)
            return True

        def _compute(self) -> None:
            given = np.frombuffer(
                world.memory[self.addresses["latent"]][1], np.float32, self.batch * tiny.LATENT
            ).reshape(self.batch, tiny.LATENT)
            made = np.frombuffer(world.memory[self.addresses["slice"]][1], np.float32)
            made[:] = np.tanh(given @ tiny.weights()).ravel()

    fake.__version__ = VERSION
    fake.ILogger, fake.Runtime = Logger, Runtime
    fake.get_plugin_registry = Registry
    fake.ICudaEngine, fake.IExecutionContext = Engine, Context
    fake.DataType, fake.ExecutionContextAllocationStrategy = DataType, Strategy
    return fake


def install(monkeypatch: pytest.MonkeyPatch, buckets: tuple[int, ...]) -> World:
    """Puts the stand-in where the packages and the driver would be found."""
    world = World(buckets)
    cuda, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    for name, module in (
        ("cuda", cuda),
        ("cuda.bindings", bindings),
        ("cuda.bindings.runtime", world.runtime),
        ("tensorrt", world.tensorrt),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("fastmrigan.runtime.backends.installed", lambda name: True)
    monkeypatch.setattr(backend, "version_on_disk", lambda package: VERSION)
    monkeypatch.setattr(backend, "first_device", lambda: DEVICE)
    return world
