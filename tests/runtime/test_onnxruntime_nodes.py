"""Which provider of ONNX Runtime runs how many nodes; with CUDA against a stand-in, not run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from fastmrigan.cli.bulk import engine_line
from fastmrigan.errors import UsageError
from fastmrigan.runtime import load

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def test_every_node_on_the_cpu(write_model):
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime is older than 1.24 and does not tell")
    generator = load(write_model(), "onnxruntime")
    assert generator.backend.describe()["nodes"] == {CPU: 3}  # MatMul, Tanh, Reshape
    assert f"; 3 nodes on {CPU}" in engine_line(generator)


def session(providers: list[str], assigned: list[tuple[str, int]] | None) -> type:
    """A stand-in for InferenceSession that has the providers, and the nodes on them."""

    class Session:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            assert options == {"providers": [CUDA]}

        def disable_fallback(self) -> None: ...

        def get_providers(self) -> list[str]:
            return providers

        def get_inputs(self) -> list[Any]:
            return [SimpleNamespace(name="latent")]

    if assigned is not None:
        Session.get_provider_graph_assignment_info = lambda self: [
            SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
            for name, count in assigned
        ]
    return Session


@pytest.mark.parametrize(
    ("providers", "assigned", "nodes"),
    [
        ([CUDA, CPU], [(CUDA, 1), (CPU, 1), (CUDA, 4)], {CPU: 1, CUDA: 5}),
        ([CUDA, CPU], [(CUDA, 3)], {CUDA: 3}),
        ([CUDA, CPU], None, {}),  # ONNX Runtime before 1.24
    ],
)
def test_nodes_with_cuda(write_model, monkeypatch, providers, assigned, nodes):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session(providers, assigned))
    assert load(write_model(), "onnxruntime-cuda").backend.describe()["nodes"] == nodes


@pytest.mark.parametrize(
    ("providers", "assigned", "text"),
    [
        ([CPU], [(CPU, 3)], f"could not start {CUDA}; check the driver"),
        ([CPU, CUDA], [(CUDA, 3)], f"could not start {CUDA}"),
        ([CUDA, CPU], [(CPU, 3)], rf"runs no node of .*tiny\.onnx on {CUDA}; take another"),
    ],
)
def test_cuda_that_does_not_run_is_an_error(write_model, monkeypatch, providers, assigned, text):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session(providers, assigned))
    with pytest.raises(UsageError, match=text):
        load(write_model(), "onnxruntime-cuda")
