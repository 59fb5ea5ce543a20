"""The inference benchmark: its sides compute the same, and wrong slices are not timed. Tiny
networks; nothing here is about time."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

pytest.importorskip("onnxscript", reason="the models are made by export")

import inference
import inference_models as models
from timing import interleave

from fastmrigan.export.onnx import GeneratorFacts
from fastmrigan.models.dcgan import DcganGenerator
from fastmrigan.models.resnet import ResnetGenerator
from fastmrigan.models.unet import UnetGenerator
from fastmrigan.ops import FusedInstanceNorm2d
from fastmrigan.runtime import load

TINY = {
    "ResNet-9": lambda: ResnetGenerator(size=32, width=4, blocks=2),
    "U-Net": lambda: UnetGenerator(size=32, width=4),
    "DCGAN-64": lambda: DcganGenerator(size=32, latent=8, width=4),
}
OPTIONS = argparse.Namespace(quick=True, threads=1, json=None)


def tiny(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    x = torch.from_numpy(models.inputs(8 if name == "DCGAN-64" else None, 32, 4))
    return models.seeded(TINY[name](), x), x


@pytest.mark.parametrize("name", ["ResNet-9", "U-Net"])
def test_the_baseline_computes_what_the_fused_network_does(name):
    network, x = tiny(name)
    with torch.inference_mode():
        fused = network(x)
        plain = models.plain(network)(x)
    assert not any(
        isinstance(child, FusedInstanceNorm2d)
        for layer in network.modules()
        if not isinstance(layer, models.PlainNorm)
        for child in layer.children()
    )
    assert torch.allclose(plain, fused, atol=1e-5)
    assert not torch.equal(plain, fused)  # other operators


@pytest.mark.parametrize("name", TINY)
def test_slices_use_their_range_and_depend_on_the_seed_alone(name):
    (network, x), (again, _) = tiny(name), tiny(name)
    with torch.inference_mode():
        made = network(x)
        assert torch.equal(made, again(x))
    assert 0.3 < made.std() < 0.6  # tanh of a standard deviation of 0.5
    assert not network.training


@pytest.mark.parametrize("quick", [True, False])
def test_a_row_and_a_wrong_one(monkeypatch, capsys, quick):
    options = argparse.Namespace(quick=quick, threads=1, json=None)
    facts = GeneratorFacts("translate", "U-Net", (32, 32))
    monkeypatch.setitem(models.NETWORKS, "U-Net", (UnetGenerator, facts))
    monkeypatch.setitem(inference.ENGINES, inference.TAKEN, ("openvino", "fp32"))
    monkeypatch.setattr(inference, "PRODUCT", 64)
    monkeypatch.setattr(inference, "CONVOLVED", (4, 8))
    network, _ = tiny("U-Net")
    graph = models.as_graph("U-Net", network)
    row = inference.Row("U-Net", 2, bar=1e9)
    found = inference.measure(row, network, graph, options)
    names = [inference.TAKEN] if quick else list(inference.ENGINES)
    assert list(found["psnr_db"]) == list(found["ratios"]) == names
    assert min(found["psnr_db"].values()) > 90
    assert found["met"] is False
    # By hand: the first down makes 4 maps of 16x16 from one, 4x4 taps each.
    assert found["limit"]["operations"] > 2 * 2 * 4 * 16 * 16 * 16
    assert found["limit"]["bare_gflops"].keys() == {"products", "convolutions"}
    inference.print_row(found)
    assert "at least 1e+09x: MISSED" in capsys.readouterr().out

    with torch.no_grad():
        network.head[0].bias += 0.1
    found = inference.measure(row, network, graph, options)
    inference.print_row(found)
    assert "U-Net, batch 2: WRONG RESULT, not timed: openvino" in capsys.readouterr().out
    assert found["met"] is False
    assert "times" not in found


def test_the_limits_multiply_and_count_it(monkeypatch):
    monkeypatch.setitem(inference.ENGINES, inference.TAKEN, ("openvino", "fp32"))
    monkeypatch.setattr(inference, "PRODUCT", 32)
    monkeypatch.setattr(inference, "CONVOLVED", (4, 8))
    found = inference.limits(1)
    weights = {
        name: [
            torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in onnx.load_from_string(graph.data).graph.initializer
        ]
        for name, graph in [
            ("products", models.products(32, 4)),
            ("convolutions", models.convolutions(4, 8, 4)),
        ]
    }
    steps = {
        "products": torch.matmul,
        "convolutions": lambda x, w: torch.nn.functional.conv2d(x, w, padding=1),
    }
    counted = {"products": 4 * 2 * 32**3, "convolutions": 4 * 2 * 9 * 4 * 4 * 8 * 8}
    for name, shape in [("products", (32, 32)), ("convolutions", (1, 1, 8, 8))]:
        call, operations = found[name]
        y = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
        for weight in weights[name]:
            y = steps[name](y, weight)
        np.testing.assert_allclose(call(), y.numpy(), atol=1e-4)
        assert operations == counted[name]


def test_wrapper_on_the_identity_model(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(inference, "IDENTITY", 16)
    found = inference.wrapper(tmp_path, OPTIONS)
    assert found["bare_us"] > 0
    assert found["added_us"]["bare"] == 0
    assert found["met"] == (found["added_us"]["generator"] <= 50)
    x = models.inputs(None, 16, 1)
    model = models.identity(tmp_path, 16)
    properties = load(model.path, "openvino", batch=1, threads=1).backend.properties
    call = inference.bare_call(model, x, properties)
    assert np.array_equal(call()[0], x)


def test_sides_known_to_be_warm_are_called_in_rounds_alone():
    calls = []
    sides = {name: lambda name=name: calls.append(name) for name in "ab"}
    taken = interleave(sides, 3, least=3, alone={"a": 1.0, "b": 1.0}, budget=1)
    assert calls == list("abbaab")
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 3, "b": 3}
