"""The networks of inference.py as graphs and as model files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from inference_networks import NETWORKS, PlainNorm, inputs, make, plain, seeded
from onnx import TensorProto, helper

import fastmrigan
from fastmrigan.export.onnx import build_graph, check_graph, export_generator, with_metadata
from fastmrigan.runtime.model_file import ModelFile, ModelMetadata, read_model_file
from fastmrigan.runtime.onnx_wire import graph_sha256

__all__ = [
    "NETWORKS",
    "Graph",
    "PlainNorm",
    "as_graph",
    "as_model_file",
    "identity",
    "inputs",
    "make",
    "plain",
    "seeded",
]


@dataclass(frozen=True)
class Graph:
    """What an engine reads; no parity figures, since the benchmark names the precision."""

    path: Path
    data: bytes
    parity: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"  # that it is typed in


def as_graph(name: str, network: torch.nn.Module) -> Graph:
    """The graph that `fastmrigan export` writes of it."""
    facts = NETWORKS[name][1]
    graph = build_graph(network, facts)
    check_graph(graph, facts)
    return Graph(Path(f"{name}.onnx"), graph.SerializeToString())


def as_model_file(name: str, network: torch.nn.Module, folder: Path) -> ModelFile:
    """The model file that `fastmrigan export` writes of it, parity checked."""
    path = folder / f"{name}.onnx"
    export_generator(network, path, NETWORKS[name][1])
    return read_model_file(path)


def identity(folder: Path, size: int) -> ModelFile:
    """A model file whose slices are the source's own: what is left of a call is overhead."""
    shape = ["batch", 1, size, size]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["source"], ["slice"])],
        "identity",
        [helper.make_tensor_value_info("source", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("slice", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    metadata = ModelMetadata(
        task="translate",
        recipe="identity",
        slice_size=(size, size),
        grading={},
        weights_sha256="0" * 64,  # it has none
        graph_sha256=graph_sha256(model.SerializeToString(deterministic=True)),
        training_data={},
        parity={},
        versions={"fastmrigan": fastmrigan.__version__, "onnx": onnx.__version__},
    )
    path = folder / "identity.onnx"
    path.write_bytes(with_metadata(model, metadata.model_dump(mode="json")))
    return read_model_file(path)
