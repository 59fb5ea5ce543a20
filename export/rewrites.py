"""Changes to an exported graph that keep its mathematics and suit the engines better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastmrigan.export.folding import drop_unused

if TYPE_CHECKING:
    import onnx

Weights = npt.NDArray[np.float32]


def split_transposed_convolutions(model: onnx.ModelProto) -> int:
    """Turns transposed convolutions of kernel 4, stride 2 and padding 1 into plain ones, in place.

    They are convolution, DepthToSpace and a cut of the frame afterwards; returns how many were
    changed. Such a transposed convolution is four convolutions of kernel 2, one for each parity of
    the output's row and column, interleaved (Shi et al. 2016, arXiv:1609.07009). Asked for bf16,
    OpenVINO runs the convolution of an fp32 graph in it, as it does not the transposed one. Those
    of kernel 3 stay: they would multiply by zeros for a third of the time, and gain nothing.
    """
    from onnx import numpy_helper

    weights = {each.name: each for each in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    changed = 0
    for node in model.graph.node:
        if _doubles(node) and all(name in weights for name in node.input[1:]):
            values = [numpy_helper.to_array(weights[name]) for name in node.input[1:]]
            nodes += _interleaved(model.graph, node, *values)
            changed += 1
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused(model.graph)
    return changed


def drop_inert_biases(model: onnx.ModelProto) -> int:
    """Takes the bias from every convolution that an instance norm alone reads, in place.

    The norm subtracts each channel's mean, and the bias with it. Returns how many were dropped.
    """
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    for output in model.graph.output:
        readers.setdefault(output.name, []).append("output")
    dropped = 0
    for node in model.graph.node:
        biased = node.op_type in ("Conv", "ConvTranspose") and len(node.input) == 3
        if biased and readers.get(node.output[0]) == ["InstanceNormalization"]:
            del node.input[2]
            dropped += 1
    drop_unused(model.graph)
    return dropped


def _doubles(node: onnx.NodeProto) -> bool:
    """Whether a node is a transposed convolution of the kind that is changed."""
    from onnx import helper

    if node.op_type != "ConvTranspose":
        return False
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    expected = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    usual = {"group": 1, "dilations": [1, 1], "output_padding": [0, 0], "auto_pad": b"NOTSET"}
    return usual | given == usual | expected


def _interleaved(
    graph: onnx.GraphProto, node: onnx.NodeProto, weight: Weights, bias: Weights | None = None
) -> list[onnx.NodeProto]:
    """The nodes that take the place of `node`. weight: [inputs, outputs, 4, 4].

    Output 2 i + p takes input i + o by tap p + 1 - 2 o: even outputs see inputs i - 1 and i by the
    taps 3 and 1, odd ones i and i + 1 by the taps 2 and 0. One convolution of kernel 2 on the gaps
    between the inputs makes both: in gap m, between inputs m - 1 and m, are odd output 2 m - 1 and
    even output 2 m. They lie beside each other, and the outermost outputs are cut off.
    """
    from onnx import helper, numpy_helper

    inputs, outputs = weight.shape[:2]
    taps = np.array([[2, 0], [3, 1]])  # of the two outputs of a gap, on its two inputs
    split = weight[:, :, taps[:, None, :, None], taps[None, :, None, :]]  # [I, O, 2, 2, 2, 2]
    kernel = split.transpose(2, 3, 1, 0, 4, 5).reshape(4 * outputs, inputs, 2, 2)
    name = node.output[0]

    def constant(suffix: str, values: npt.NDArray[Any]) -> str:
        array = np.ascontiguousarray(values)
        graph.initializer.append(numpy_helper.from_array(array, f"{name}.{suffix}"))
        return f"{name}.{suffix}"

    made = [node.input[0], constant("weight", kernel)]
    if bias is not None:
        made.append(constant("bias", np.tile(bias, 4)))
    parts, gaps = f"{name}.parts", f"{name}.gaps"
    cut = {"starts": [1, 1], "ends": [-1, -1], "axes": [2, 3]}
    ends = [constant(suffix, np.array(values, np.int64)) for suffix, values in cut.items()]
    return [
        helper.make_node("Conv", made, [parts], kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", [parts], [gaps], blocksize=2, mode="DCR"),
        helper.make_node("Slice", [gaps, *ends], [name]),
    ]
