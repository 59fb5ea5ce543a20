"""OpenVINO on the CPU: the engine the base install brings."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from fastmrigan.errors import UsageError
from fastmrigan.runtime.backends.base import Backend, BackendOptions, Float32, GraphFile
from fastmrigan.runtime.backends.openvino_package import openvino_package

# auto takes bf16 only where the model file says that it stays this close to PyTorch.
BF16_MIN_DB = 45.0
HINTS = {"fp32": "f32", "bf16": "bf16"}


@functools.cache
def the_core() -> Any:
    """One openvino.Core for the process, never freed.

    Each Core's CPU plugin puts a signal stack in place and takes it away when freed, restoring the
    one before (seen with 2026.4 on a processor with AMX). Of two Cores the first freed first, the
    other restores memory that is no longer mapped, and the next Ctrl-C is a segmentation fault.
    """
    return openvino_package().Core()


class OpenVINOBackend(Backend):
    """One compiled model with a static batch."""

    name = "openvino"
    package = "openvino"
    extra = "ort"
    precisions = ("fp32", "bf16")

    def __init__(self, model: GraphFile, options: BackendOptions) -> None:
        core = the_core()
        bf16_here = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if options.precision == "auto":
            self.precision, self.why_precision = _auto(model, bf16_here)
        else:
            self.precision = _asked(options.precision, bf16_here)
        self.threads = options.threads or len(os.sched_getaffinity(0))
        self.version = openvino_package().__version__.split("-")[0]
        self.device = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
        graph = core.read_model(model.data)
        graph_input = graph.input(0)
        shape = graph_input.partial_shape
        shape[0] = options.batch
        graph.reshape({graph_input: shape})
        compiled = core.compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": HINTS[self.precision],
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": 1,
            },
        )
        if self.precision == "bf16" and not runs_bf16(compiled):
            raise UsageError(
                f"precision bf16: OpenVINO runs every operator of {model.path} in fp32; take fp32"
            )
        self._request: Any = compiled.create_infer_request()

    def run(self, x: Float32) -> Float32:
        self._request.infer({0: x}, share_inputs=True, share_outputs=True)  # one copy is enough
        return np.array(self._request.get_output_tensor(0).data)


def runs_bf16(compiled: Any) -> bool:
    """True where OpenVINO took the hint: some operators it runs in fp32 whatever is asked."""
    operators = compiled.get_runtime_model().get_ops()
    return any(
        operator.get_rt_info()["runtimePrecision"].astype(str) == "bf16"
        for operator in operators
        if "runtimePrecision" in operator.get_rt_info()
    )


def _auto(model: GraphFile, bf16_here: bool) -> tuple[str, str]:
    """The precision taken, and why."""
    if not bf16_here:
        return "fp32", "auto: the processor has no bf16"
    measured = model.parity.get("openvino-bf16", {}).get("psnr_db")
    if measured is None:
        return "fp32", "auto: the model file records nothing about bf16"
    taken = "bf16" if measured >= BF16_MIN_DB else "fp32"
    return taken, f"auto: {measured:.1f} dB in bf16 by the model file, {BF16_MIN_DB:g} wanted"


def _asked(asked: str, bf16_here: bool) -> str:
    if asked not in HINTS:
        raise UsageError(f"precision {asked!r}: OpenVINO offers auto, {', '.join(HINTS)}")
    if asked == "bf16" and not bf16_here:
        raise UsageError("precision bf16: this processor has no bf16 arithmetic; take fp32")
    return asked
