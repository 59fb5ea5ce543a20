"""Fused modules in an ONNX file: standard operators alone, and the values of PyTorch."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from instance_norm_tables import ACTIVATIONS
from torch import Tensor, nn

from fastmrigan.export.onnx import OPSET, GeneratorFacts, build_graph, check_graph
from fastmrigan.export.translations import TRANSLATIONS
from fastmrigan.ops import FusedInstanceNorm2d, FusedInstanceNorm3d, instance_norm


class EveryVariant(nn.Module):
    """x [N, 3, H, W] and volume [N, 3, D, H, W] through each activation, affine and residual."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norms = nn.ModuleList(
            FusedInstanceNorm2d(3, eps=1e-3, affine=affine, activation=activation, slope=0.3)
            for activation in ACTIVATIONS
            for affine in (False, True)
        )
        self.volume = FusedInstanceNorm3d(3, affine=True, activation="leaky_relu")
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor, volume: Tensor) -> tuple[Tensor, ...]:
        # Each variant has an input of its own: equal parts of a graph would be merged.
        flat = [norm(x + i) for i, norm in enumerate(self.norms)]
        flat += [norm(x - i, x) for i, norm in enumerate(self.norms, 1)]
        weight, bias = self.norms[1].weight, self.norms[1].bias
        return (
            *flat,
            instance_norm(x * 2, weight, activation="relu"),
            instance_norm(x * 3, bias=bias),
            self.volume(volume, volume),
        )


@pytest.fixture(scope="module")
def every_variant() -> nn.Module:
    return EveryVariant().eval()


@pytest.fixture(scope="module")
def program(every_variant):
    batches = {0: torch.export.Dim("batch")}, {0: torch.export.Dim("volumes")}
    with warnings.catch_warnings():
        # torch.export calls a helper that torch itself deprecates.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        return torch.onnx.export(
            every_variant,
            (torch.randn(2, 3, 6, 7), torch.randn(2, 3, 4, 5, 6)),
            dynamo=True,
            dynamic_shapes=batches,
            input_names=["x", "volume"],
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )


def test_onnx_has_standard_operators_alone(program):
    graph = program.model_proto
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    assert not graph.functions
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("InstanceNormalization") == 2 * 2 * len(ACTIVATIONS) + 3
    assert {"Relu", "LeakyRelu", "Add"} <= set(kinds)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_runtime_gives_the_same_values(program, every_variant, batch):
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x, volume = torch.randn(batch, 3, 6, 7), torch.randn(batch, 3, 4, 5, 6)
    with torch.inference_mode():
        expected = every_variant(x, volume)
    actual = session.run(None, {"x": x.numpy(), "volume": volume.numpy()})
    for got, want in zip(actual, expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_file_can_hold_a_fused_generator():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        FusedInstanceNorm2d(4, affine=True, activation="relu"),
        nn.Conv2d(4, 1, 3, padding=1),
        nn.Tanh(),
    ).eval()
    facts = GeneratorFacts("translate", "test", (16, 16))
    graph = build_graph(module, facts)
    check_graph(graph, facts)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = torch.randn(3, 1, 16, 16)
    (got,) = session.run(None, {"source": x.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(got, module(x).numpy(), rtol=1e-4, atol=1e-5)
