"""Rewritten graphs against PyTorch's own transposed convolution."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fastmrigan.export.rewrites import split_transposed_convolutions

BATCH = 2


def graph_of(weight, bias, **attributes):
    """One transposed convolution: "x" [N, inputs, H, W] to "y"."""
    weights = {"weight": weight} | ({} if bias is None else {"bias": bias})
    node = helper.make_node("ConvTranspose", ["x", *weights], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", len(weight), "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", weight.shape[1], "Y", "X"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def run(model, x):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 5), (8, 4)])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (4, 4), (5, 7)])
def test_doubling(size, inputs, outputs, biased):
    draw = np.random.default_rng(inputs).standard_normal
    weight = draw((inputs, outputs, 4, 4)).astype(np.float32)
    bias = draw(outputs).astype(np.float32) if biased else None
    x = draw((BATCH, inputs, *size)).astype(np.float32)
    expected = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(x).double(),
        torch.from_numpy(weight).double(),
        None if bias is None else torch.from_numpy(bias).double(),
        stride=2,
        padding=1,
    ).numpy()
    model = graph_of(weight, bias, kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    assert split_transposed_convolutions(model) == 1
    assert "ConvTranspose" not in {node.op_type for node in model.graph.node}
    assert {each.name for each in model.graph.initializer} <= {
        name for node in model.graph.node for name in node.input
    }
    np.testing.assert_allclose(run(model, x), expected, atol=2e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        dict(kernel_shape=[4, 4], strides=[1, 1], pads=[0, 0, 0, 0]),  # a latent's first layer
        dict(kernel_shape=[4, 4], strides=[2, 2], pads=[0, 0, 0, 0]),
        dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        dict(kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]),
        dict(kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1], dilations=[2, 2]),
        dict(kernel_shape=[4, 4], strides=[2, 1], pads=[1, 1, 1, 1]),
        dict(kernel_shape=[4, 4], strides=[2, 2], auto_pad="SAME_UPPER"),
    ],
)
def test_others_are_left_as_they_are(attributes):
    size = attributes["kernel_shape"][0]
    model = graph_of(np.ones((2, 3, size, size), np.float32), None, **attributes)
    before = model.SerializeToString(deterministic=True)
    assert split_transposed_convolutions(model) == 0
    assert model.SerializeToString(deterministic=True) == before
