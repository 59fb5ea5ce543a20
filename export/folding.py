"""What of an exported graph is known before it runs: constants, and batch norms behind a layer.

PyTorch's exporter folds most of both. It leaves operators of several outputs (Split), what hangs on
them, and a batch norm that a reshape parts from its dense layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]


def fold_constants(model: onnx.ModelProto) -> int:
    """Puts weights in the place of every node that reads nothing but weights; returns how many."""
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    known = {each.name: each for each in graph.initializer}
    results = {each.name for each in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        given = [name for name in node.input if name]
        if not all(name in known for name in given) or results & set(node.output):
            kept.append(node)
            continue
        alone = onnx.helper.make_graph(
            [node], "constant", [], [onnx.ValueInfoProto(name=name) for name in node.output if name]
        )
        alone.initializer.extend(known[name] for name in dict.fromkeys(given))
        evaluator = ReferenceEvaluator(
            onnx.helper.make_model(alone, opset_imports=model.opset_import)
        )
        for name, value in zip(evaluator.output_names, evaluator.run(None, {}), strict=True):
            known[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
            graph.initializer.append(known[name])
    folded = len(graph.node) - len(kept)
    _replace(graph, kept)
    return folded


def fold_batch_norms(model: onnx.ModelProto) -> int:
    """Multiplies into a dense layer the batch norm that follows it behind a reshape to
    [N, C, H, W]; returns how many. The arithmetic is float64, rounded once."""
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    kept: list[onnx.NodeProto] = []
    folded = 0
    for node in graph.node:
        reshape = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        dense = makers.get(reshape.input[0]) if reshape and reshape.op_type == "Reshape" else None
        if reshape is None or dense is None or not _foldable(graph, dense, reshape, weights):
            kept.append(node)
            continue
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        scale, shift, mean, variance = (weights[name].astype(np.float64) for name in node.input[1:])
        factor = scale / np.sqrt(variance + given.get("epsilon", 1e-5))  # [C]
        # A dense layer's outputs are [C, H, W] in C order.
        pixels = weights[dense.input[1]].shape[0] // len(factor)
        weight = weights[dense.input[1]] * np.repeat(factor, pixels)[:, None]
        bias = weights[dense.input[2]] if len(dense.input) == 3 else np.zeros(len(weight))
        bias = (bias - np.repeat(mean, pixels)) * np.repeat(factor, pixels)
        bias += np.repeat(shift, pixels)
        names = [f"{dense.output[0]}.folded.weight", f"{dense.output[0]}.folded.bias"]
        for name, value in zip(names, (weight, bias), strict=True):
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        dense.input[:] = [dense.input[0], *names]
        reshape.output[0] = node.output[0]
        folded += 1
    _replace(graph, kept)
    return folded


def _foldable(
    graph: onnx.GraphProto,
    dense: onnx.NodeProto,
    reshape: onnx.NodeProto,
    weights: dict[str, Array],
) -> bool:
    """Whether `dense` is x W' + b that the reshape alone reads, and that the norm alone reads."""
    from onnx import helper

    given = {each.name: helper.get_attribute_value(each) for each in dense.attribute}
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} | given
    read = [name for node in graph.node for name in node.input]
    return (
        dense.op_type == "Gemm"
        and usual == {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
        and all(name in weights for name in dense.input[1:])
        and read.count(dense.output[0]) == 1
        and read.count(reshape.output[0]) == 1
    )


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Makes `nodes` the graph's, and drops the weights that none of them reads."""
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Removes weights that no node reads any more, and notes on values that are no more."""
    read = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    made = {name for node in graph.node for name in node.output}
    shapes = [each for each in graph.value_info if each.name in made]
    del graph.value_info[:]
    graph.value_info.extend(shapes)
