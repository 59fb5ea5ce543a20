"""The bench: its arithmetic against numpy, and one real, short run of it."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_model import write_model

from fastmrigan.cli.bench import bench as bench_command
from fastmrigan.cli.bench import numbers, rates
from fastmrigan.cli.bench_compare import compared
from fastmrigan.cli.bench_plot import draw
from fastmrigan.cli.bench_table import table
from fastmrigan.errors import CheckFailed, MissingDependency, UsageError
from fastmrigan.runtime import latency, load
from fastmrigan.runtime.backends import BACKENDS
from fastmrigan.runtime.latency import BenchOptions, past_budget
from fastmrigan.runtime.latency_figures import jitter, percentiles
from fastmrigan.runtime.latency_rows import bench_input, call_of, calls_of
from fastmrigan.runtime.model_file import read_model_file


@pytest.mark.parametrize(
    ("times", "p99_9"),
    [
        ([4.0], None),
        (list(range(1, 101)), None),
        (list(range(999)), None),
        (list(range(1000)), 998.001),  # 999 * 0.999
        (np.random.default_rng(0).gamma(2, 3, 5000), "numpy"),
    ],
)
def test_percentiles_agree_with_numpy(times: Any, p99_9: float | str | None) -> None:
    found = percentiles(times)
    for name, q in (("min", 0), ("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
        assert found[name] == pytest.approx(np.percentile(times, q), abs=1e-5)
    assert found["n"] == len(times)
    assert found["mean"] == pytest.approx(np.mean(times), abs=1e-5)
    expected = np.percentile(times, 99.9) if p99_9 == "numpy" else p99_9
    assert found["p99_9"] == (expected if expected is None else pytest.approx(expected, abs=1e-5))


def test_document_holds_what_a_figure_needs(document: dict[str, Any], model: Path) -> None:
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["schema_version"], document["kind"]) == (3, "fastmrigan-bench")
    assert document["model"]["sha256"] == read_model_file(model).sha256
    assert {"cpu", "cores", "cores_usable", "governor", "system"} <= document["machine"].keys()
    calls = document["measurements"]
    assert [(c["batch"], c["backend"], c["scope"], c["rate"]) for c in calls] == [
        (batch, backend, scope, rate)
        for batch in (1, 3)
        for backend in ("openvino", "onnxruntime")
        for scope in ("engine", "end-to-end")
        for rate in (None, 100.0)
    ]
    for call in calls:
        assert call["loop"] == ("closed" if call["rate"] is None else "open")
        assert call["jitter"].keys() == {"std_ms", "step_ms", "drift_ms"}
        assert call["version"]
        assert (call["precision"], call["threads"]) == ("fp32", 1)
        assert (call["mode"], call["streams"]) == ("latency", 1)
        assert sum(call["nodes"].values()) > 0
        served = sum(r["calls"] for r in call["rounds"])
        assert call["call_ms"]["n"] == served + call["not_served"]
        seconds = sum(r["seconds"] for r in call["rounds"])
        assert call["slices_per_s"] == pytest.approx(call["batch"] * served / seconds, rel=0.01)
        assert len(call["rounds"]) == 2
        for name in ("min", "mean", "p50", "p90", "p99", "max"):
            per_slice = call["call_ms"][name] / call["batch"]
            assert call["slice_ms"][name] == pytest.approx(per_slice, abs=1e-5)
        if call["loop"] == "closed":
            assert call["slices_per_s"] == pytest.approx(1000 / call["slice_ms"]["mean"], rel=0.01)
        assert call["load_average"]["max"] >= 0
        assert call["max_abs_difference"] < 1e-5


def test_cold_start_phases_add_up(document: dict[str, Any]) -> None:
    assert [c["backend"] for c in document["cold_start"]] == ["openvino", "onnxruntime"]
    for cold in document["cold_start"]:
        phases = [cold[f"{p}_ms"] for p in ("start", "import", "load", "compile", "first")]
        assert min(phases) > 0
        assert cold["total_ms"] == pytest.approx(sum(phases), abs=0.1)
        assert 20 < cold["peak_mb"] < 2000


def test_table_names_loops_scopes_and_the_missing_tail(document: dict[str, Any]) -> None:
    few = json.loads(json.dumps(document))
    for call in few["measurements"]:
        with_calls(call, 999)
    text = "\n".join(table(few))
    assert "ms a call, engine alone; a call when the last one ends" in text
    assert "ms a call, end to end, pixels out; calls at a fixed rate a second" in text
    assert "-: of too few calls; p99 needs 100, p99.9 needs 1,000 calls: raise --seconds" in text
    assert "openvino fp32" in text
    assert max(map(len, table(few)[2:])) <= 100


def with_calls(call: dict[str, Any], n: int) -> None:
    """As if it had been measured by so many calls."""
    for times in (call["call_ms"], call["slice_ms"]):
        times |= {"n": n, "p99": 7.0, "p99_9": 8.0 if n >= 1000 else None}


@pytest.mark.parametrize(
    ("n", "p99", "p99_9"),
    [(1, "-", "-"), (99, "-", "-"), (100, "7.000", "-"), (1000, "7.000", "8.000")],
)
def test_no_percentile_is_told_of_too_few_calls(
    document: dict[str, Any], n: int, p99: str, p99_9: str
) -> None:
    few = json.loads(json.dumps(document))
    for call in few["measurements"]:
        with_calls(call, n)
    lines = table(few)
    place = next(line for line in lines if " p99 " in line).split().index("p99")
    first = next(line for line in lines if line.startswith("openvino fp32"))
    assert first.split()[place + 2 : place + 4] == [p99, p99_9]  # its name is two words
    assert any(line.startswith("-: ") for line in lines) == (n < 1000)
    told = compared(few, few)
    first = next(line for line in told if line.startswith("openvino fp32"))
    assert first.split()[-3:] == ([p99, p99, "1.00"] if n >= 100 else ["-", "-", "-"])
    assert ("-: of too few calls; p99 needs 100" in told) == (n < 100)


def test_translating_model_is_benched_too(tmp_path: Path) -> None:
    path = write_model(tmp_path / "translate.onnx", "translate")
    options = BenchOptions(("onnxruntime",), (2,), 0.05, rounds=1, threads=(1,), cold_starts=1)
    made = latency.bench(path, options)
    assert made["measurements"][0]["call_ms"]["n"] > 0
    assert made["cold_start"][0]["first_ms"] > 0


def test_all_takes_what_runs_and_says_why_not(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "installed", lambda name: name != "onnxruntime")
    names, left_out = latency.usable_backends(read_model_file(model), BenchOptions(threads=(1,)))
    assert "openvino" in names
    assert left_out["onnxruntime"] == "not installed: pip install 'fastmrigan[ort]'"
    assert set(names) | left_out.keys() == set(BACKENDS)
    with pytest.raises(MissingDependency, match=r"backend onnxruntime needs .* pip install"):
        latency.usable_backends(read_model_file(model), BenchOptions(("onnxruntime",)))


def test_engines_that_disagree_are_not_timed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = BACKENDS["onnxruntime"].run
    monkeypatch.setattr(BACKENDS["onnxruntime"], "run", lambda self, x: run(self, x) * 0.9)
    options = BenchOptions(("openvino", "onnxruntime"), (1,), 0.05, threads=(1,), cold_starts=0)
    with pytest.raises(CheckFailed, match=r"onnxruntime makes slices .* away from openvino's"):
        latency.bench(model, options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (BenchOptions(("tensorflow",)), r"'tensorflow' is unknown; choose all or from openvino, "),
        (BenchOptions(batches=(0, 1)), "batch sizes are positive"),
        (BenchOptions(batches=()), "batch sizes are positive"),
        (BenchOptions(scopes=("pixels",)), "scope 'pixels': expected engine or end-to-end"),
        (BenchOptions(modes=("fast",)), "mode 'fast': expected latency or throughput"),
        (
            BenchOptions(modes=("latency", "throughput"), rates=(5.0,)),
            "--rate is of --mode latency",
        ),
        (BenchOptions(rates=(0.0,)), "rate 0: expected calls a second"),
        (BenchOptions(rates=(float("nan"),)), "rate nan: expected"),
        (BenchOptions(threads=(1, 0)), "threads 0: expected at least 1"),
        (BenchOptions(seconds=0), r"seconds 0: expected 0\.001 to 86400 \(a day\)"),
        (BenchOptions(seconds=1e-12), "seconds 1e-12: expected"),
        (BenchOptions(seconds=float("inf")), "seconds inf: expected"),
        (BenchOptions(seconds=float("nan")), "seconds nan"),
    ],
)
def test_senseless_options(model: Path, options: BenchOptions, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        latency.bench(model, options)


def test_batch_option() -> None:
    assert numbers("--batch", "1, 8,64,8") == (1, 8, 64)
    assert rates("5, 20.5,5") == (5.0, 20.5)
    with pytest.raises(UsageError, match=r"--rate 'fast': expected calls a second"):
        rates("fast")
    with pytest.raises(UsageError, match=r"--batch '1,x': expected whole numbers"):
        numbers("--batch", "1,x")


def test_command_writes_json_and_plot(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench"
    bench_command(model, batch="2", backend="openvino", seconds=0.1, threads="1,2", out=out)
    assert sorted(p.name for p in out.iterdir()) == ["bench.json", "bench.png"]
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "bench.json").read_text())["settings"]["threads"] == [1, 2]
    assert f"wrote {out / 'bench.json'}" in capsys.readouterr().out


@pytest.mark.parametrize("content", ['{"schema": 1}', "[1]", "xx", '{"kind": "other"}'])
def test_foreign_json_is_not_overwritten(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(latency, "bench", lambda *_: pytest.fail("measured"))
    path = tmp_path / "dataset.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"dataset.json: is there already .* give --json another"):
        bench_command(model, json_file=path, plot=False)
    assert path.read_text() == content


def test_missing_matplotlib_is_said_before_measuring(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(latency, "bench", lambda *_: pytest.fail("measured"))
    with pytest.raises(UsageError, match=r"pip install matplotlib, or add --no-plot"):
        bench_command(model)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("task", ["sample", "translate"])
def test_end_to_end_is_from_pixels_or_a_seed_to_pixels(
    tmp_path: Path, task: str, mode: str
) -> None:
    path = write_model(tmp_path / "model.onnx", task)
    generator = load(path, "onnxruntime", batch=3, threads=2, mode=mode)
    x = bench_input(generator.metadata, 3)
    made = call_of(generator, "end-to-end", x)()
    assert made.dtype == np.uint8
    if task == "sample":
        expected = generator.sample(3, seed=0)
    else:
        pixels = np.round((x[:, 0] + 1) * 127.5)  # [3, 4, 4]
        expected = np.tanh(pixels / 127.5 - 1)
    np.testing.assert_allclose(made, (expected + 1) * 127.5, atol=0.51)
    np.testing.assert_array_equal(call_of(generator, "engine", x)(), generator.backend.run(x))
    several = list(calls_of(generator, "end-to-end", x)(repeat(None, 5)))
    np.testing.assert_array_equal(several, [made] * 5)
    several = list(calls_of(generator, "engine", x)(repeat(None, 5)))
    np.testing.assert_array_equal(several, [generator.backend.run(x)] * 5)


def test_both_modes_in_one_bench(model: Path) -> None:
    options = BenchOptions(
        ("openvino", "onnxruntime"),
        (2,),
        0.1,
        rounds=2,
        threads=(2,),
        modes=("latency", "throughput"),
        cold_starts=1,
    )
    document = latency.bench(model, options)
    calls = document["measurements"]
    assert [(c["backend"], c["mode"], c["scope"]) for c in calls] == [
        (backend, mode, scope)
        for backend in ("openvino", "onnxruntime")
        for mode in ("latency", "throughput")
        for scope in ("engine", "end-to-end")
    ]
    for call in calls:
        assert (call["loop"] == "flow") is (call["mode"] == "throughput")
        assert call["streams"] == (2 if call["mode"] == "throughput" else 1)
        assert call["call_ms"]["n"] == sum(r["calls"] for r in call["rounds"])
        assert call["max_abs_difference"] < 1e-5
    lines = table(document)
    assert "ms a call, engine alone; several calls at once (mode throughput)" in lines
    assert max(map(len, lines[2:])) <= 100
    assert draw(document).startswith(b"\x89PNG")
    assert past_budget(document, 1e-6)[-1].startswith(
        "onnxruntime fp32, batch 2, 2 threads, end-to-end, several at once: p99"
    )
    assert len([line for line in compared(document, document) if " flow " in line]) == 4


def test_jitter_by_hand() -> None:
    found = jitter([[1.0, 3.0, 2.0], [5.0], [2.0, 2.0]])
    assert found["std_ms"] == pytest.approx(np.std([1, 3, 2, 5, 2, 2]), abs=1e-5)
    assert found["step_ms"] == pytest.approx((2 + 1 + 0) / 3, abs=1e-5)
    assert found["drift_ms"] == 3.0  # medians 2, 5, 2
    assert jitter([[4.0]]) == {"std_ms": 0.0, "step_ms": 0.0, "drift_ms": 0.0}


def test_budget(document: dict[str, Any]) -> None:
    calls = json.loads(json.dumps(document))
    for number, call in enumerate(calls["measurements"]):
        call["call_ms"]["p99"] = float(number)
    assert past_budget(calls, 15.0) == []
    assert past_budget(calls, 13.5) == [
        "onnxruntime fp32, batch 3, 1 thread, end-to-end, closed loop: p99 14.000 ms",
        "onnxruntime fp32, batch 3, 1 thread, end-to-end, 100/s: p99 15.000 ms",
    ]


@pytest.mark.parametrize("budget", [1e9, 1e-6])
def test_budget_ends_with_6_and_keeps_the_figures(
    fastmrigan: Any, model: Path, tmp_path: Path, budget: float
) -> None:
    done = fastmrigan(
        *("bench", model, "--no-plot", "--out", tmp_path, "--backend", "openvino", "--batch", 1),
        *("--seconds", 0.05, "--threads", 1, "--scope", "engine", "--budget-ms", budget),
    )
    assert done.returncode == (0 if budget > 1 else 6), done.stderr
    assert ("past the budget of 1e-06 ms a call in 1 of 1" in done.stderr) == (budget < 1)
    assert len(json.loads((tmp_path / "bench.json").read_text())["measurements"]) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "name a model file, or two runs"),
        ({"model": Path("m.onnx"), "compare": (Path("a"), Path("b"))}, "measures nothing"),
        ({"model": Path("m.onnx"), "budget_ms": 0.0}, "--budget-ms 0: expected milliseconds"),
    ],
)
def test_commands_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        bench_command(**options)


def test_no_torch_is_imported() -> None:
    code = "import sys, fastmrigan.runtime.latency, fastmrigan.cli.bench as b; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "matplotlib"} & set(done.stdout.split())
