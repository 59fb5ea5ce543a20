"""What the TensorRT backend needs of CUDA: one stream, memory, copies and graphs.

Through `cuda.bindings.runtime` (the package cuda-python), whose functions return an error code
first; here it becomes a CudaError. Not run: no machine with a GPU has been at hand.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from fastmrigan.errors import MissingDependency
from fastmrigan.runtime.backends.base import Float32


class CudaError(RuntimeError):
    """A CUDA call that failed, in one line."""


def cuda_runtime() -> Any:
    """The module cuda.bindings.runtime."""
    try:
        return import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as error:
        raise MissingDependency("cuda-python", "gpu", "backend tensorrt") from error


class CudaStream:
    """A stream of device 0 and all that was taken for it, which `close` gives back, last first.

    Closed by itself when nothing holds it any more, and when Python ends. For one thread at a time.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._taken = ExitStack()
        self.close = weakref.finalize(self, self._taken.close)
        self._call("cudaSetDevice", 0)
        stream = self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        self._give_back("cudaStreamDestroy", stream)
        self._stream = stream

    @property
    def handle(self) -> int:
        """As TensorRT takes it."""
        return int(self._stream)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is taken within is given back at once where it ends with an exception."""
        with ExitStack() as mine:
            others, self._taken = self._taken, mine
            try:
                yield
            except BaseException:
                self._runtime.cudaStreamSynchronize(self._stream)  # what waits may still use it
                raise
            finally:
                self._taken = others
            others.enter_context(mine.pop_all())

    def device_memory(self, size: int) -> int:
        """The address of `size` bytes on the device."""
        address: int = self._call("cudaMalloc", size)
        self._give_back("cudaFree", address)
        return address

    def pinned(self, shape: tuple[int, ...]) -> Float32:
        """Host memory that the device copies without a detour, with anything in it."""
        count = int(np.prod(shape))
        address: int = self._call("cudaMallocHost", count * np.dtype(np.float32).itemsize)
        self._give_back("cudaFreeHost", address)
        memory = (ctypes.c_float * count).from_address(address)
        return np.ctypeslib.as_array(memory).reshape(shape)

    def copy_in(self, device: int, host: Float32) -> None:
        """Enqueues a copy of pinned memory to the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", device, host.ctypes.data, host.nbytes, kind, self._stream)

    def copy_out(self, host: Float32, device: int) -> None:
        """Enqueues a copy from the device to pinned memory."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host.ctypes.data, device, host.nbytes, kind, self._stream)

    def wait(self) -> None:
        """Until all that was enqueued is done; its errors come out here."""
        self._call("cudaStreamSynchronize", self._stream)

    def record(self, work: Callable[[], None]) -> Any:
        """A graph of what `work` enqueues, which is not done yet, for `launch`."""
        # of this thread alone: others may allocate meanwhile
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            _, spoilt = self._runtime.cudaStreamEndCapture(self._stream)  # or it never ends
            if spoilt is not None and int(spoilt):
                self._runtime.cudaGraphDestroy(spoilt)
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            executable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._runtime.cudaGraphDestroy(graph)
        self._give_back("cudaGraphExecDestroy", executable)
        return executable

    def launch(self, graph: Any) -> None:
        """Does what a graph holds, to its end."""
        self._call("cudaGraphLaunch", graph, self._stream)
        self.wait()

    def _call(self, name: str, *arguments: Any) -> Any:
        """The one thing that a function returns beside its error code, or None."""
        code, *found = getattr(self._runtime, name)(*arguments)
        if code != self._runtime.cudaError_t.cudaSuccess:
            _, said = self._runtime.cudaGetErrorString(code)
            raise CudaError(f"{name}: {said.decode(errors='replace')} (CUDA error {int(code)})")
        return found[0] if found else None

    def _give_back(self, name: str, what: Any) -> None:
        """When closed; what that returns is past mending."""
        self._taken.callback(getattr(self._runtime, name), what)
