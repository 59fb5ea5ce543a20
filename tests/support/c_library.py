"""libfastmrigan through ctypes, built where cmake and a compiler are."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SANITIZERS = {
    "plain": "",
    "address": "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer",
    "thread": "-fsanitize=thread -fno-omit-frame-pointer",
}
FLOAT32, INT16, UINT16 = 1, 2, 3
SCALE_MODEL, SCALE_RANGE = 1, 2
TYPES = {np.dtype("f4"): FLOAT32, np.dtype("i2"): INT16, np.dtype("u2"): UINT16}


def openvino_folder() -> Path:
    spec = importlib.util.find_spec("openvino")
    if spec is None or spec.origin is None:
        pytest.skip("no openvino package: its wheel brings the headers and the library")
    return Path(spec.origin).parent


def openvino_library() -> Path:
    return next((openvino_folder() / "libs").glob("libopenvino_c.so*"))


def onnxruntime_library() -> Path:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        pytest.skip("no onnxruntime package: its wheel brings the library")
    return next((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*"))


LIBRARIES = {"openvino": openvino_library, "onnxruntime": onnxruntime_library}


def built_with(folder: Path, backend: str) -> bool:
    """True where the build in `folder` found the headers of onnxruntime or tensorrt."""
    if backend == "openvino":
        return True
    pattern = rf"^{backend.upper()}_INCLUDE_DIR:\w+=(?!OFF$)(?!.*-NOTFOUND$)."
    cache = (folder / "CMakeCache.txt").read_text()
    return re.search(pattern, cache, re.MULTILINE) is not None


def need_backend(folder: Path, backend: str) -> None:
    if not built_with(folder, backend):
        pytest.skip(f"no C header of {backend}: {backend.upper()}_INCLUDE_DIR names its folder")


def cmake(*arguments: object) -> None:
    program = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None or shutil.which("c++") is None or shutil.which("cc") is None:
        pytest.skip("no cmake, or no compiler: needed to build libfastmrigan")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def build(folder: Path, sanitizer: str = "plain") -> Path:
    """Configures and builds the library and its C tests; gives the folder back.

    Headers of other backends are where CMake finds them, or ONNXRUNTIME_INCLUDE_DIR and
    TENSORRT_INCLUDE_DIR of the environment say.
    """
    names = ("ONNXRUNTIME_INCLUDE_DIR", "TENSORRT_INCLUDE_DIR")
    cmake(
        *("-S", ROOT, "-B", folder, "-DFASTMRIGAN_C_API=ON", "-DFASTMRIGAN_TESTS=ON"),
        f"-DCMAKE_BUILD_TYPE={'Release' if sanitizer == 'plain' else 'RelWithDebInfo'}",
        f"-DCMAKE_C_FLAGS={SANITIZERS[sanitizer]}",
        f"-DCMAKE_CXX_FLAGS={SANITIZERS[sanitizer]}",
        f"-DOPENVINO_INCLUDE_DIR={openvino_folder() / 'include'}",
        *(f"-D{name}={os.environ[name]}" for name in names if os.environ.get(name)),
    )
    cmake("--build", folder, "-j", len(os.sched_getaffinity(0)))
    return folder


class Options(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("backend", ctypes.c_char_p),
        ("library", ctypes.c_char_p),
        ("precision", ctypes.c_char_p),
        ("threads", ctypes.c_int32),
        ("batch", ctypes.c_int32),
    )


class Info(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        *((name, ctypes.c_int32) for name in ("task", "height", "width", "latent_size")),
        *((name, ctypes.c_int32) for name in ("batch", "threads")),
        *((name, ctypes.c_char_p) for name in ("backend", "backend_version", "device")),
        *((name, ctypes.c_char_p) for name in ("precision", "why_precision", "recipe")),
        *((name, ctypes.c_char_p) for name in ("source_contrast", "target_contrast")),
        ("graph_sha256", ctypes.c_char_p),
    )


class Slices(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("scale", ctypes.c_int32),
        ("low", ctypes.c_double),
        ("high", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("slice_stride", "row_stride", "pixel_stride")),
    )


class Call(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("deadline_us", ctypes.c_int64),
        ("cancel", ctypes.POINTER(ctypes.c_int)),
    )


class Failed(Exception):
    """A code other than FMG_OK, and the library's text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def slices(x: np.ndarray, scale: tuple[float, float] | None = None) -> Slices:
    """x [N, H, W] or [N, latent] as fmg_slices, with its own strides."""
    strides = x.strides if x.ndim == 3 else (x.strides[0], 0, x.strides[1])
    low, high = scale or (0, 0)
    kind = SCALE_RANGE if scale else SCALE_MODEL
    size = ctypes.sizeof(Slices)
    return Slices(size, x.ctypes.data, TYPES[x.dtype], kind, low, high, *strides)


class Library:
    """The shared library in a build folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lib = ctypes.CDLL(str(folder / "csrc" / "capi" / "libfastmrigan.so"))
        self.lib.fmg_last_error.restype = ctypes.c_char_p
        self.lib.fmg_version.restype = ctypes.c_char_p

    def check(self, code: int) -> None:
        if code:
            raise Failed(code, self.lib.fmg_last_error().decode())

    def options(self, backend: str = "openvino", **options: Any) -> Options:
        """options: fields of fmg_options; the library is that of the backend's package."""
        if "library" not in options:
            options["library"] = str(LIBRARIES[backend]())
        given = Options()
        self.lib.fmg_options_init(ctypes.byref(given))
        for name, value in ({"backend": backend} | options).items():
            setattr(given, name, value.encode() if isinstance(value, str) else value)
        return given

    def open(self, path: Path, backend: str = "openvino", **options: Any) -> Engine:
        given = self.options(backend, **options)
        engine = ctypes.c_void_p()
        name = str(path).encode()
        self.check(self.lib.fmg_open(name, ctypes.byref(given), ctypes.byref(engine)))
        return Engine(self, engine)


class Engine:
    """An opened fmg_engine."""

    def __init__(self, library: Library, engine: ctypes.c_void_p) -> None:
        self.library, self.lib, self.engine = library, library.lib, engine

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.lib.fmg_close(self.engine)

    def info(self) -> Info:
        info = Info(ctypes.sizeof(Info))
        self.library.check(self.lib.fmg_get_info(self.engine, ctypes.byref(info)))
        return info

    def run(self, x: np.ndarray) -> np.ndarray:
        """fmg_run: x float32 [N, H, W] or [N, latent] in C order; float32 [N, H, W]."""
        info = self.info()
        y = np.empty((len(x), info.height, info.width), np.float32)
        pointers = ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data)
        n = ctypes.c_int64(len(x))
        self.library.check(self.lib.fmg_run(self.engine, pointers[0], n, pointers[1]))
        return y

    def run_slices(self, x: Slices, n: int, y: Slices, call: Call | None = None) -> None:
        reference = ctypes.byref(call) if call is not None else None
        code = self.lib.fmg_run_slices(
            self.engine, ctypes.byref(x), ctypes.c_int64(n), ctypes.byref(y), reference
        )
        self.library.check(code)

    def measure(self, x: np.ndarray) -> tuple[float, float]:
        low, high = ctypes.c_double(), ctypes.c_double()
        given, n = slices(x), ctypes.c_int64(len(x))
        self.library.check(
            self.lib.fmg_measure(
                self.engine, ctypes.byref(given), n, ctypes.byref(low), ctypes.byref(high)
            )
        )
        return low.value, high.value
