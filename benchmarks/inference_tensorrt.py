"""A TensorRT or TensorRT-RTX engine on PyTorch's CUDA tensors, and one try at TensorRT-RTX.

    python benchmarks/inference_tensorrt.py PACKAGE ENGINE INPUT.npy OUTPUT.npy

runs one engine in a process of its own, so that a crash of the package ends no benchmark: the
output into OUTPUT.npy, what became of it as JSON. Not run on a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastmrigan.errors import FastMriganError
from fastmrigan.export.tensorrt import EngineOptions, in_child
from fastmrigan.runtime.backends.tensorrt_package import logger
from fastmrigan.runtime.cuda_driver import compute_capability

SECONDS = 60  # of a process that runs an engine
CHECKED = "8.9"  # the compute capability that is built for where there is no GPU


class Engine:
    """Slices [batch, 1, H, W] of the one batch it was built for, on the current stream.

    Raises RuntimeError where the package refuses it, or there is no driver or device.
    """

    def __init__(self, package: str, path: Path) -> None:
        if compute_capability() is None:  # without a driver TensorRT returns garbage, not an error
            raise RuntimeError("no CUDA driver or device here")
        trt = import_module(package)
        self.log = logger(trt)
        self.runtime = trt.Runtime(self.log)
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise RuntimeError("; ".join(self.log.errors) or "refused, no reason given")
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise RuntimeError("; ".join(self.log.errors) or "no context, no reason given")
        names = [self.engine.get_tensor_name(i) for i in range(2)]
        inward = trt.TensorIOMode.INPUT
        self.given, self.made = sorted(
            names, key=lambda name: self.engine.get_tensor_mode(name) != inward
        )
        self.outputs: dict[tuple[int, ...], torch.Tensor] = {}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        shape = tuple(x.shape)
        context = self.context
        if shape not in self.outputs:
            context.set_input_shape(self.given, shape)
            made = tuple(context.get_tensor_shape(self.made))
            self.outputs[shape] = torch.empty(made, device=x.device)
            context.set_tensor_address(self.made, self.outputs[shape].data_ptr())
        context.set_tensor_address(self.given, x.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("; ".join(self.log.errors) or "it did not run, no reason given")
        return self.outputs[shape]


def build(package: str, model: Any, out: Path, batch: int) -> None:
    """model: whose `path` is an .onnx file. For this machine's GPU, or CHECKED without one.

    Raises FastMriganError where no engine can be built.
    """
    engine = package.replace("_", "-")
    here = compute_capability() or package == "tensorrt"
    in_child(model, model.path, out, EngineOptions(engine, (batch,), None if here else CHECKED))


def try_rtx(model: Any, x: np.ndarray, expected: np.ndarray, folder: Path) -> dict[str, Any]:
    """Builds an engine by TensorRT-RTX and runs it: what it says at each of the two."""
    found: dict[str, Any] = {"compute_capability": compute_capability()}
    engine = folder / "rtx.engine"
    try:
        build("tensorrt_rtx", model, engine, len(x))
    except FastMriganError as error:
        return found | {"built": False, "says": str(error)}
    found |= {"built": True, "version": import_module("tensorrt_rtx").__version__}
    np.save(folder / "input.npy", x)
    command = [sys.executable, __file__, "tensorrt_rtx", str(engine)]
    command += [str(folder / "input.npy"), str(folder / "output.npy")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return found | {"ran": False, "says": f"not done after {SECONDS} s"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return found | {"ran": False, "says": f"ended with {done.returncode}: {last}"}
    found |= json.loads(lines[-1])
    if found["ran"]:
        from fastmrigan.export.parity import difference

        found["psnr_db"] = difference([expected], [np.load(folder / "output.npy")])[1]
    return found


def child(package: str, engine: str, given: str, made: str) -> None:
    try:
        run = Engine(package, Path(engine))
        slices = run(torch.from_numpy(np.load(given)).cuda())
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(json.dumps({"ran": False, "says": str(error)}))
        return
    np.save(made, slices.cpu().numpy())
    print(json.dumps({"ran": True, "says": "; ".join(run.log.errors)}))


if __name__ == "__main__":
    child(*sys.argv[1:])
