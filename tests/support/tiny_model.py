"""A tiny model file, made with the onnx package alone."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LATENT, SIZE = 8, 16


def metadata(**changes: object) -> dict[str, object]:
    document: dict[str, object] = {
        "schema_version": 1,
        "task": "sample",
        "recipe": "tiny",
        "latent_size": LATENT,
        "slice_size": [SIZE, SIZE],
        "grading": {"method": "minmax"},
        "weights_sha256": "0" * 64,
        "graph_sha256": "filled in by write_model",
        "rewrites": {"batch norms": 4},
        "training_data": {"fingerprint": "none"},
        "parity": {},
        "versions": {},
    }
    return document | changes


def weights() -> np.ndarray:
    """[latent, H * W]"""
    return np.random.default_rng(0).normal(0, 0.3, (LATENT, SIZE * SIZE)).astype(np.float32)


def tiny_graph(task: str = "sample") -> onnx.ModelProto:
    """sample: tanh(latent @ weights) as a slice. translate: the negative of the slice."""
    shape = ["batch", LATENT] if task == "sample" else ["batch", 1, SIZE, SIZE]
    name = "latent" if task == "sample" else "source"
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
    output = helper.make_tensor_value_info("slice", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])
    if task == "sample":
        nodes = [
            helper.make_node("MatMul", ["latent", "weights"], ["flat"]),
            helper.make_node("Tanh", ["flat"], ["squashed"]),
            helper.make_node("Reshape", ["squashed", "shape"], ["slice"]),
        ]
        constants = [
            numpy_helper.from_array(weights(), "weights"),
            numpy_helper.from_array(np.array([-1, 1, SIZE, SIZE]), "shape"),
        ]
    else:
        nodes, constants = [helper.make_node("Neg", ["source"], ["slice"])], []
    graph = helper.make_graph(nodes, "tiny", inputs, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
