"""The benchmark of the rewrites: its graphs are the exported one and one rewrite off it, all of
them make the same slices, and wrong ones are not timed. Small networks; nothing is about time."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxscript", reason="the graphs are made by export")

import rewrites
from rewrites_graphs import CHOSEN, NONE, Graphs, Network, graphs_of
from small_graphs import OVERRIDES

from fastmrigan.export.choice import REWRITES, chosen

pytestmark = pytest.mark.slow  # exports take seconds each


def small(name: str, *overrides: str) -> Network:
    return Network(name, (*OVERRIDES[name], "steps=6", *overrides), (2,))


PLAIN = (("openvino", "fp32"), ("onnxruntime", "fp32"))
NORMS, BIASES, SPLIT = "batch norms", "inert biases", "transposed convolutions"


@pytest.mark.parametrize(
    ("name", "changed", "sides"),
    [
        (
            "tumour-dcgan64",
            {NORMS: 3, SPLIT: 3},
            {
                "bf16": {
                    CHOSEN: {NORMS, SPLIT},
                    f"without {NORMS}": {SPLIT},
                    f"without {SPLIT}": {NORMS},
                    NONE: set(),
                },
                "fp32": {
                    CHOSEN: {NORMS},
                    f"without {NORMS}": set(),
                    f"with {SPLIT}": {NORMS, SPLIT},
                },
            },
        ),
        (
            "t2-tumour-cyclegan",
            {BIASES: 9},
            {"fp32": {CHOSEN: set(), f"with {BIASES}": {BIASES}}},
        ),
    ],
)
def test_sides_are_what_is_chosen_and_one_rewrite_off_it(name, changed, sides):
    graphs = graphs_of(small(name), "fp32")
    assert graphs.changed == dict.fromkeys(REWRITES, 0) | changed
    for computed_in, expected in sides.items():
        found = graphs.sides(chosen(graphs.facts.task, computed_in))
        assert found == expected
        assert next(iter(found)) == CHOSEN
        made = {each: graphs.of(names) for each, names in found.items()}
        assert len(set(made.values())) == len(made)
        kinds = {each: kinds_of(graph) for each, graph in made.items()}
        for each, names in found.items():
            assert kinds[each]["BatchNormalization"] == (
                0 if NORMS in names else changed.get(NORMS, 0)
            )
            if name == "tumour-dcgan64":
                assert kinds[each]["ConvTranspose"] == (1 if SPLIT in names else 4)
        for engine in PLAIN:
            row = rewrites.measure(engine, graphs, 2, threads=1, budget=0.01)
            assert "wrong" not in row
            assert set(row["psnr_db"]) == set(graphs.sides(chosen(graphs.facts.task, "fp32")))


def kinds_of(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


def test_constants_are_there_and_the_slices_are_worth_comparing():
    graphs = graphs_of(small("style-transfer-gan"), "fp32")
    assert graphs.changed["constants"] > 0
    assert graphs.expected(graphs.given(2)).std() > 0.1


@pytest.mark.parametrize("typed", ["bf16", "fp16", "int8"])
def test_typed_graphs(typed):
    if typed == "int8":
        pytest.importorskip("nncf", reason="int8 is calibrated by NNCF")
    graphs = graphs_of(small("tumour-dcgan64"), typed)
    engines = rewrites.usable(typed, lambda what, why: None)
    if not engines:
        pytest.skip(f"nothing here computes in {typed}")
    for engine in engines:
        row = rewrites.measure(engine, graphs, 2, threads=1, budget=0.01)
        assert "wrong" not in row
        assert row["chosen"] == ([SPLIT] if typed == "bf16" else [])
        assert set(row["ratios"]) == {SPLIT}
        assert row["as_asked"] == dict.fromkeys(row["psnr_db"], True)
        assert row["psnr_db"][CHOSEN] < 100  # it is not computed in fp32


def test_a_run_and_a_wrong_graph(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setattr(rewrites, "NETWORKS", {"small": small("tumour-dcgan64")})
    monkeypatch.setattr(rewrites, "ENGINES", {"fp32": PLAIN})
    options = argparse.Namespace(
        network=None, precision=None, seconds=60.0, threads=1, json=tmp_path / "r.json"
    )
    assert rewrites.run(options) == 0
    document = json.loads(options.json.read_text())
    assert [row["engine"] for row in document["rows"]] == ["openvino fp32", "onnxruntime fp32"]
    assert all({"chosen", "better"} <= row.keys() for row in document["rows"])
    said = document["verdicts"]
    assert set(said) == {NORMS, SPLIT}
    assert {sum(map(len, kinds.values())) for kinds in said.values()} == {2}
    printed = capsys.readouterr().out
    assert "without batch norms" in printed
    assert "with transposed convolutions" in printed
    assert " rows of 2\n" in printed
    assert "chosen as it is since: " in printed

    honest = Graphs.of

    def worse(graphs, names):
        graph = onnx.load_from_string(honest(graphs, names))
        for weight in graph.graph.initializer:
            if len(weight.dims) == 4:
                values = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
                weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return graph.SerializeToString()

    monkeypatch.setattr(Graphs, "of", worse)
    assert rewrites.run(options) == 6
    assert "WRONG RESULT, not timed: chosen: " in capsys.readouterr().out
    assert all("times" not in row for row in json.loads(options.json.read_text())["rows"])


def test_rows_past_the_limit_are_named(capsys, tmp_path: Path):
    options = argparse.Namespace(
        network=None, precision=["fp32", "fp16"], seconds=0.0, threads=1, json=tmp_path / "r.json"
    )
    assert rewrites.run(options) == 0
    said = capsys.readouterr().out
    assert "U-Net 256, batch 1, onnxruntime fp32: left out, past 0 s" in said
    assert "U-Net 256, batch 1, onnxruntime fp16, typed: left out, past 0 s" in said
    left_out = json.loads(options.json.read_text())["left_out"]
    assert {name.split(",")[0] for name in left_out} >= set(rewrites.NETWORKS)


def ratios(low: float, high: float) -> dict[str, float]:
    return {"of_medians": (low + high) / 2, "per_round": 1.0, "low": low, "high": high}


PAYS, COSTS = ratios(1.1, 1.3), ratios(0.7, 0.9)
NEITHER = [ratios(0.9, 1.1), ratios(1.001, 1.02), ratios(0.985, 0.999), ratios(0.8, 1.1)]


@pytest.mark.parametrize(
    ("chosen", "found", "better"),
    [
        (["constants"], {"constants": PAYS}, []),
        (["constants"], {"constants": COSTS}, ["without constants"]),
        ([], {"constants": PAYS}, ["with constants"]),
        ([], {"constants": COSTS}, []),
        (["constants"], {"constants": PAYS, "none": COSTS}, ["none"]),
        (["constants"], {"constants": PAYS, "none": PAYS}, []),
        ([NORMS], {NORMS: COSTS, SPLIT: PAYS}, [f"without {NORMS}", f"with {SPLIT}"]),
        *((each, {NORMS: ratio}, []) for each in ([], [NORMS]) for ratio in NEITHER),
    ],
)
def test_whether_the_choice_was_right(chosen, found, better):
    assert rewrites.better({"chosen": chosen, "ratios": found}) == better


def test_what_pays_and_what_costs(capsys):
    row = {"network": "n", "batch": 1, "engine": "e", "typed": "fp32", "better": []}
    found = rewrites.verdicts(
        [
            row | {"ratios": {"constants": PAYS, "none": PAYS}},
            *(row | {"ratios": {"constants": ratio}} for ratio in NEITHER),
            row | {"ratios": {"constants": COSTS}, "better": ["without constants"]},
            row | {"wrong": "chosen"},
        ]
    )
    assert {kind: len(each) for kind, each in found["constants"].items()} == {
        "pays": 1,
        "costs": 1,
        "neither": 4,
    }
    assert list(found) == ["constants"]
    printed = capsys.readouterr().out
    assert "  costs: n, batch 1, e: 0.80x" in printed
    assert "what is chosen was right in 5 rows of 6" in printed
    assert "  n, batch 1, e: faster without constants" in printed
