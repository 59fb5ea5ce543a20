"""The benchmark of modes: every side makes the same slices, and others are not timed. A tiny
network; nothing here is about time."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

pytest.importorskip("onnxscript", reason="the models are made by export")

import inference
import inference_models as models
import modes

from fastmrigan.export.onnx import GeneratorFacts
from fastmrigan.models.dcgan import DcganGenerator
from fastmrigan.runtime.backends.base import Backend

OPTIONS = argparse.Namespace(quick=True, threads=2, json=None)


@pytest.fixture
def graph(monkeypatch) -> models.Graph:
    facts = GeneratorFacts("sample", "DCGAN-64", (32, 32), latent_size=8)
    monkeypatch.setitem(
        models.NETWORKS,
        "DCGAN-64",
        (lambda size: DcganGenerator(size=size, latent=8, width=4), facts),
    )
    monkeypatch.setitem(inference.ENGINES, inference.TAKEN, ("openvino", "fp32"))
    monkeypatch.setattr(inference, "PRODUCT", 64)
    monkeypatch.setattr(inference, "CONVOLVED", (4, 8))
    monkeypatch.setattr(modes, "FLOW", 3)
    return models.as_graph("DCGAN-64", models.make("DCGAN-64"))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_row(graph, capsys, backend):
    found = modes.measure(graph, 2, backend, "fp32", OPTIONS)
    sides = list(found["engines"])
    assert sides[0] == "latency"
    assert "throughput" in sides
    assert list(found["slices_per_s"]) == list(found["call_ms"]) == sides
    assert found["engines"]["throughput"]["mode"] == "throughput"
    assert max(found["max_abs_difference"].values()) < 1e-5
    assert found["same_bits"]["latency"] is True
    modes.print_row(found)
    assert f"DCGAN-64, batch 2, {backend} in fp32" in capsys.readouterr().out


def test_a_side_that_makes_other_slices_is_not_timed(graph, capsys, monkeypatch):
    real = Backend.run_all

    def brighter(self, xs):
        for slices in real(self, xs):
            yield slices + np.float32(0.1) * (self.mode == "throughput")

    monkeypatch.setattr(Backend, "run_all", brighter)
    found = modes.measure(graph, 2, "openvino", "fp32", OPTIONS)
    assert found["met"] is False
    assert "call_ms" not in found
    modes.print_row(found)
    assert "WRONG RESULT, not timed: throughput" in capsys.readouterr().out
