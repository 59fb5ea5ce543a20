"""A model file for the bench, small enough that calls of it take microseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastmrigan.runtime.model_file import METADATA_KEY, ModelMetadata
from fastmrigan.runtime.onnx_wire import graph_sha256


def write_model(path: Path, task: str) -> Path:
    """A model file by hand: tanh of a projection (sample), or of the slice itself (translate)."""
    weights = np.random.default_rng(0).standard_normal((8, 16), dtype=np.float32)
    shape = ["batch", 8] if task == "sample" else ["batch", 1, 4, 4]
    name = "latent" if task == "sample" else "source"
    first = helper.make_node("MatMul", [name, "weights"], ["flat"])
    if task == "translate":
        first = helper.make_node("Identity", [name], ["flat"])
    graph = helper.make_graph(
        [
            first,
            helper.make_node("Reshape", ["flat", "shape"], ["square"]),
            helper.make_node("Tanh", ["square"], ["slice"]),
        ],
        "hand",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("slice", TensorProto.FLOAT, ["batch", 1, 4, 4])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([-1, 1, 4, 4]), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    metadata = ModelMetadata(
        task=task,
        recipe="hand",
        latent_size=8 if task == "sample" else None,
        slice_size=(4, 4),
        grading={},
        weights_sha256="0" * 64,
        graph_sha256=graph_sha256(model.SerializeToString()),
        training_data={},
        parity={},
        versions={},
    )
    helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    onnx.save(model, path)
    return path
