"""ONNX Runtime, on the CPU or through its CUDA provider."""

from __future__ import annotations

import os
from collections import Counter
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from fastmrigan.errors import UsageError
from fastmrigan.runtime.backends.base import Backend, BackendOptions, Float32, GraphFile
from fastmrigan.runtime.machine import processor

RECORD_NODES = "session.record_ep_graph_assignment_info"  # ONNX Runtime 1.24 and later


class OnnxRuntimeBackend(Backend):
    """One session on the CPU provider."""

    name = "onnxruntime"
    package = "onnxruntime"
    extra = "ort"
    precisions = ("fp32",)
    typed: ClassVar[tuple[str, ...]] = ("fp16", "int8")  # it has no bf16 kernels on a CPU
    provider = "CPUExecutionProvider"
    why_typed: ClassVar[dict[str, str]] = {
        "fp16": "as the file is typed; its values are fp16, the arithmetic on them is fp32",
        "int8": "as the file is typed",
    }

    def __init__(self, model: GraphFile, options: BackendOptions) -> None:
        import onnxruntime as ort

        if model.precision == "fp32" and options.precision not in ("auto", *self.precisions):
            raise UsageError(f"precision {options.precision!r}: {self.name} offers auto, fp32")
        if self.provider not in ort.get_available_providers():
            raise UsageError(missing_provider(self.provider))
        settings = ort.SessionOptions()
        self.threads = options.threads or len(os.sched_getaffinity(0))
        settings.intra_op_num_threads = self.threads
        settings.log_severity_level = 4  # its errors come as exceptions
        settings.add_session_config_entry(RECORD_NODES, "1")
        self._session: Any = ort.InferenceSession(model.data, settings, providers=[self.provider])
        self._session.disable_fallback()
        if self._session.get_providers()[0] != self.provider:
            raise UsageError(
                f"backend {self.name}: ONNX Runtime could not start {self.provider}; check the "
                "driver and the CUDA libraries it needs"
            )
        self.nodes = nodes_per_provider(self._session)
        if self.nodes and not self.nodes[self.provider]:
            raise UsageError(
                f"backend {self.name}: ONNX Runtime runs no node of {model.path} on {self.provider}"
                "; take another backend"
            )
        self.version = ort.__version__
        self.device = self.device_name()
        self.precision = model.precision
        if self.precision != "fp32":
            self.why_precision = self.why_typed[self.precision]
        self._input: str = self._session.get_inputs()[0].name

    def device_name(self) -> str:
        return processor()

    def describe(self) -> dict[str, str | int]:
        told = ", ".join(f"{provider} {count}" for provider, count in sorted(self.nodes.items()))
        return {**super().describe(), **({"nodes": told} if told else {})}

    def run(self, x: Float32) -> Float32:
        return np.asarray(self._session.run(None, {self._input: x})[0])


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """One session on the CUDA provider: not run yet."""

    name = "onnxruntime-cuda"
    extra = "gpu"
    provider = "CUDAExecutionProvider"
    why_typed: ClassVar[dict[str, str]] = dict.fromkeys(("fp16", "int8"), "as the file is typed")

    def device_name(self) -> str:
        return "CUDA device 0"


def nodes_per_provider(session: Any) -> Counter[str]:
    """How many nodes of the graph each provider runs; empty before ONNX Runtime 1.24, which does
    not tell. With CUDA, the CPU may have some: ONNX Runtime computes shapes there."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return Counter()
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return nodes


def missing_provider(provider: str) -> str:
    """Why the installed onnxruntime lacks a provider, and what to do."""
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    have = " and ".join(f"{name} {_version(name)}" for name in found) or "no known package"
    if len(found) == 2:
        return (
            f"{provider}: both {have} are installed into the one module onnxruntime, and the CPU "
            "package shadows the GPU package: pip uninstall onnxruntime onnxruntime-gpu, then "
            "pip install 'fastmrigan[gpu]'"
        )
    return (
        f"{provider}: the installed {have} lacks it, and installing onnxruntime-gpu beside it "
        "would be shadowed: pip uninstall onnxruntime, then pip install 'fastmrigan[gpu]'"
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
