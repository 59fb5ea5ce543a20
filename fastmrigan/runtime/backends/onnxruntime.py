"""ONNX Runtime, on the CPU or through its CUDA provider."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from fastmrigan.errors import UsageError
from fastmrigan.runtime.backends.base import Backend, BackendOptions, Float32, GraphFile
from fastmrigan.runtime.machine import processor, usable_cores


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
        self.mode = options.mode
        self.streams, each = self._share_out(options)
        self.threads = self.streams * each
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = each
        settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        settings.log_severity_level = 4  # its errors come as exceptions
        if self.streams > 1:  # a thread that spins takes a core from another stream
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        cores = sorted(os.sched_getaffinity(0))
        self.pinning = bool(options.pinning) and self.streams == 1 and 1 < each <= len(cores)
        if self.pinning:  # all but the caller's thread; it counts cores from 1
            apart = ";".join(str(core + 1) for core in cores[1:each])
            settings.add_session_config_entry("session.intra_op_thread_affinities", apart)
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._session: Any = ort.InferenceSession(model.data, settings, providers=[self.provider])
        self._session.disable_fallback()
        if self._session.get_providers()[0] != self.provider:
            raise UsageError(
                f"backend {self.name}: ONNX Runtime could not start {self.provider}; check the "
                "driver and the CUDA libraries it needs"
            )
        nodes = self.nodes()
        if nodes and self.provider not in nodes:
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
        # A session is shared by threads: each that calls it is one of its `each` threads
        self._callers = ThreadPoolExecutor(self.streams, self.name) if self.streams > 1 else None

    def _share_out(self, options: BackendOptions) -> tuple[int, int]:
        """Streams, and threads of each."""
        return options.shared_out(options.threads or usable_cores())

    def device_name(self) -> str:
        return processor()

    def run(self, x: Float32) -> Float32:
        return np.asarray(self._session.run(None, {self._input: x})[0])

    def start(self, x: Float32) -> Callable[[], Float32]:
        if self._callers is None:
            return super().start(x)
        return self._callers.submit(self.run, x).result

    def nodes(self) -> dict[str, int]:
        if not hasattr(self._session, "get_provider_graph_assignment_info"):  # before 1.24
            return {}
        found: Counter[str] = Counter()
        for part in self._session.get_provider_graph_assignment_info():
            found[part.ep_name] += len(part.get_nodes())
        return dict(found)


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """One session on the CUDA provider: not run yet."""

    name = "onnxruntime-cuda"
    extra = "gpu"
    provider = "CUDAExecutionProvider"
    why_typed: ClassVar[dict[str, str]] = dict.fromkeys(("fp16", "int8"), "as the file is typed")

    def _share_out(self, options: BackendOptions) -> tuple[int, int]:
        return 1, options.threads or usable_cores()  # the device is one: modes are the CPU's

    def device_name(self) -> str:
        return "CUDA device 0"


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
