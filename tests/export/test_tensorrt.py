"""Engines by tensorrt-rtx, which builds without a GPU: what is written, and every refusal. No
engine is run."""

from __future__ import annotations

import hashlib
import json
import stat
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny_model as tiny

from fastmrigan.errors import MissingDependency, ModelRefused, UsageError
from fastmrigan.export import tensorrt, tensorrt_build
from fastmrigan.export.tensorrt import EngineOptions, build_engine, check, sidecar_path
from fastmrigan.runtime.engine_file import read_engine_file
from fastmrigan.runtime.model_file import read_model_file

RTX = EngineOptions("tensorrt-rtx", (1, 4), "8.9")


def needs_rtx(test):
    """The slow lane alone installs it."""
    absent = find_spec("tensorrt_rtx") is None
    reason = "tensorrt_rtx absent: pip install tensorrt-rtx"
    return pytest.mark.slow(pytest.mark.skipif(absent, reason=reason)(test))


@needs_rtx
def test_engine_and_sidecar(write_model, fastmrigan, tmp_path):
    model, out = write_model(), tmp_path / "engines" / "tiny.engine"
    done = fastmrigan(
        *("export", model, "--out", out, "--engine", "tensorrt-rtx", "--buckets", "1,4"),
        *("--compute-capability", "8.9"),
    )
    assert done.returncode == 0, done.stderr
    assert "tiny, fp32, by tensorrt_rtx" in done.stdout
    assert "for compute capability 8.9, batches 1, 4; built, not run" in done.stdout
    assert sorted(p.name for p in out.parent.iterdir()) == ["tiny.engine", "tiny.engine.json"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    document = json.loads(sidecar_path(out).read_text())
    engine = out.read_bytes()
    words = (int.from_bytes(engine[i : i + 8], "little") for i in range(0, len(engine), 8))
    assert document["engine_sum64"] == f"{sum(words) % 2**64:016x}"
    assert document["engine_sha256"] == hashlib.sha256(engine).hexdigest()
    assert document["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert document["model"] == read_model_file(model).metadata.model_dump(mode="json")
    expected = {
        "kind": "fastmrigan-engine",
        "schema_version": 1,
        "package": "tensorrt_rtx",
        "compute_capability": "8.9",
        "buckets": [1, 4],
        "input": "latent",
        "output": "slice",
        "size": out.stat().st_size,
        "precision": "fp32",
    }
    assert {key: document[key] for key in expected} == expected
    read_back = read_engine_file(out)  # as the runtime reads it, every check passed
    assert read_back.data == engine
    assert stat.S_IMODE(sidecar_path(out).stat().st_mode) == 0o600


@needs_rtx
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            EngineOptions("tensorrt-rtx", (1,), "1.0"),
            r"compute capability 1\.0: this version builds",
        ),
        (EngineOptions("tensorrt-rtx", (1,)), "no CUDA driver or device here"),
    ],
)
def test_no_engine_leaves_nothing_and_keeps_the_old_one(write_model, tmp_path, options, text):
    if options.compute is None and tensorrt_build.compute_capability() is not None:
        pytest.skip("a CUDA device is here")
    out = tmp_path / "old" / "tiny.engine"
    out.parent.mkdir()
    out.write_text("old")
    with pytest.raises(ModelRefused, match=rf"tiny\.onnx: tensorrt-rtx builds no engine: {text}"):
        build_engine(write_model(), out, options)
    assert [p.name for p in out.parent.iterdir()] == ["tiny.engine"]
    assert out.read_text() == "old"


@needs_rtx
def test_timing_cache_is_written_and_read(write_model, tmp_path):
    cache = tmp_path / "timing.cache"
    options = EngineOptions("tensorrt-rtx", (1,), "8.9", timing_cache=cache)
    build_engine(write_model(), tmp_path / "x.engine", options)
    assert cache.stat().st_size > 0
    build_engine(write_model(), tmp_path / "x.engine", options)


def test_a_checkpoint_is_not_chosen_where_a_model_file_is_built(write_model, fastmrigan, tmp_path):
    done = fastmrigan(
        *("export", write_model(), "--out", tmp_path / "x.engine"),
        *("--engine", "tensorrt-rtx", "--step", 7),
    )
    assert done.returncode == 2
    assert "--engine builds from a model file" in done.stderr


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("x.onnx", ["--buckets", "1,4"]),
        ("x.onnx", ["--compute-capability", "8.9"]),
        ("x.onnx", ["--version-compatible"]),
        ("x.onnx", ["--timing-cache", "t"]),
        ("x.onnx", ["--plugin"]),
        ("x.engine", []),
    ],
)
def test_options_of_engines_need_engine(fastmrigan, tmp_path, out, words):
    done = fastmrigan("export", tmp_path / "run", "--out", tmp_path / out, *words)
    assert done.returncode == 2
    named = words[0] if words else f"--out {tmp_path / out}"
    assert f"export {named} is for engines" in done.stderr
    assert "--engine tensorrt or tensorrt-rtx" in done.stderr


@needs_rtx
def test_a_graph_the_parser_refuses(write_model, tmp_path):
    graph = tiny.tiny_graph()
    graph.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(
        ModelRefused, match=r"the parser refuses the graph: node 1 \(NoSuchOperator\): "
    ):
        build_engine(write_model(graph=graph), tmp_path / "x.engine", RTX)


def test_a_builder_that_crashes_is_one_line(write_model, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: True)
    monkeypatch.setitem(tensorrt.PACKAGES, "tensorrt-rtx", "no_such_builder")
    with pytest.raises(ModelRefused, match=r"ended with 1 while it built .*: ModuleNotFoundError"):
        build_engine(write_model(), tmp_path / "x.engine", RTX)
    assert not list(tmp_path.glob("*x.engine*"))


@pytest.mark.parametrize(
    ("options", "out", "text"),
    [
        (EngineOptions("openvino"), "x.engine", "--engine 'openvino': choose one of tensorrt, "),
        (EngineOptions(), "x.plan", r"ends in \.engine; use --out x\.engine"),
        (EngineOptions(buckets=()), "x.engine", "expected rising batch sizes"),
        (EngineOptions(buckets=(0, 1)), "x.engine", "--buckets 0,1: expected rising"),
        (EngineOptions(buckets=(4, 1)), "x.engine", "--buckets 4,1: expected rising"),
        (EngineOptions(compute="8.9"), "x.engine", "tensorrt builds for the GPU of this machine"),
        (EngineOptions("tensorrt-rtx", compute="89"), "x.engine", "'89': expected e.g. 8"),
    ],
)
def test_options_that_cannot_be(options, out, text):
    with pytest.raises(UsageError, match=text):
        check(options, Path(out))


@pytest.mark.parametrize(
    ("engine", "kind", "text"),
    [
        ("tensorrt", MissingDependency, r"pip install 'fastmrigan\[gpu\]'"),
        ("tensorrt-rtx", UsageError, "pip install tensorrt-rtx"),
    ],
)
def test_missing_package(write_model, tmp_path, monkeypatch, engine, kind, text):
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    with pytest.raises(kind, match=text):
        build_engine(write_model(), tmp_path / "x.engine", EngineOptions(engine))
