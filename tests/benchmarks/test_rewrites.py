"""The benchmark of the rewrites: its graphs are the exported one without one rewrite each, all of
them make the same slices, and wrong ones are not timed. Small networks; nothing is about time."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript", reason="the graphs are made by export")

import rewrites
from small_graphs import OVERRIDES

from fastmrigan.export.graph import REWRITES

pytestmark = pytest.mark.slow  # exports take seconds each


def small(name: str, *overrides: str) -> rewrites.Network:
    return rewrites.Network(name, (*OVERRIDES[name], "steps=6", *overrides), (2,))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("tumour-dcgan64", {"batch norms": 3, "transposed convolutions": 3}),
        ("t2-tumour-cyclegan", {"inert biases": 9}),
        ("style-transfer-gan", None),
    ],
)
def test_graphs_without_one_rewrite_each(name, changed):
    module, facts = rewrites.made(small(name))
    found, counts = rewrites.graphs(module, facts)
    if changed is None:
        assert counts["constants"] > 0
    else:
        assert counts == dict.fromkeys(REWRITES, 0) | changed
    applied = [each for each in REWRITES if counts[each]]
    none = [rewrites.NONE] if len(applied) > 1 else []
    assert list(found) == [rewrites.ALL, *applied, *none]
    kinds = {each: Counter(n.op_type for n in graph.graph.node) for each, graph in found.items()}
    for each in applied:
        assert found[each].SerializeToString() != found[rewrites.ALL].SerializeToString()
    if name == "tumour-dcgan64":
        more = kinds["batch norms"] - kinds[rewrites.ALL]
        assert more.pop("BatchNormalization") == counts["batch norms"]
        assert set(more) <= {"CastLike", "Slice", "Unsqueeze"}
        assert kinds["transposed convolutions"]["ConvTranspose"] == 4
        assert kinds[rewrites.ALL]["ConvTranspose"] == 1

    x = rewrites.inputs(facts.latent_size, facts.slice_size[0], 2)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    assert expected.std() > 0.1
    for engine in (("openvino", "fp32"), ("onnxruntime", "fp32")):
        given = {each: graph.SerializeToString() for each, graph in found.items()}
        row = rewrites.measure(engine, given, x, expected, threads=1, budget=0.01)
        assert "wrong" not in row
        assert set(row["ratios"]) == {*applied, *none}


def test_a_run_and_a_wrong_graph(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setattr(rewrites, "NETWORKS", {"small": small("tumour-dcgan64")})
    monkeypatch.setattr(rewrites, "ENGINES", (("openvino", "fp32"), ("onnxruntime", "fp32")))
    options = argparse.Namespace(network=None, seconds=60.0, threads=1, json=tmp_path / "r.json")
    assert rewrites.run(options) == 0
    document = json.loads(options.json.read_text())
    assert [row["engine"] for row in document["rows"]] == ["openvino fp32", "onnxruntime fp32"]
    said = document["verdicts"]
    assert set(said) == {"batch norms", "transposed convolutions"}
    assert {sum(map(len, kinds.values())) for kinds in said.values()} == {2}
    assert "without batch norms" in capsys.readouterr().out

    honest = rewrites.rewrite

    def worse(graph, **options):
        counts = honest(graph, **options)
        for weight in graph.graph.initializer:
            if len(weight.dims) == 4:
                values = rewrites.onnx.numpy_helper.to_array(weight) * np.float32(1.01)
                weight.CopyFrom(rewrites.onnx.numpy_helper.from_array(values, weight.name))
        return counts

    monkeypatch.setattr(rewrites, "rewrite", worse)
    assert rewrites.run(options) == 6
    assert "WRONG RESULT, not timed: all: " in capsys.readouterr().out
    assert all("times" not in row for row in json.loads(options.json.read_text())["rows"])


def test_rows_past_the_limit_are_named(capsys, tmp_path: Path):
    options = argparse.Namespace(network=None, seconds=0.0, threads=1, json=tmp_path / "r.json")
    assert rewrites.run(options) == 0
    assert "U-Net 256: left out, past 0 s" in capsys.readouterr().out
    assert set(json.loads(options.json.read_text())["left_out"]) >= set(rewrites.NETWORKS)


def ratios(low: float, high: float) -> dict[str, float]:
    return {"of_medians": (low + high) / 2, "per_round": 1.0, "low": low, "high": high}


def test_what_pays_and_what_costs(capsys):
    row = {"network": "n", "batch": 1, "engine": "e"}
    found = rewrites.verdicts(
        [
            row | {"ratios": {"constants": ratios(1.1, 1.3), "none": ratios(2, 3)}},
            row | {"ratios": {"constants": ratios(0.9, 1.1)}},
            row | {"ratios": {"constants": ratios(1.001, 1.02)}},
            row | {"ratios": {"constants": ratios(0.7, 0.9)}},
            row | {"wrong": "all"},
        ]
    )
    assert {kind: len(each) for kind, each in found["constants"].items()} == {
        "pays": 1,
        "costs": 1,
        "neither": 2,
    }
    assert list(found) == ["constants"]
    assert "costs: n, batch 1, e: 0.80x" in capsys.readouterr().out
