"""Inference engines, one small class each.

A backend is chosen by name; `auto` takes the first of AUTO that is installed and says so, and for
an engine file TensorRT, which alone runs it. Nothing falls back in silence: a backend that was
asked for and cannot run is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar

from fastmrigan.errors import FastMriganError, MissingDependency, ModelRefused, UsageError
from fastmrigan.runtime.backends.base import Backend, BackendOptions, GraphFile, reason
from fastmrigan.runtime.engine_file import EngineFile, check_package

__all__ = [
    "AUTO",
    "BACKENDS",
    "Backend",
    "BackendOptions",
    "check_meant",
    "choose",
    "installed",
    "open_backend",
]


class Backends(Mapping[str, type[Backend]]):
    """Each backend's class by its name; its module is imported when it is first asked for, since
    a process that needs one slice soon has no time for the others."""

    PLACES: ClassVar[dict[str, tuple[str, str]]] = {  # module and class
        "openvino": ("openvino", "OpenVINOBackend"),
        "onnxruntime": ("onnxruntime", "OnnxRuntimeBackend"),
        "onnxruntime-cuda": ("onnxruntime", "OnnxRuntimeCudaBackend"),
        "tensorrt": ("tensorrt", "TensorRTBackend"),
    }

    def __getitem__(self, name: str) -> type[Backend]:
        module, cls = self.PLACES[name]
        found: type[Backend] = getattr(import_module(f"{__name__}.{module}"), cls)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.PLACES

    def __iter__(self) -> Iterator[str]:
        return iter(self.PLACES)

    def __len__(self) -> int:
        return len(self.PLACES)


BACKENDS = Backends()
AUTO = ("openvino", "onnxruntime")


def installed(name: str) -> bool:
    """True where the backend's package is installed."""
    return find_spec(BACKENDS[name].package) is not None


def choose(name: str, model: GraphFile | None = None) -> tuple[str, str]:
    """The backend that `name` means for a model or an engine file, and why, in a few words."""
    why = "asked for"
    check_meant(name, model)  # before anybody installs a package that would not run it
    if isinstance(model, EngineFile) and name == "auto":
        name, why = "tensorrt", "auto: an engine file runs on nothing else"
    if name != "auto":
        if not installed(name):
            cls = BACKENDS[name]
            raise MissingDependency(cls.package, cls.extra, f"backend {name}")
        return name, why
    for candidate in AUTO:
        if installed(candidate):
            return candidate, f"auto: the first of {', '.join(AUTO)} that is installed"
    raise MissingDependency("openvino", "ort", "generating slices")


def check_meant(name: str, model: GraphFile | None = None) -> None:
    """As much of `choose` as asks for no package on this machine. Raises UsageError for an unknown
    name, ModelRefused for an engine file that no machine runs."""
    if isinstance(model, EngineFile):
        check_package(model)
    if name != "auto" and name not in BACKENDS:
        known = ", ".join(("auto", *BACKENDS))
        raise UsageError(f"backend {name!r}: unknown; choose one of {known}")


def open_backend(model: GraphFile, name: str, options: BackendOptions) -> Backend:
    """Compiles a model file, or a plain graph, on the backend `name` (never `auto`: see `choose`);
    loads an engine file.

    Raises UsageError for options it does not offer, and for a file of a kind or typed in what it
    cannot run; ModelRefused where the engine says no.
    """
    if isinstance(model, EngineFile) and name != "tensorrt":
        raise UsageError(
            f"backend {name}: runs model files, and {model.path} is an engine; take auto or "
            "tensorrt, or the model file that it was built from"
        )
    if name != "tensorrt" and model.precision != "fp32":  # an engine's types are checked with it
        check_typed(model, name, options.precision)
    try:
        return BACKENDS[name](model, options)
    except FastMriganError:
        raise
    except Exception as error:  # engines raise their own kinds, down to UnicodeDecodeError
        raise ModelRefused(f"{model.path}: {name} refuses the graph: {reason(error)}") from error


def check_typed(model: GraphFile, name: str, asked: str) -> None:
    """Raises UsageError where a typed file is asked for in another precision, or of a backend that
    cannot run it."""
    if asked not in ("auto", model.precision):
        raise UsageError(
            f"precision {asked!r}: {model.path} is typed in {model.precision} and runs in nothing "
            f"else; take auto, or export it with --precision {asked}"
        )
    if model.precision not in BACKENDS[name].typed:
        able = [other for other, cls in BACKENDS.items() if model.precision in cls.typed]
        raise UsageError(
            f"backend {name}: cannot run {model.path}, which is typed in {model.precision}; take "
            f"{' or '.join(able)}, or export it with --precision fp32"
        )
