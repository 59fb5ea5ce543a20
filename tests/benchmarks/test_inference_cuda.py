"""The GPU's inference benchmark, on the CPU: its sides make the same slices, a wrong or a stale one
is not timed, and what cannot run is named. A recording of ATen operations stands for the CUDA
graph. Tiny networks; nothing here is about time."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import inference_cuda as benchmark
import numpy as np
import pytest
import torch
from aten_recording import AtenRecording
from inference_cuda import COMPILED, EAGER, GRAPH, HALF, LIMIT, OURS, Setting, Side

CPU = torch.device("cpu")


def setting(name: str, batch: int = 2) -> Setting:
    return Setting(name, batch, CPU, benchmark.network_of(name, CPU))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "recording_on", lambda device: AtenRecording())


ROWS = [
    pytest.param(name, marks=() if name == "ResNet-9" else pytest.mark.slow)  # half a minute each
    for name in benchmark.BATCHES
]


@pytest.mark.parametrize("name", ROWS)
def test_a_row(name: str, recorded: None, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(benchmark, "COMPILE", {"backend": "eager", "fullgraph": True})
    one, left_out = setting(name), {}
    sides = benchmark.own_sides(one, left_out)
    half = benchmark.half(benchmark.plain(benchmark.copy.deepcopy(one.network)), CPU, compiled=True)
    row = benchmark.measure(one, sides | {COMPILED: Side("bf16", half)}, budget=0.02)
    names = [EAGER, HALF, OURS, GRAPH, COMPILED]
    assert left_out == {}
    assert "wrong" not in row
    assert list(row["psnr_db"]) == list(row["latency"]) == names
    assert list(row["throughput"]) == [*names, LIMIT]
    assert row["psnr_db"][EAGER] > 90  # there is no TF32 here
    assert row["psnr_db"][GRAPH] == row["psnr_db"][OURS]
    ours = row["slices_per_second"][OURS]
    assert ours == pytest.approx(2 / row["throughput"][OURS]["median_ms"] * 1e3)
    assert row["limit"]["operations"] > 1e4
    benchmark.show(row)
    assert f"{name}, batch 2: latency from host to host" in capsys.readouterr().out


def test_ours_is_the_fused_network_and_the_others_are_not() -> None:
    one = setting("ResNet-9")
    sides = benchmark.own_sides(one, {})
    x = benchmark.on(one.given[0], CPU)
    with torch.inference_mode():
        slices = {name: side.call(x) for name, side in sides.items()}
    assert not torch.equal(slices[HALF], slices[OURS])
    assert {made.dtype for made in slices.values()} == {torch.float32}
    network = one.network
    assert any(type(part).__name__ == "FusedInstanceNorm2d" for part in network.modules())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["stale", "wrong", "nan"])
def test_what_makes_other_slices_is_not_timed(kind: str, capsys) -> None:
    one = setting("DCGAN-64")
    sides = benchmark.own_sides(one, {})
    with torch.inference_mode():
        first = sides[OURS].call(benchmark.on(one.given[0], CPU))
    spoilt = {
        "stale": lambda x: first,
        "wrong": lambda x: sides[OURS].call(x) + 0.1,
        "nan": lambda x: sides[OURS].call(x) * np.nan,
    }[kind]
    row = benchmark.measure(one, sides | {GRAPH: Side("bf16", spoilt)}, budget=0.02)
    assert GRAPH in row["wrong"]
    assert OURS + " is" not in row["wrong"]
    assert "latency" not in row
    benchmark.show(row)
    assert "WRONG RESULT, not timed" in capsys.readouterr().out


def test_without_cuda_graphs_it_says_so() -> None:
    left_out: dict[str, str] = {}
    assert GRAPH not in benchmark.own_sides(setting("DCGAN-64"), left_out)
    assert left_out == {GRAPH: "CUDA graphs need a GPU"}


@pytest.mark.slow
def test_a_run_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Exports graphs for the engines, and says why none of them runs here."""
    monkeypatch.setattr(benchmark, "BATCHES", {"DCGAN-64": (1, 8)})
    options = argparse.Namespace(device="cpu", seconds=600.0, compile=False, json=tmp_path / "i")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert benchmark.run(options, folder) == 0
    document = json.loads(options.json.read_text())
    rows = [(row["network"], row["batch"]) for row in document["rows"]]
    assert rows == [(name, n) for name, batches in benchmark.BATCHES.items() for n in batches]
    said = document["left_out"]
    assert "CUDAExecutionProvider" in said["DCGAN-64, batch 8, engines, onnxruntime-cuda fp16"]
    assert said["DCGAN-64, batch 8, engines, tensorrt"] == "tensorrt is not installed"
    tried = document["tensorrt_rtx"]
    if find_spec("tensorrt_rtx") is None:
        assert tried == {"left_out": "not installed: tensorrt_rtx"}
    elif tried["compute_capability"] is None:
        assert (tried["built"], tried["ran"]) == (True, False)
        assert tried["says"] == "no CUDA driver or device here"


def test_rows_past_the_limit_are_named(tmp_path: Path, capsys) -> None:
    options = argparse.Namespace(device="cpu", seconds=0.0, compile=True, json=None)
    assert benchmark.run(options, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "ResNet-9, batch 8, own: left out, past 0 s" in printed
    assert "DCGAN-64, batch 1, compile: left out, past 0 s" in printed


def test_without_a_gpu_it_is_refused(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    monkeypatch.setattr("sys.argv", ["inference_cuda.py"])
    assert benchmark.main() == 2
    assert "no CUDA device; --device cpu tries the code" in capsys.readouterr().out
