"""Inference engines, one small class each.

A backend is chosen by name; `auto` takes the first of AUTO that is installed and says so. Nothing
falls back in silence: a backend that was asked for and cannot run is an error.
"""

from __future__ import annotations

from importlib.util import find_spec

from fastmrigan.errors import FastMriganError, MissingDependency, ModelRefused, UsageError
from fastmrigan.runtime.backends.base import Backend, BackendOptions, GraphFile, reason
from fastmrigan.runtime.backends.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeCudaBackend
from fastmrigan.runtime.backends.openvino import OpenVINOBackend

__all__ = ["AUTO", "BACKENDS", "Backend", "BackendOptions", "choose", "installed", "open_backend"]

BACKENDS: dict[str, type[Backend]] = {
    "openvino": OpenVINOBackend,
    "onnxruntime": OnnxRuntimeBackend,
    "onnxruntime-cuda": OnnxRuntimeCudaBackend,
}
AUTO = ("openvino", "onnxruntime")


def installed(name: str) -> bool:
    """True where the backend's package is installed."""
    return find_spec(BACKENDS[name].package) is not None


def choose(name: str) -> tuple[str, str]:
    """The backend that `name` means, and the reason in a few words."""
    if name != "auto":
        if name not in BACKENDS:
            known = ", ".join(("auto", *BACKENDS))
            raise UsageError(f"backend {name!r}: unknown; choose one of {known}")
        if not installed(name):
            cls = BACKENDS[name]
            raise MissingDependency(cls.package, cls.extra, f"backend {name}")
        return name, "asked for"
    for candidate in AUTO:
        if installed(candidate):
            return candidate, f"auto: the first of {', '.join(AUTO)} that is installed"
    raise MissingDependency("openvino", "ort", "generating slices")


def open_backend(model: GraphFile, name: str, options: BackendOptions) -> Backend:
    """Compiles a model file, or a plain graph, on the backend `name` (never `auto`: see `choose`).

    Raises UsageError for options it does not offer, ModelRefused where the engine says no.
    """
    try:
        return BACKENDS[name](model, options)
    except FastMriganError:
        raise
    except Exception as error:  # engines raise their own kinds, down to UnicodeDecodeError
        raise ModelRefused(f"{model.path}: {name} refuses the graph: {reason(error)}") from error
