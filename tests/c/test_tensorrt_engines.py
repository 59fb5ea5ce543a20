"""The C library's TensorRT backend up to where an engine would be deserialised: every refusal, and
that a machine without a driver is told so. No engine is run."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from c_library import Failed, Library, need_backend
from c_library_models import with_metadata

from fastmrigan.export.tensorrt import EngineOptions, sidecar
from fastmrigan.runtime.engine_file import SEAL, rendered, sidecar_path
from fastmrigan.runtime.model_file import read_model_file

pytestmark = pytest.mark.slow

ERROR_OPTIONS, ERROR_FILE, ERROR_MODEL, ERROR_BACKEND_MISSING = 2, 3, 4, 5
PIECE = 1 << 18  # bytes that the library sums at once
# No engine, but whole by its sidecar; of three pieces, and its last word is filled up.
DATA = np.random.default_rng(0).bytes(2 * PIECE + 5003)


@pytest.fixture
def tensorrt(library: Library) -> Library:
    need_backend(library.folder, "tensorrt")
    return library


def write_engine(
    folder: Path, version: str = "11.5.2.9", compute: str = "9.0", data: bytes = DATA
) -> Path:
    """`data` as tiny.engine, with the sidecar that `fastmrigan export` writes."""
    model = folder / "tiny.onnx"
    model.write_bytes(with_metadata(tiny_model.tiny_graph(), tiny_model.metadata()))
    path = folder / "tiny.engine"
    path.write_bytes(data)
    told = {"version": version, "compute": compute}
    document = sidecar(read_model_file(model), data, EngineOptions(buckets=(1, 4)), told)
    sidecar_path(path).write_bytes(rendered(document))
    for each in (path, sidecar_path(path)):
        each.chmod(0o600)
    return path


def change(path: Path, **changes: object) -> None:
    """Fields of the sidecar; None takes one away."""
    document = json.loads(sidecar_path(path).read_text()) | changes
    kept = {name: value for name, value in document.items() if value is not None}
    kept.pop(SEAL)
    sidecar_path(path).write_bytes(rendered(kept))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "other"}, r"tiny\.engine\.json: wrong at kind: no engine of ours"),
        ({"schema_version": 2}, "wrong at schema_version: this fastmrigan knows 1"),
        ({"schema_version": None}, "wrong at schema_version: expected a number"),
        ({"schema_version": 1.5}, "wrong at schema_version: expected a whole number"),
        (
            {"size": len(DATA) - 1},
            rf"tiny\.engine: has more than the {len(DATA) - 1} bytes that its sidecar states: ",
        ),
        ({"size": len(DATA) + 1}, rf"tiny\.engine: has less than the {len(DATA) + 1} bytes that"),
        ({"size": -1}, "wrong at size: expected a whole number"),
        ({"size": 2**64}, "wrong at size: expected a whole number"),
        ({"size": None}, "wrong at size: expected a number"),
        (
            {"engine_sum64": "0" * 16},
            r"tiny\.engine: is not the engine that was built \(sum64 [0-9a-f]{16}, "
            r"expected 0{16}\): damaged or altered; build it again",
        ),
        (
            {"engine_sum64": None},
            r"tiny\.engine\.json: wrong at engine_sum64: expected text; build the engine again",
        ),
        (
            {"engine_sha256": "0" * 64},
            r"tiny\.engine: is not the engine that was built \(sha256 [0-9a-f]{16}, "
            r"expected 0{16}\): damaged or altered; build it again",
        ),
        ({"engine_sha256": None}, "wrong at engine_sha256: expected text"),
        ({"package": "tensorrt_rtx"}, "was built by tensorrt_rtx, whose engines TensorRT does not"),
        ({"model": None}, "wrong at model: missing"),
        ({"model": {"task": "dream"}}, "wrong at task: expected sample or translate"),
        ({"precision": "fp16"}, "wrong at precision: its model is in fp32"),
        ({"buckets": []}, "wrong at buckets: expected rising batch sizes"),
        ({"buckets": [4, 4]}, "wrong at buckets: expected rising batch sizes"),
        ({"buckets": [1, 1e9]}, "wrong at buckets: expected rising batch sizes"),
        ({"plugin": {"library": "x.so"}}, "needs the plugin it was built with"),
        ({"version_compatible": "no"}, "wrong at version_compatible: expected true or false"),
    ],
)
def test_what_does_not_fit_its_sidecar_is_refused(tensorrt, tmp_path, changes, text):
    path = write_engine(tmp_path)
    change(path, **changes)
    with pytest.raises(Failed, match=text) as failed:
        tensorrt.open(path, "tensorrt", library=None)
    assert failed.value.code == ERROR_MODEL


def test_no_sidecar_or_none_that_can_be_read_is_refused(tensorrt, tmp_path):
    path = write_engine(tmp_path)
    sidecar_path(path).write_text("{")
    with pytest.raises(Failed, match=r"tiny\.engine\.json: not JSON") as failed:
        tensorrt.open(path, "tensorrt", library=None)
    assert failed.value.code == ERROR_MODEL
    sidecar_path(path).unlink()
    with pytest.raises(Failed, match=r"\.json: cannot read the sidecar.*No such") as failed:
        tensorrt.open(path, "tensorrt", library=None)
    assert failed.value.code == ERROR_FILE


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda p: (p.unlink(), os.mkfifo(p, 0o600)), r"\.json: is no plain file"),
        (lambda p: (p.unlink(), p.mkdir(0o700)), r"\.json: is no plain file"),
        (lambda p: os.truncate(p, 2 << 20), r"\.json: is no engine's sidecar \(over 1 MiB\)"),
    ],
    ids=["pipe", "folder", "too long"],
)
def test_a_sidecar_that_is_no_file_of_its_size_is_refused(tensorrt, tmp_path, spoil, text):
    path = write_engine(tmp_path)
    spoil(sidecar_path(path))
    with pytest.raises(Failed, match=text) as failed:
        tensorrt.open(path, "tensorrt", library=None)
    assert failed.value.code == ERROR_MODEL


def test_no_engine_or_none_that_is_a_file_is_refused(tensorrt, tmp_path):
    path = write_engine(tmp_path)
    path.unlink()
    with pytest.raises(Failed, match=r"tiny\.engine: cannot read the engine file: No") as failed:
        tensorrt.open(path, "tensorrt", library=None)
    assert failed.value.code == ERROR_FILE
    for make in (lambda: os.mkfifo(path, 0o600), lambda: (path.unlink(), path.mkdir(0o700))):
        make()
        with pytest.raises(Failed, match=r"tiny\.engine: is no plain file; name an") as failed:
            tensorrt.open(path, "tensorrt", library=None)
        assert failed.value.code == ERROR_MODEL


def test_every_tampered_byte_is_refused_by_the_sum(tensorrt, tmp_path):
    path = write_engine(tmp_path)
    rng = np.random.default_rng(1)
    ends = [0, PIECE - 1, PIECE, 2 * PIECE - 1, 2 * PIECE, len(DATA) - 1]
    for place in [*ends, *rng.choice(len(DATA), 100 - len(ends), replace=False)]:
        damaged = bytearray(DATA)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with pytest.raises(Failed, match=r"tiny\.engine: is not .* built \(sum64 ") as failed:
            tensorrt.open(path, "tensorrt", library=None)
        assert failed.value.code == ERROR_MODEL


@pytest.mark.parametrize(
    "change",
    [
        lambda words: words[[PIECE // 8, 3]],  # they change places
        lambda words: words[[3, PIECE // 8]] + np.array([1, 2**64 - 1], np.uint64),
        lambda words: words[[3, PIECE // 8]] ^ np.uint64(1 << 63),
    ],
    ids=["swapped", "evened out", "top bits"],
)
def test_what_keeps_the_sum_is_refused_by_the_sha256(tensorrt, tmp_path, change):
    path = write_engine(tmp_path)
    damaged = bytearray(DATA)
    words = np.frombuffer(damaged, "<u8", count=len(damaged) // 8)
    words[[3, PIECE // 8]] = change(words)
    path.write_bytes(damaged)
    with pytest.raises(Failed, match=r"tiny\.engine: is not .* built \(sha256 ") as failed:
        tensorrt.open(path, "tensorrt", library=None)
    assert failed.value.code == ERROR_MODEL


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
def test_whole_engines_of_any_size_pass(tensorrt, tmp_path, size):
    """On stand-ins, of which libnvinfer's refuses to start: after every check."""
    programs = tensorrt.folder / "tests" / "c"
    major = ctypes.CDLL(str(programs / "libfake_nvinfer.so")).getInferLibMajorVersion()
    data = np.random.default_rng(size).bytes(size)
    path = write_engine(tmp_path, f"{major}.5.2.9", data=data)
    done = subprocess.run(
        [programs / "open_engine", "tensorrt", programs / "libfake_nvinfer.so", "1", path],
        env=os.environ | {"LD_LIBRARY_PATH": str(programs / "fake_driver")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.startswith("FMG_ERROR_BACKEND: backend tensorrt: cannot start: the fake")


def test_every_tampered_byte_of_the_sidecar_is_refused(tensorrt, tmp_path):
    path = write_engine(tmp_path)
    whole = sidecar_path(path).read_bytes()
    for place in np.random.default_rng(2).choice(len(whole), 100, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        sidecar_path(path).write_bytes(damaged)
        with pytest.raises(Failed, match=r"tiny\.engine\.json: ") as failed:
            tensorrt.open(path, "tensorrt", library=None)
        assert failed.value.code == ERROR_MODEL


@pytest.mark.parametrize("of", ["engine", "sidecar"])
def test_what_others_may_write_to_is_refused(tensorrt, tmp_path, of):
    path = write_engine(tmp_path)
    (path if of == "engine" else sidecar_path(path)).chmod(0o620)
    with pytest.raises(Failed, match="others may write to it") as failed:
        tensorrt.open(path, "tensorrt", library=None)
    assert failed.value.code == ERROR_MODEL


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch": 5}, "batch 5: the engine was built for batches of up to 4"),
        ({"precision": "bf16"}, "precision 'bf16': tensorrt offers auto, fp32"),
    ],
)
def test_options_that_the_engine_does_not_have(tensorrt, tmp_path, options, text):
    with pytest.raises(Failed, match=text) as failed:
        tensorrt.open(write_engine(tmp_path), "tensorrt", library=None, **options)
    assert failed.value.code == ERROR_OPTIONS


def test_an_engine_in_memory_has_no_sidecar(tensorrt):
    given, engine = tensorrt.options("tensorrt", library=None), ctypes.c_void_p()
    size = ctypes.c_size_t(len(DATA))
    code = tensorrt.lib.fmg_open_memory(DATA, size, ctypes.byref(given), ctypes.byref(engine))
    assert code == ERROR_OPTIONS
    assert b"use fmg_open" in tensorrt.lib.fmg_last_error()


def test_a_machine_without_a_driver_is_told_so(tensorrt, tmp_path):
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("a CUDA driver is here")
    text = r"the CUDA driver: cannot load its library \(libcuda\.so\.1: .*on an NVIDIA GPU alone"
    with pytest.raises(Failed, match=text) as failed:
        tensorrt.open(write_engine(tmp_path), "tensorrt", library=None)
    assert failed.value.code == ERROR_BACKEND_MISSING


@pytest.mark.parametrize(
    ("engine", "fake", "environment", "said"),
    [
        ({}, "nvinfer", {}, "FMG_ERROR_BACKEND: backend tensorrt: cannot start: the fake was told"),
        (
            {},
            "nvinfer",
            {"FAKE_CUDA_FAILS": "1"},
            "FMG_ERROR_BACKEND_MISSING: backend tensorrt: the CUDA driver gives no device: the",
        ),
        (
            {"compute": "8.9"},
            "nvinfer",
            {},
            "tiny.engine: was built for compute capability 8.9, and this GPU has 9.0; build it on",
        ),
        (
            {"version": "{major}.5.1.9"},
            "nvinfer",
            {},
            "tiny.engine: was built by TensorRT {major}.5.1.9, and this library is version {major}",
        ),
        (
            {},
            "old_nvinfer",
            {},
            "FMG_ERROR_BACKEND_VERSION: backend tensorrt: its library is version 8.5.2; take",
        ),
        ({}, "absent", {}, "FMG_ERROR_BACKEND_MISSING: backend tensorrt: cannot load its library"),
    ],
)
def test_the_machine_must_fit(tensorrt, tmp_path, engine, fake, environment, said):
    """On stand-ins for the driver and for libnvinfer."""
    programs = tensorrt.folder / "tests" / "c"
    major = ctypes.CDLL(str(programs / "libfake_nvinfer.so")).getInferLibMajorVersion()
    told = {"version": "{major}.5.2.9"} | engine
    path = write_engine(tmp_path, **{k: v.format(major=major) for k, v in told.items()})
    done = subprocess.run(
        [programs / "open_engine", "tensorrt", programs / f"libfake_{fake}.so", "1", path],
        env=os.environ | {"LD_LIBRARY_PATH": str(programs / "fake_driver")} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert said.format(major=major) in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(("version", "loads"), [("{major}.4.0.1", True), ("{major}.6.0.1", False)])
def test_a_version_compatible_engine_loads_in_later_versions(tensorrt, tmp_path, version, loads):
    programs = tensorrt.folder / "tests" / "c"
    major = ctypes.CDLL(str(programs / "libfake_nvinfer.so")).getInferLibMajorVersion()
    path = write_engine(tmp_path, version.format(major=major))
    change(path, version_compatible=True)
    done = subprocess.run(
        [programs / "open_engine", "tensorrt", programs / "libfake_nvinfer.so", "1", path],
        env=os.environ | {"LD_LIBRARY_PATH": str(programs / "fake_driver")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ("cannot start" if loads else "was built by TensorRT") in done.stdout
