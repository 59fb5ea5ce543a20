"""The networks of inference.py as graphs and as model files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from inference_networks import NETWORKS, SEED, PlainNorm, inputs, make, plain, seeded
from onnx import TensorProto, helper, numpy_helper

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


def products(side: int, count: int) -> Graph:
    """`count` products in a row of [batch, side] with matrices [side, side] that are known when an
    engine compiles it, so that it may pack them once; the last has 16 columns, so that little is
    copied out."""
    widths = [side] * count + [16]
    matrices = {f"w{i}": scaled((side, width), side) for i, width in enumerate(widths)}
    return chain("MatMul", matrices, [side], [16])


def convolutions(channels: int, side: int, count: int) -> Graph:
    """`count` convolutions of 3x3 in a row of `channels` to as many, [batch, channels, side, side],
    and nothing between them; the first is from one map and the last to one, so that little is
    copied in and out."""
    widths = [1, *[channels] * (count + 1), 1]
    kernels = {
        f"w{i}": scaled((out, into, 3, 3), 9 * into)
        for i, (into, out) in enumerate(pairwise(widths))
    }
    return chain("Conv", kernels, [1, side, side], [1, side, side], pads=[1, 1, 1, 1])


def scaled(shape: tuple[int, ...], summed: int) -> np.ndarray:
    """Weights that keep the size of values where each result is a sum of `summed` products."""
    return np.random.default_rng(SEED).normal(0, summed**-0.5, shape).astype(np.float32)


def chain(
    kind: str, weights: Mapping[str, np.ndarray], taken: list[int], made: list[int], **setting: Any
) -> Graph:
    """Nodes of one kind, each with its weights on what the one before it makes, and nothing else:
    [batch, *taken] to [batch, *made]."""
    names = ["x", *(f"x{i}" for i in range(1, len(weights))), "y"]
    nodes = [
        helper.make_node(kind, [before, name], [after], **setting)
        for (before, after), name in zip(pairwise(names), weights, strict=True)
    ]
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *taken])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *made])],
        [numpy_helper.from_array(values, key) for key, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return Graph(Path(f"{kind}.onnx"), model.SerializeToString())
