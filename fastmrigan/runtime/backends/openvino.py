"""OpenVINO on the CPU: the engine the base install brings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastmrigan.errors import UsageError
from fastmrigan.runtime.backends.base import Backend, BackendOptions, Float32, GraphFile
from fastmrigan.runtime.backends.openvino_package import openvino_package
from fastmrigan.runtime.machine import usable_cores

# auto takes bf16 only where the model file says that it stays this close to PyTorch.
BF16_MIN_DB = 45.0
HINTS = {"fp32": "f32", "bf16": "bf16"}
# Of files typed when they were exported. With the hint f32 a graph typed in bf16 or int8 runs as it
# stands; one in fp16 would be computed in fp32, and with f16 all of it is fp16, whose instance norm
# sums in fp32 within OpenVINO.
TYPED = {"bf16": "f32", "fp16": "f16", "int8": "f32"}
NOT_ARITHMETIC = frozenset(("Const", "Convert", "Input", "Output", "Reorder", "Reshape"))
NOT_RUN = frozenset(("Const", "Input", "Output"))
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
    """One compiled model for each number of slices that it is called with."""

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
        self.version = openvino_package().__version__.split("-")[0]
        self.device = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
        self.mode = options.mode
        streams, threads = options.shared_out(options.threads or usable_cores())
        # Each process counts its cores from the first: pinned, two of one thread would share a core
        alone = streams * threads == len(os.sched_getaffinity(0))
        self.properties = {  # that it is compiled with
            "PERFORMANCE_HINT": options.mode.upper(),
            "INFERENCE_PRECISION_HINT": hint,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "ENABLE_CPU_PINNING": alone if options.pinning is None else options.pinning,
            "SCHEDULING_CORE_TYPE": "ANY_CORE",
        }
        self._model = model
        self._idle: dict[int, list[Any]] = {}  # requests at rest, by the slices of their call
        self._compiled: dict[int, Any] = {}
        # Of what a call gives; None where the graph leaves its size open, or it is no float32
        self._shapes: dict[int, tuple[int, ...] | None] = {}
        compiled = self._compile(options.batch)
        self.streams = int(compiled.get_property("NUM_STREAMS"))
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self.pinning = bool(compiled.get_property("ENABLE_CPU_PINNING"))

    def run(self, x: Float32) -> Float32:
        x = _shared(x)
        request, made = self._request(x)
        request.infer(share_outputs=True)
        return self._slices(request, made, len(x))

    def start(self, x: Float32) -> Callable[[], Float32]:
        if self.mode == "latency":
            return super().start(x)  # on the caller's own thread: nothing to hand over
        x = _shared(x)
        request, made = self._request(x)
        request.start_async()

        # Whoever drops the call lets go of these from the last one on: the request waits for the
        # engine, which reads and writes the other two until then
        held = x, made, request
        del x, made, request

        def finish() -> Float32:
            x, made, request = held
            request.wait()
            return self._slices(request, made, len(x))

        return finish

    def nodes(self) -> dict[str, int]:
        compiled = next(iter(self._compiled.values()))
        kinds = [kind for kind, _ in _operators(compiled)]
        return {"CPU": sum(kind not in NOT_RUN for kind in kinds)}

    def _compile(self, batch: int) -> Any:
        """Compiles the graph for calls of `batch` slices."""
        core = the_core()
        graph = core.read_model(self._model.data)
        graph_input = graph.input(0)
        shape = graph_input.partial_shape
        shape[0] = batch
        graph.reshape({graph_input: shape})
        compiled = core.compile_model(graph, "CPU", self.properties)
        if self.precision != "fp32" and not runs_in(compiled, self.precision):
            raise UsageError(
                f"precision {self.precision}: OpenVINO runs every operator of {self._model.path} "
                "in another one; take fp32"
            )
        result = compiled.output(0)
        known = result.partial_shape.is_static and result.element_type.to_dtype() == np.float32
        self._shapes[batch] = tuple(result.shape) if known else None
        self._compiled[batch] = compiled
        self._idle[batch] = []
        return compiled

    def _request(self, x: Float32) -> tuple[Any, Float32 | None]:
        """A request that nobody uses, made with its compiled model where there is none, and the
        array that it writes to; None where the engine must make it.

        Reads x and writes the array where they are, and keeps neither: who calls does. Bound one by
        one, since a dictionary of inputs takes 15 microseconds and a copy of what the engine made
        more.
        """
        batch = len(x)
        if batch not in self._idle:
            self._compile(batch)
        idle = self._idle[batch]
        request = idle.pop() if idle else self._compiled[batch].create_infer_request()
        tensor = openvino_package().Tensor
        request.set_input_tensor(tensor(x, shared_memory=True))
        shape = self._shapes[batch]
        if shape is None:
            return request, None
        made = np.empty(shape, np.float32)
        request.set_output_tensor(tensor(made, shared_memory=True))
        return request, made

    def _slices(self, request: Any, made: Float32 | None, batch: int) -> Float32:
        """What a request made; it is at rest then, and writes there no more."""
        if made is None:
            made = np.array(request.get_output_tensor(0).data)
        self._idle[batch].append(request)
        return made


def _shared(x: Float32) -> Float32:
    """x itself where OpenVINO reads it where it is; it wants what it could write to as well."""
    return x if x.flags.c_contiguous and x.flags.writeable else np.array(x, order="C")


def runs_in(compiled: Any, precision: str) -> bool:
    """True where OpenVINO computes any of a graph in "bf16", "fp16" or "int8": some operators it
    runs in fp32 whatever is asked."""
    return any(
        runs in KINDS[precision] and kind not in NOT_ARITHMETIC
        for kind, runs in _operators(compiled)
    )


def bf16_db(parity: Mapping[str, Any]) -> float | None:
    """What a model file's parity records of bf16, the lower of random inputs and of real ones."""
    inputs = (parity, parity.get("real_slices", {}))
    figures = [each["openvino-bf16"]["psnr_db"] for each in inputs if "openvino-bf16" in each]
    return min(figures, default=None)


def _operators(compiled: Any) -> Iterator[tuple[str, str]]:
    """(kind, precision) of each operator of the graph that really runs."""
    for operator in compiled.get_runtime_model().get_ops():
        fact = operator.get_rt_info()
        if "runtimePrecision" in fact:
            yield fact["layerType"].astype(str), fact["runtimePrecision"].astype(str)


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
    measured = bf16_db(model.parity)
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
