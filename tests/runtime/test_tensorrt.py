"""The TensorRT backend against a stand-in for TensorRT and CUDA; no engine is run.

What a GPU does with these calls is not tested here: their order, sizes, addresses and errors are,
and that every check comes before the first of them.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from pathlib import Path

import fake_tensorrt
import numpy as np
import pytest
import tiny_model as tiny
from engine_files import COMPUTE, VERSION, write_engine

from fastmrigan.errors import MissingDependency, ModelRefused, UsageError
from fastmrigan.runtime import load
from fastmrigan.runtime.backends import choose, tensorrt, tensorrt_package
from fastmrigan.runtime.cuda_driver import CudaDevice, first_device
from fastmrigan.runtime.engine_file import read_model
from fastmrigan.runtime.latency import BenchOptions, usable_backends
from fastmrigan.runtime.latents import normal_latents

BUCKETS = (1, 4)


@pytest.fixture
def engine(write_model) -> Path:
    return write_engine(write_model(), buckets=BUCKETS)


@pytest.fixture
def world(monkeypatch) -> fake_tensorrt.World:
    return fake_tensorrt.install(monkeypatch, BUCKETS)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 7, 8, 9])
@pytest.mark.parametrize("count", [0, 1, 6, 10])
def test_samples_equal_numpy(engine, world, batch, count):
    slices = load(engine, batch=batch).sample(count, seed=7, first=3)
    expected = np.tanh(normal_latents(7, 3, count, tiny.LATENT) @ tiny.weights())
    assert slices.dtype == np.float32
    np.testing.assert_allclose(slices, expected.reshape(count, 16, 16), atol=1e-6)


@pytest.mark.parametrize(
    ("batch", "made", "launches"),
    [(1, {1}, 1), (2, {4}, 1), (4, {4}, 1), (5, {4, 1}, 2), (6, {4}, 2), (9, {4, 1}, 3)],
)
def test_a_batch_takes_the_next_bucket_and_the_largest_cuts_it(
    engine, world, batch, made, launches
):
    backend = load(engine, batch=batch).backend
    assert backend._buckets.keys() == made  # all of them when it is opened
    before = world.counted
    backend.run(normal_latents(0, 0, batch, tiny.LATENT))
    assert world.counted - before == {
        "cudaGraphLaunch": launches,
        "cudaStreamSynchronize": launches,
    }


def test_one_bucket_call_by_call(engine, world):
    generator = load(engine, batch=3)
    generator.sample(3)
    assert world.calls == [
        "cudaSetDevice",
        "cudaStreamCreateWithFlags",
        "deserialize_cuda_engine",
        "create_execution_context",
        "set_optimization_profile_async",
        "cudaMallocHost",
        "cudaMallocHost",
        "set_input_shape",
        "cudaMalloc",
        "cudaMalloc",
        "set_tensor_address",
        "set_tensor_address",
        *("cudaMemcpyAsync", "execute_async_v3", "cudaMemcpyAsync", "cudaStreamSynchronize"),
        "cudaStreamBeginCapture",
        *("cudaMemcpyAsync", "execute_async_v3", "cudaMemcpyAsync"),
        *("cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy"),
        *("cudaGraphLaunch", "cudaStreamSynchronize"),
    ]


def test_without_a_batch_the_engines_own_buckets_are_taken(engine, world):
    generator = load(engine)
    assert generator.buckets == BUCKETS
    assert generator.sample(6, seed=1).shape == (6, 16, 16)
    assert generator.backend._buckets.keys() == {1, 4}


def test_what_a_longer_batch_left_does_not_show(engine, world):
    backend = load(engine, batch=4).backend
    x = normal_latents(1, 0, 4, tiny.LATENT)
    kept = backend.run(x)
    copy = kept.copy()
    np.testing.assert_array_equal(backend.run(x[:2]), kept[:2])
    np.testing.assert_array_equal(backend._buckets[4].given[2:], 0)
    np.testing.assert_array_equal(kept, copy)  # a result outlives the next call
    assert backend.run(x[:0]).shape == (0, 1, 16, 16)


def test_a_bucket_of_a_later_call_is_made_once(engine, world):
    backend = load(engine, batch=4).backend
    x = normal_latents(1, 0, 1, tiny.LATENT)
    first = backend.run(x)
    assert world.counted["create_execution_context"] == 2
    np.testing.assert_array_equal(backend.run(x), first)
    assert world.counted["create_execution_context"] == 2
    assert world.counted["cudaMalloc"] == 4


def test_all_is_given_back(engine, world):
    generator = load(engine, batch=5)
    generator.sample(5)
    assert len(world.memory) == 8
    del generator
    gc.collect()
    assert world.nothing_left()


CALLS = [
    *(("cudaSetDevice", 1), ("cudaStreamCreateWithFlags", 1), ("cudaMallocHost", 1)),
    *(("cudaMallocHost", 2), ("cudaMalloc", 1), ("cudaMalloc", 2), ("cudaMemcpyAsync", 1)),
    *(("cudaMemcpyAsync", 2), ("cudaMemcpyAsync", 3), ("cudaMemcpyAsync", 4)),
    *(("cudaStreamSynchronize", 1), ("cudaStreamBeginCapture", 1), ("cudaStreamEndCapture", 1)),
    *(("cudaGraphInstantiate", 1), ("cudaMalloc", 3), ("cudaGraphInstantiate", 2)),
]
TENSORRT = [
    ("deserialize_cuda_engine", 1, "gives no engine: Magic tag does not match"),
    ("create_execution_context", 1, "gives no context: no reason given"),
    ("create_execution_context", 2, "gives no context: no reason given"),
    ("set_optimization_profile_async", 1, "refuses the profile: no reason given"),
    ("set_input_shape", 1, "refuses the input shape"),
    ("set_tensor_address", 1, "refuses the input address"),
    ("set_tensor_address", 2, "refuses the output address"),
    ("execute_async_v3", 1, "refuses the call: illegal state"),
    ("execute_async_v3", 2, "refuses the call: illegal state"),
    ("execute_async_v3", 4, "refuses the call: illegal state"),
]


@pytest.mark.parametrize(
    ("call", "time", "text"),
    [(call, time, rf"{call}: out of memory \(CUDA error 2\)") for call, time in CALLS] + TENSORRT,
)
def test_a_call_that_fails_is_one_line_and_leaves_nothing(engine, world, call, time, text):
    world.fail[call] = time
    with pytest.raises(ModelRefused, match=rf"tiny\.engine: tensorrt .*{text}") as refused:
        load(engine, batch=5)
    assert "\n" not in str(refused.value)
    assert world.counted[call] >= time  # the call that failed was met
    assert not world.memory  # at once, not when somebody lets go of the error
    assert not world.streams
    del refused
    gc.collect()
    assert world.nothing_left()


@pytest.mark.parametrize(
    ("call", "batch"),
    [
        ("cudaGraphLaunch", 4),
        ("cudaStreamSynchronize", 4),
        ("cudaMalloc", 1),  # of a bucket that this call is the first to need
        ("cudaGraphInstantiate", 1),
    ],
)
def test_a_failure_while_running_is_one_line_and_leaves_nothing(engine, world, call, batch):
    generator = load(engine, batch=4)
    held = len(world.memory)
    world.fail[call] = world.counted[call] + 1
    with pytest.raises(ModelRefused, match=rf"tiny\.engine: tensorrt cannot run it: {call}: out "):
        generator._begin(normal_latents(0, 0, batch, tiny.LATENT), batch)
    gc.collect()
    assert len(world.memory) == held
    expected = np.tanh(normal_latents(1, 0, 4, tiny.LATENT) @ tiny.weights())
    np.testing.assert_allclose(generator.sample(4, seed=1), expected.reshape(4, 16, 16), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"tensors": {"latent": 0, "slice": 0, "third": 0}},
            "has the tensors latent, slice, third",
        ),
        ({"tensors": {"latent": 0, "made": 0}}, "has the tensors latent, made"),
        ({"tensors": {"latent": 1, "slice": 0}}, "takes or makes latent in another type than fp32"),
        ({"buckets": (1, 4, 8)}, "has 3 profiles"),
        ({"buckets": (1, 2)}, "has no profile 1 of batch 4"),
        ({"slice_side": 8}, r"makes \(1, 1, 8, 16\)"),
    ],
)
def test_an_engine_that_is_not_as_its_sidecar_says(engine, world, change, text):
    for name, value in change.items():
        setattr(world, name, value)
    with pytest.raises(ModelRefused, match=rf"tiny\.engine: ({text}), which its sidecar does not"):
        load(engine, batch=1)
    gc.collect()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


NOWHERE = CudaDevice("Other GPU", "8.9")
REFUSED = {
    "tampered": (lambda e, m: flip(e), {}, ModelRefused, "is not the engine that was built"),
    "version": (
        lambda e, m: m.setattr(tensorrt, "version_on_disk", lambda package: "11.2.0.1"),
        {},
        ModelRefused,
        rf"built by TensorRT {VERSION}, 11\.2\.0\.1 is installed",
    ),
    "device": (
        lambda e, m: m.setattr(tensorrt, "first_device", lambda: NOWHERE),
        {},
        ModelRefused,
        rf"built for compute capability {COMPUTE}, and Other GPU has 8\.9",
    ),
    "no driver": (
        lambda e, m: m.setattr(tensorrt, "first_device", lambda: None),
        {},
        UsageError,
        "no CUDA driver or device here",
    ),
    "precision": (lambda e, m: None, {"precision": "bf16"}, UsageError, "was built in fp32"),
    "threads": (lambda e, m: None, {"threads": 2}, UsageError, "leave --threads out"),
    "backend": (
        lambda e, m: None,
        {"backend": "openvino"},
        UsageError,
        "backend openvino: runs model files",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_check_comes_before_tensorrt(engine, world, monkeypatch, case):
    change, settings, kind, text = REFUSED[case]
    change(engine, monkeypatch)
    for name in ("tensorrt", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, None)  # an import would be an ImportError
    with pytest.raises(kind, match=text):
        load(engine, **settings)
    assert world.calls == []


def test_an_engine_of_another_package_is_refused_before_tensorrt_is_asked_for(write_model):
    path = write_engine(write_model(), package="tensorrt_rtx")
    for backend in ("auto", "tensorrt"):
        with pytest.raises(
            ModelRefused, match="was built by tensorrt_rtx, and engines of tensorrt"
        ):
            load(path, backend)


def test_where_no_file_tells_the_version_the_module_does(engine, world, monkeypatch):
    monkeypatch.setattr(tensorrt, "version_on_disk", lambda package: None)
    assert load(engine, batch=1).backend.version == VERSION
    world.tensorrt.__version__ = "11.0.0.114"
    with pytest.raises(ModelRefused, match=r"11\.0\.0\.114 is installed"):
        load(engine, batch=1)


def test_a_model_file_is_not_for_tensorrt(write_model, world):
    with pytest.raises(UsageError, match=r"runs engines, and .*tiny\.onnx is a model file; build"):
        load(write_model(), "tensorrt")


def test_cuda_python_absent(engine, world, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingDependency, match=r"cuda-python.*pip install 'fastmrigan\[gpu\]'"):
        load(engine)


def test_auto_takes_it_for_an_engine_alone(engine, world, write_model):
    generator = load(engine, batch=1)
    assert generator.backend.name == "tensorrt"
    assert generator.reason == "auto: an engine file runs on nothing else"
    assert load(write_model(), batch=1).backend.name == "openvino"
    assert choose("tensorrt") == ("tensorrt", "asked for")


@pytest.mark.parametrize(
    ("precision", "parity", "expected"),
    [
        ("fp32", {}, "as the engine was built"),
        ("bf16", {}, "as the engine was built"),
        (
            "bf16",
            {
                "openvino-bf16": {
                    "version": "",
                    "device": "",
                    "max_abs_error": 0.1,
                    "psnr_db": 48.25,
                }
            },
            "as the engine was built; 48.2 dB by the model file, on OpenVINO",
        ),
    ],
)
def test_what_it_says_of_itself(write_model, world, precision, parity, expected):
    model = write_model(tiny.metadata(precision=precision, parity=parity))
    backend = load(write_engine(model), batch=1).backend
    told = backend.describe()
    assert backend.why_precision == expected
    assert len(told.pop("engine_sha256")) == 64
    assert told == {
        "backend": "tensorrt",
        "version": VERSION,
        "device": "Stand-in GPU",
        "precision": precision,
        "mode": "latency",  # the device is one: modes are the CPU's
        "streams": 1,
        "threads": 1,
        "pinning": False,
        "nodes": {},
    }


def test_host_code_only_where_the_engine_brings_its_own_runtime(write_model, world):
    for compatible in (False, True):
        path = write_engine(write_model(), version_compatible=compatible)
        backend = load(path, batch=1).backend
        assert backend._engine.runtime.engine_host_code_allowed is compatible
        del backend  # the stand-in has one at a time


@pytest.fixture
def plugin(tmp_path, monkeypatch) -> dict[str, object]:
    """What the sidecar says of a library that is there."""
    library = tmp_path / "plugin.so"
    library.write_bytes(b"a library")
    monkeypatch.setenv("FASTMRIGAN_TENSORRT_PLUGIN", str(library))
    digest = hashlib.sha256(b"a library").hexdigest()
    return {"library": library.name, "sha256": digest, "instance_norms": 3}


def test_the_plugin_is_loaded_before_the_engine(write_model, world, plugin):
    path = write_engine(write_model(), plugin=plugin)
    world.fail["load_library"] = 1
    with pytest.raises(ModelRefused, match=r"tiny\.engine: .* gives no plugin: no reason given"):
        load(path, batch=1)
    assert "deserialize_cuda_engine" not in world.calls
    for _ in range(2):
        load(path, batch=1)
        assert world.counted["load_library"] == 2  # of one process, that failed and that did not
    assert world.counted["deserialize_cuda_engine"] == 2


def test_another_plugin_is_refused_before_tensorrt(write_model, world, plugin, tmp_path):
    path = write_engine(write_model(), plugin=plugin)
    (tmp_path / "plugin.so").write_bytes(b"another")
    with pytest.raises(ModelRefused, match=r"was built with another plugin\.so .*; build it again"):
        load(path, batch=1)
    (tmp_path / "plugin.so").unlink()
    with pytest.raises(UsageError, match=r"tiny\.engine: FASTMRIGAN_TENSORRT_PLUGIN names"):
        load(path, batch=1)
    assert world.calls == []


def test_bench_takes_it_for_an_engine_alone(engine, world, monkeypatch, write_model):
    monkeypatch.setattr("fastmrigan.runtime.latency.installed", lambda name: True)
    names, left_out = usable_backends(read_model(engine), BenchOptions())
    assert (names, left_out) == (["tensorrt"], {})
    with pytest.raises(UsageError, match="backend openvino: runs model files, and"):
        usable_backends(read_model(engine), BenchOptions(("openvino",)))
    _, left_out = usable_backends(read_model(write_model()), BenchOptions())
    assert "is a model file; build one" in left_out["tensorrt"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tensorrt/__init__.py": '__version__ = "11.1.0.106"\n'}, "11.1.0.106"),
        (
            {
                "tensorrt/__init__.py": "from tensorrt_bindings import __version__\n",
                "tensorrt_bindings/__init__.py": "import os\n__version__ = '10.13.3.9'\n",
            },
            "10.13.3.9",
        ),
        ({"tensorrt/__init__.py": "raise SystemExit\n"}, None),
        ({}, None),
    ],
)
def test_version_without_an_import(tmp_path, monkeypatch, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert tensorrt_package.version_on_disk() == expected
    assert "tensorrt" not in sys.modules


@pytest.mark.parametrize("command", ["synth", "bench"])
def test_a_machine_without_a_driver_is_one_line(engine, fastmrigan, tmp_path, monkeypatch, command):
    if first_device() is not None:
        pytest.skip("a CUDA device is here")
    package = tmp_path / "site" / "tensorrt"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f'__version__ = "{VERSION}"\nimport os\nos.abort()  # as bad as it gets without a driver\n'
    )
    paths = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    arguments = {
        "synth": ("--count", 1, "--out", tmp_path / "out"),
        "bench": ("--backend", "tensorrt", "--out", tmp_path / "out", "--no-plot"),
    }
    done = fastmrigan(command, engine, *arguments[command])
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "tiny.engine: no CUDA driver or device here, and the engine was built" in done.stderr
