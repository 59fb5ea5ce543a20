"""Which rewrites a model file gets, and that its figures are of the graph with those."""

from __future__ import annotations

import copy
from pathlib import Path

import onnx
import pytest
import small_graphs
import torch

from fastmrigan.export import onnx as exporter
from fastmrigan.export.choice import chosen
from fastmrigan.export.onnx import Exported, export_generator
from fastmrigan.export.parity import ParityReport, check_parity, difference, random_inputs
from fastmrigan.export.probes import Probe
from fastmrigan.runtime import load
from fastmrigan.runtime.backends.openvino import the_core
from fastmrigan.runtime.model_file import read_model_file
from fastmrigan.runtime.onnx_wire import graph_sha256

DCGAN, UNET = "tumour-dcgan64", "t1-t2-cyclegan-unet-v1"
FOLDED = ("constants", "batch norms")
SPLIT = (*FOLDED, "transposed convolutions")


@pytest.mark.parametrize(
    ("task", "computed_in", "expected"),
    [
        ("sample", "fp32", FOLDED),
        ("sample", "bf16", SPLIT),
        ("sample", "fp16", FOLDED),
        ("sample", "int8", FOLDED),
        ("translate", "fp32", SPLIT),
        ("translate", "bf16", SPLIT),
        ("translate", "fp16", SPLIT),
        ("translate", "int8", SPLIT),
    ],
)
def test_what_is_chosen(task: str, computed_in: str, expected: tuple[str, ...]) -> None:
    assert chosen(task, computed_in) == expected


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """exports(name, precision) is the model file of a small generator, exported once for all tests;
    and the graphs that were checked on the way."""
    checked: list[str] = []
    honest = Probe.check

    def check(probe: Probe, graph: bytes, precision: str) -> ParityReport:
        checked.append(graph_sha256(graph))
        return honest(probe, graph, precision)

    def export(name: str, precision: str = "fp32") -> tuple[Exported, list[str]]:
        monkeypatch.setattr(exporter, "exported_graph", lambda *_: small_graphs.exported(name))
        module, facts = small_graphs.generator(name)
        return export_generator(module, tmp_path / "m.onnx", facts, precision=precision), checked

    monkeypatch.setattr(Probe, "check", check)
    return export


def left(path: Path) -> int:
    """Transposed convolutions of stride 2 in a file."""
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "ConvTranspose"]
    strides = [each for node in nodes for each in node.attribute if each.name == "strides"]
    return sum(list(each.ints) == [2, 2] for each in strides)


FILES = [
    (DCGAN, "fp32", 44.9, {"batch norms": 3}, "transposed convolutions: 44.9 dB in bf16", 2),
    (DCGAN, "fp32", 45.0, {"batch norms": 3, "transposed convolutions": 3}, "", 1),
    (DCGAN, "fp32", None, {"batch norms": 3}, "transposed convolutions: no figure in bf16", 2),
    (DCGAN, "fp16", 60.0, {"batch norms": 3}, "", 2),  # of the fp32 graph, and as it is typed
    (UNET, "fp32", 45.0, {"transposed convolutions": 4}, "", 1),
    (UNET, "fp32", 44.9, {"transposed convolutions": 4}, "", 1),
    (UNET, "fp32", None, {"transposed convolutions": 4}, "", 1),
    (UNET, "fp16", 60.0, {"transposed convolutions": 4}, "", 2),
    ("tumour-progan", "fp32", 30.0, {}, "", 1),  # nothing to choose
]


@pytest.mark.parametrize(
    ("name", "precision", "bf16_db", "rewrites", "told", "checks"),
    [FILES[0], *(pytest.param(*each, marks=[pytest.mark.slow]) for each in FILES[1:])],
)
def test_a_file_gets_what_pays_in_what_it_will_run_in(
    exports, monkeypatch: pytest.MonkeyPatch, name, precision, bf16_db, rewrites, told, checks
) -> None:
    monkeypatch.setattr(exporter, "bf16_db", lambda _: bf16_db)
    made, checked = exports(name, precision)
    changed = {name: n for name, n in made.metadata.rewrites.items() if name != "constants"}
    assert changed == rewrites
    remedy = "; export on a processor that has bf16 for one that runs in it"
    ending = ", 45 dB wanted" + (remedy if bf16_db is None else "")
    assert made.left_out == (f"{told}{ending}" if told else "")
    assert left(made.path) == (
        3 if name == DCGAN and "transposed convolutions" not in rewrites else 0
    )
    assert len(checked) == checks
    assert checked[-1] == made.metadata.graph_sha256  # the figures are of what is written


def has_bf16() -> bool:
    return "BF16" in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.slow
def test_a_sampler_too_far_away_in_bf16_is_written_for_fp32(tmp_path: Path) -> None:
    """Weights of the last layer so large that tanh turns a rounding error into another colour."""
    if not has_bf16():
        pytest.skip("this processor has no bf16")
    module, facts = small_graphs.generator(DCGAN)
    module = copy.deepcopy(module)
    last = [layer for layer in module.modules() if isinstance(layer, torch.nn.ConvTranspose2d)][-1]
    with torch.no_grad():
        last.weight.mul_(500)
    made = export_generator(module, tmp_path / "m.onnx", facts)
    assert made.metadata.rewrites == {"batch norms": 3}
    assert "transposed convolutions: 4" in made.left_out  # dB
    assert left(made.path) == 3
    (x,) = random_inputs("sample", facts.input_shape, (4,), seed=7)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    assert difference([expected], [load(made.path, "onnxruntime").backend.run(x)])[0] < 1e-4
    assert load(made.path, "openvino").backend.precision == "fp32"
    graph = exporter.exported_graph(module, facts)
    exporter.rewrite(graph, SPLIT)
    report = check_parity(graph.SerializeToString(), [x], [expected], "PyTorch")
    (bf16,) = [engine for engine in report.engines if engine.precision == "bf16"]
    assert 30 < bf16.psnr_db < 45  # what it would have been


@pytest.mark.slow
def test_a_sampler_near_enough_in_bf16_runs_so(exports) -> None:
    if not has_bf16():
        pytest.skip("this processor has no bf16")
    made, _ = exports(DCGAN)
    assert made.metadata.rewrites == {"batch norms": 3, "transposed convolutions": 3}
    assert load(made.path, "openvino").backend.precision == "bf16"
    assert read_model_file(made.path).metadata == made.metadata
