"""OpenVINO on the CPU: the engine the base install brings."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmrigan.errors import UsageError
from fastmrigan.runtime.backends.base import Backend, BackendOptions, Float32, GraphFile
from fastmrigan.runtime.backends.openvino_package import openvino_package

# auto takes bf16 only where the model file says that it stays this close to PyTorch.
BF16_MIN_DB = 45.0
HINTS = {"fp32": "f32", "bf16": "bf16"}
# Of files typed when they were exported. With the hint f32 a graph typed in bf16 or int8 runs as it
# stands; one in fp16 would be computed in fp32, and with f16 all of it is fp16, whose instance norm
# sums in fp32 within OpenVINO.
TYPED = {"bf16": "f32", "fp16": "f16", "int8": "f32"}
NOT_ARITHMETIC = frozenset(("Const", "Convert", "Input", "Output", "Reorder", "Reshape"))
KINDS = {"bf16": ("bf16",), "fp16": ("f16",), "int8": ("i8", "u8")}


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
    typed = ("bf16", "fp16", "int8")

    def __init__(self, model: GraphFile, options: BackendOptions) -> None:
        core = the_core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if model.precision != "fp32":
            self.precision, self.why_precision = _typed(model, able), "as the file is typed"
            hint = TYPED[self.precision]
        else:
            if options.precision == "auto":
                self.precision, self.why_precision = _auto(model, "BF16" in able)
            else:
                self.precision = _asked(options.precision, "BF16" in able)
            hint = HINTS[self.precision]
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
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": 1,
            },
        )
        if self.precision != "fp32" and not runs_in(compiled, self.precision):
            raise UsageError(
                f"precision {self.precision}: OpenVINO runs every operator of {model.path} in "
                "another one; take fp32"
            )
        self._request: Any = compiled.create_infer_request()

    def run(self, x: Float32) -> Float32:
        self._request.infer({0: x}, share_inputs=True, share_outputs=True)  # one copy is enough
        return np.array(self._request.get_output_tensor(0).data)


def runs_in(compiled: Any, precision: str) -> bool:
    """True where OpenVINO computes any of a graph in "bf16", "fp16" or "int8": some operators it
    runs in fp32 whatever is asked."""
    facts = [operator.get_rt_info() for operator in compiled.get_runtime_model().get_ops()]
    return any(
        fact["runtimePrecision"].astype(str) in KINDS[precision]
        for fact in facts
        if "runtimePrecision" in fact and fact["layerType"].astype(str) not in NOT_ARITHMETIC
    )


def _typed(model: GraphFile, able: Sequence[str]) -> str:
    """The precision of a typed file, where the processor has it."""
    if model.precision.upper() not in able:
        raise UsageError(
            f"backend openvino: {model.path} is typed in {model.precision}, and this processor has "
            f"no {model.precision} arithmetic; export it with --precision fp32"
        )
    return model.precision


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
