"""The model files that the C tests open: good ones, and one for each thing that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import tiny_model
from onnx import TensorProto, helper

from fastmrigan.runtime import onnx_wire

SIDE = 8  # of the slices of the C programs' models


def with_metadata(model: onnx.ModelProto, document: dict[str, object] | str) -> bytes:
    """The whole file: the graph, and the document with the graph's own sha256."""
    graph = model.SerializeToString()
    if not isinstance(document, str):
        document = json.dumps(document | {"graph_sha256": onnx_wire.graph_sha256(graph)})
    entry = onnx.StringStringEntryProto(key="fastmrigan", value=document)
    return graph + onnx.ModelProto(metadata_props=[entry]).SerializeToString()


def negative(side: int = SIDE, operator: str = "Neg") -> onnx.ModelProto:
    """Translates a slice to its negative."""
    shape = ["batch", 1, side, side]
    graph = helper.make_graph(
        [helper.make_node(operator, ["source"], ["slice"])],
        "tiny",
        [helper.make_tensor_value_info("source", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("slice", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def translating(**changes: object) -> dict[str, object]:
    document = tiny_model.metadata(task="translate", slice_size=[SIDE, SIDE], latent_size=None)
    return document | changes


def external() -> onnx.ModelProto:
    model = negative()
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return model


def write_models(folder: Path) -> None:
    """Every file of codes_tests.c and the others."""
    good = with_metadata(negative(), translating())
    altered = good.replace(b"Neg", b"Abs", 1)
    assert altered != good
    deep = "[" * 100_000
    files = {
        "good": good,
        "empty": b"",
        "truncated": good[:-5],
        "text": b"no model at all, but some text",
        "plain": negative().SerializeToString(),
        "newer": with_metadata(negative(), translating(schema_version=2)),
        "altered": altered,
        "external": with_metadata(external(), translating()),
        "notjson": with_metadata(negative(), '{"schema_version": 1,'),
        "deepjson": with_metadata(negative(), deep),
        "notask": with_metadata(negative(), translating(task="dream")),
        "negative": with_metadata(negative(), translating(slice_size=[-8, 8])),
        "fraction": with_metadata(negative(), translating(slice_size=[8.5, 8])),
        "nolatent": with_metadata(negative(), translating(task="sample")),
        "othersize": with_metadata(negative(), translating(slice_size=[9, 8])),
        "unknown": with_metadata(negative(operator="Nag"), translating()),
        "norule": with_metadata(negative(), translating(grading={"method": "by eye"})),
    }
    for name, data in files.items():
        (folder / f"{name}.onnx").write_bytes(data)
