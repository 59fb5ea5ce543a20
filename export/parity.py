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

from fastmrigan.errors import MissingDependency, UsageError
from fastmrigan.runtime.backends.openvino import TYPED, runs_in, the_core

Float32 = npt.NDArray[np.float32]

PEAK = 2.0  # slices span [-1, 1]
PSNR_CAP = 200.0  # dB; what identical arrays score, since JSON has no infinity
NOT_FINITE_DB = -PSNR_CAP  # what metadata state of outputs that are not finite: JSON has no NaN


@dataclass(frozen=True)
class EngineParity:
    """One engine at one precision against PyTorch, over all inputs."""

    backend: str  # "onnxruntime" or "openvino"
    version: str
    precision: str  # that it computed in: "fp32", "bf16", "fp16" or "int8"
    device: str
    max_abs_error: float  # on the [-1, 1] scale; NaN where either side is not finite
    psnr_db: float  # against a peak of 2, at most 200; NaN where either side is not finite
    ssim: float | None = None  # mean over the slices, where it was asked for

    @property
    def key(self) -> str:
        """Its name in the metadata: "onnxruntime", "openvino", "openvino-bf16", …"""
        return self.backend if self.precision == "fp32" else f"{self.backend}-{self.precision}"

    def as_metadata(self) -> dict[str, Any]:
        record: dict[str, Any] = {"version": self.version, "device": self.device}
        if not math.isfinite(self.max_abs_error):
            record["psnr_db"] = NOT_FINITE_DB
        else:
            record["max_abs_error"] = float(f"{self.max_abs_error:.2g}")
            record["psnr_db"] = round(self.psnr_db, 1)
            if self.ssim is not None:
                record["ssim"] = round(self.ssim, 4)
        return record


@dataclass(frozen=True)
class ParityReport:
    """Every engine that was asked, and what against."""

    against: str  # e.g. "PyTorch 2.13.0 fp32"
    batches: tuple[int, ...]
    engines: tuple[EngineParity, ...]
    precision: str = "fp32"  # that the graph is typed in
    dataset: str | None = None  # fingerprint of the prepared dataset whose slices went in

    @property
    def kind(self) -> str:
        return "random slices" if self.dataset is None else "real slices"

    @property
    def exact(self) -> bool:
        """Whether engines must agree to a tolerance, which real slices take even fp32 beyond."""
        return self.precision == "fp32" and self.dataset is None

    @property
    def judged(self) -> list[EngineParity]:
        """The engines that computed the graph as it is typed."""
        return [engine for engine in self.engines if engine.precision == self.precision]

    @property
    def slices(self) -> int:
        return sum(self.batches)

    @property
    def worst(self) -> EngineParity:
        """The judged engine furthest away; NaN is further than any number."""
        if self.exact:
            return max(self.judged, key=lambda e: _or(e.max_abs_error, math.inf))
        return min(self.judged, key=lambda e: _or(e.psnr_db, -math.inf))

    @property
    def max_abs_error(self) -> float:
        return self.worst.max_abs_error

    def as_metadata(self, limits: dict[str, float]) -> dict[str, Any]:
        """The `parity` part of the model file's metadata, in as many digits as mean something, so
        that exporting a checkpoint twice gives the same bytes. limits: what it was held to."""
        return {
            "max_abs_error": float(f"{self.max_abs_error:.2g}"),
            **limits,
            "slices": self.slices,
            "batches": list(self.batches),
            "against": self.against,
            **({} if self.dataset is None else {"dataset": self.dataset}),
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
    model: bytes,
    inputs: Sequence[Float32],
    expected: Sequence[Float32],
    against: str,
    *,
    precision: str = "fp32",
    dataset: str | None = None,
) -> ParityReport:
    """Runs `inputs` through ONNX Runtime and OpenVINO and compares with `expected`, PyTorch's
    outputs.

    model: the serialised .onnx with one input and one output, typed in `precision`. An fp32 graph
    runs through OpenVINO in bf16 too, where it computes any of the graph so here. A typed graph
    runs through the engines that compute it as it is typed: bf16 through OpenVINO alone, fp16 and
    int8 through both, OpenVINO where the processor has the type. SSIM comes with int8.
    Raises MissingDependency where an engine is not installed, UsageError where none of them
    computes in `precision` on this processor; judging is the caller's.
    """
    runs = [_onnxruntime(model, inputs, precision), *_openvino(model, inputs, precision)]
    engines = []
    for backend, version, computed, got in (run for run in runs if run is not None):
        scores = difference(expected, got)
        ssim = mean_ssim(expected, got) if precision == "int8" else None
        engines.append(EngineParity(backend, version, computed, "CPU", *scores, ssim))
    if not engines:
        raise UsageError(
            f"--precision {precision}: no engine here computes in {precision} on this processor, "
            "so the file could not be checked; export it on one that has the type"
        )
    batches = tuple(len(x) for x in inputs)
    return ParityReport(against, batches, tuple(engines), precision, dataset)


def mean_ssim(expected: Sequence[Float32], got: Sequence[Float32]) -> float:
    """The mean over all slices [N, 1, H, W]; NaN where either side is not finite."""
    from fastmrigan.metrics.similarity import compare

    pairs = zip(expected, got, strict=True)
    scores = [compare(left[:, 0], right[:, 0]).ssim for left, right in pairs]
    return float(np.concatenate(scores).mean())


Run = tuple[str, str, str, list[Float32]]  # backend, version, precision computed in, outputs


def _onnxruntime(model: bytes, inputs: Sequence[Float32], precision: str) -> Run | None:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("onnxruntime", "export", "the parity check") from error
    if precision == "bf16":
        return None  # its CPU provider has no kernels for it
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    got = [session.run(None, {name: x})[0] for x in inputs]
    return "onnxruntime", onnxruntime.__version__, precision, got


def _openvino(model: bytes, inputs: Sequence[Float32], precision: str) -> list[Run]:
    import openvino

    core = the_core()
    graph = core.read_model(model)
    version = openvino.__version__.split("-")[0]
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    # Left alone, OpenVINO takes bf16 by itself where the CPU has it: the precision is always named.
    asked = (
        {"fp32": "f32", "bf16": "bf16"} if precision == "fp32" else {precision: TYPED[precision]}
    )
    runs = []
    for computed, hint in asked.items():
        if computed.upper() not in able:
            continue
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        if computed != "fp32" and not runs_in(compiled, computed):
            continue  # a figure for bf16 would be one for fp32
        got = [np.array(compiled(x)[0], dtype=np.float32) for x in inputs]
        runs.append(("openvino", version, computed, got))
    return runs


def _or(value: float, instead: float) -> float:
    """`value`, or something else for NaN."""
    return instead if math.isnan(value) else value
