"""What the stand-in for TensorRT and CUDA stands for, held against the packages where they are."""

from __future__ import annotations

import inspect
import warnings
from importlib import import_module
from importlib.util import find_spec

import fake_tensorrt
import pytest

from fastmrigan.runtime.backends.tensorrt_cuda import CudaError, CudaStream
from fastmrigan.runtime.cuda_driver import first_device

BUCKETS = (1, 4)
RUNTIME = {
    "cudaSetDevice": "int device",
    "cudaStreamCreateWithFlags": "unsigned int flags",
    "cudaStreamDestroy": "stream",
    "cudaMalloc": "size_t size",
    "cudaMallocHost": "size_t size",
    "cudaFree": "devPtr",
    "cudaFreeHost": "ptr",
    "cudaMemcpyAsync": "dst, src, size_t count, kind: cudaMemcpyKind, stream",
    "cudaStreamSynchronize": "stream",
    "cudaStreamBeginCapture": "stream, mode: cudaStreamCaptureMode",
    "cudaStreamEndCapture": "stream",
    "cudaGraphInstantiate": "graph, unsigned long long flags",
    "cudaGraphDestroy": "graph",
    "cudaGraphExecDestroy": "graphExec",
    "cudaGraphLaunch": "graphExec, stream",
    "cudaGetErrorString": "error: cudaError_t",
}


def test_cuda_python_has_what_the_stand_in_has():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is absent")
    stand_in = fake_tensorrt.World(BUCKETS).runtime
    functions = {name for name, value in vars(stand_in).items() if inspect.isfunction(value)}
    assert functions == RUNTIME.keys()
    for name, arguments in RUNTIME.items():
        assert getattr(runtime, name).__doc__.strip().startswith(f"{name}({arguments})")
    assert runtime.cudaStreamNonBlocking == stand_in.cudaStreamNonBlocking
    for name in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode"):
        real = getattr(runtime, name)
        for member in getattr(stand_in, name):
            assert int(getattr(real, member.name)) == member


@pytest.mark.slow  # the lane that has tensorrt_rtx
def test_tensorrt_has_what_the_stand_in_has():
    stand_in = fake_tensorrt.World(BUCKETS).tensorrt
    found = [name for name in ("tensorrt", "tensorrt_rtx") if find_spec(name) is not None]
    if not found:
        pytest.skip("neither tensorrt nor tensorrt_rtx is installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        real = import_module(found[0])
    for name in ("Runtime", "ICudaEngine", "IExecutionContext", "ILogger"):
        for member in vars(getattr(stand_in, name)):
            assert member.startswith("_") or hasattr(getattr(real, name), member), member
    for name in ("DataType", "ExecutionContextAllocationStrategy"):
        for member in getattr(stand_in, name):
            assert int(getattr(getattr(real, name), member.name)) == member


def test_a_runtime_without_a_driver_is_an_error():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is absent")
    if first_device() is not None:
        pytest.skip("a CUDA device is here")
    with pytest.raises(CudaError, match=r"cudaSetDevice: .*driver.* \(CUDA error \d+\)"):
        CudaStream(runtime)
