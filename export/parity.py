"""How far ONNX Runtime and OpenVINO stand from PyTorch on the same inputs.

The engines are opened here on the bare graph with its batch axis left dynamic, not through
fastmrigan.runtime: a fault of the runtime's backends must not be able to hide a fault of the file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import MissingDependency
from fastmrigan.runtime.backends.openvino import runs_bf16, the_core

Float32 = npt.NDArray[np.float32]

PEAK = 2.0  # slices span [-1, 1]
PSNR_CAP = 200.0  # dB; what identical arrays score, since JSON has no infinity


@dataclass(frozen=True)
class EngineParity:
    """One engine at one precision against PyTorch, over all inputs."""

    backend: str  # "onnxruntime" or "openvino"
    version: str
    precision: str  # "fp32" or "bf16"
    device: str
    max_abs_error: float  # on the [-1, 1] scale; NaN where either side is not finite
    psnr_db: float  # against a peak of 2, at most 200; NaN where either side is not finite

    @property
    def key(self) -> str:
        """Its name in the metadata: "onnxruntime", "openvino", "openvino-bf16"."""
        return self.backend if self.precision == "fp32" else f"{self.backend}-{self.precision}"

    def as_metadata(self) -> dict[str, Any]:
        record: dict[str, Any] = {"version": self.version, "device": self.device}
        if math.isfinite(self.max_abs_error):  # JSON has no NaN
            record["max_abs_error"] = float(f"{self.max_abs_error:.2g}")
            record["psnr_db"] = round(self.psnr_db, 1)
        return record


@dataclass(frozen=True)
class ParityReport:
    """Every engine that was asked, and what against."""

    against: str  # e.g. "PyTorch 2.13.0 fp32"
    batches: tuple[int, ...]
    engines: tuple[EngineParity, ...]

    @property
    def slices(self) -> int:
        return sum(self.batches)

    @property
    def worst(self) -> EngineParity:
        """The fp32 engine furthest away; NaN is further than any number."""
        fp32 = [e for e in self.engines if e.precision == "fp32"]
        return max(fp32, key=lambda e: math.inf if math.isnan(e.max_abs_error) else e.max_abs_error)

    @property
    def max_abs_error(self) -> float:
        return self.worst.max_abs_error

    def as_metadata(self, tolerance: float) -> dict[str, Any]:
        """The `parity` part of the model file's metadata, in as many digits as mean something, so
        that exporting a checkpoint twice gives the same bytes."""
        return {
            "max_abs_error": float(f"{self.max_abs_error:.2g}"),
            "tolerance": tolerance,
            "slices": self.slices,
            "batches": list(self.batches),
            "against": self.against,
            **{engine.key: engine.as_metadata() for engine in self.engines},
        }


def difference(expected: Sequence[Float32], got: Sequence[Float32]) -> tuple[float, float]:
    """(max absolute error, PSNR in dB against a peak of 2) over lists of equally shaped arrays."""
    worst, squares, count = 0.0, 0.0, 0
    for left, right in zip(expected, got, strict=True):
        if left.shape != right.shape:
            raise ValueError(f"difference: shapes {left.shape} and {right.shape} differ")
        delta = left.astype(np.float64) - right.astype(np.float64)
        if not np.isfinite(delta).all():
            return math.nan, math.nan
        worst = max(worst, float(np.abs(delta).max()))
        squares += float(np.square(delta).sum())
        count += delta.size
    if squares == 0.0:
        return worst, PSNR_CAP
    return worst, min(PSNR_CAP, 10 * math.log10(PEAK**2 * count / squares))


def random_inputs(
    task: str, item_shape: tuple[int, ...], batches: Sequence[int], seed: int
) -> list[Float32]:
    """One float32 array [batch, *item_shape] a batch size: latents are standard normal, slices
    uniform in [-1, 1]."""
    rng = np.random.default_rng(seed)
    if task == "sample":
        return [rng.standard_normal((n, *item_shape), dtype=np.float32) for n in batches]
    return [rng.random((n, *item_shape), dtype=np.float32) * 2 - 1 for n in batches]


def check_parity(
    model: bytes, inputs: Sequence[Float32], expected: Sequence[Float32], against: str
) -> ParityReport:
    """Runs `inputs` through ONNX Runtime and OpenVINO in fp32, and through OpenVINO in bf16 where
    it computes any of the graph so here; compares each with `expected`, PyTorch's outputs.

    model: the serialised .onnx with one input and one output.
    Raises MissingDependency where an engine is not installed; judging is the caller's.
    """
    engines = [_onnxruntime(model, inputs, expected), *_openvino(model, inputs, expected)]
    return ParityReport(against, tuple(len(x) for x in inputs), tuple(engines))


def _onnxruntime(
    model: bytes, inputs: Sequence[Float32], expected: Sequence[Float32]
) -> EngineParity:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("onnxruntime", "export", "the parity check") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    got = [session.run(None, {name: x})[0] for x in inputs]
    return EngineParity(
        "onnxruntime", onnxruntime.__version__, "fp32", "CPU", *difference(expected, got)
    )


def _openvino(
    model: bytes, inputs: Sequence[Float32], expected: Sequence[Float32]
) -> list[EngineParity]:
    import openvino

    core = the_core()
    graph = core.read_model(model)
    version = openvino.__version__.split("-")[0]
    # Left alone, OpenVINO takes bf16 by itself where the CPU has it: the precision is always named.
    precisions = {"fp32": "f32"}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        precisions["bf16"] = "bf16"
    results = []
    for precision, hint in precisions.items():
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        if precision == "bf16" and not runs_bf16(compiled):
            continue  # a figure for bf16 would be one for fp32
        got = [np.array(compiled(x)[0], dtype=np.float32) for x in inputs]
        results.append(
            EngineParity("openvino", version, precision, "CPU", *difference(expected, got))
        )
    return results
