"""Rewritten graphs against PyTorch's own transposed convolution."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fastmrigan.export.folding import fold_batch_norms, fold_constants
from fastmrigan.export.rewrites import drop_inert_biases, split_transposed_convolutions

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


def chain(nodes, weights, x_shape, outputs=("y",)):
    """A graph of `nodes` from "x" to `outputs`."""
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "C", "Y", "X"])
            for name in outputs
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def normed(operator="Conv", **extra):
    draw = np.random.default_rng(0).standard_normal
    weights = {
        "w": draw((3, 3, 3, 3)).astype(np.float32),
        "b": draw(3).astype(np.float32),
        "scale": np.ones(3, np.float32),
        "shift": np.zeros(3, np.float32),
    }
    nodes = [
        helper.make_node(operator, ["x", "w", "b"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("InstanceNormalization", ["c", "scale", "shift"], ["y"]),
        *(helper.make_node(kind, ["c"], [name]) for name, kind in extra.items()),
    ]
    return chain(nodes, weights, ["N", 3, 9, 8], ("y", *extra))


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_bias_before_an_instance_norm_is_dropped(operator):
    x = np.random.default_rng(1).standard_normal((BATCH, 3, 9, 8)).astype(np.float32)
    model = normed(operator)
    expected = run(model, x)
    assert drop_inert_biases(model) == 1
    assert "b" not in {each.name for each in model.graph.initializer}
    np.testing.assert_allclose(run(model, x), expected, atol=1e-5)


@pytest.mark.parametrize("spoil", ["another reader", "an output"])
def test_a_bias_that_something_else_sees_is_kept(spoil):
    model = normed(other="Relu") if spoil == "another reader" else normed()
    if spoil == "an output":
        model.graph.output.append(
            helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 3, "Y", "X"])
        )
    assert drop_inert_biases(model) == 0
    assert len(model.graph.node[0].input) == 3


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (4, 3)])
def test_a_batch_norm_is_folded_into_its_dense_layer(size, biased):
    random = np.random.default_rng(2)
    channels = 5
    outputs = channels * size[0] * size[1]
    weights = {
        "w": random.standard_normal((outputs, 7)),
        **({"b": random.standard_normal(outputs)} if biased else {}),
        "scale": random.standard_normal(channels),
        "shift": random.standard_normal(channels),
        "mean": random.standard_normal(channels),
        "variance": random.uniform(0.1, 3, channels),
    }
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    weights["shape"] = np.array([-1, channels, *size])
    norm = ["flat4", "scale", "shift", "mean", "variance"]
    nodes = [
        helper.make_node("Gemm", ["x", "w", *(["b"] if biased else [])], ["flat"], transB=1),
        helper.make_node("Reshape", ["flat", "shape"], ["flat4"]),
        helper.make_node("BatchNormalization", norm, ["y"], epsilon=1e-3),
    ]
    model = chain(nodes, weights, ["N", 7])
    x = random.standard_normal((BATCH, 7)).astype(np.float32)
    expected = run(model, x)
    assert fold_batch_norms(model) == 1
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Reshape"]
    np.testing.assert_allclose(run(model, x), expected, atol=2e-5)


def test_a_batch_norm_behind_something_else_is_left():
    weights = {name: np.ones(3, np.float32) for name in ("scale", "shift", "mean", "variance")}
    model = chain(
        [helper.make_node("BatchNormalization", ["x", *weights], ["y"])], weights, ["N", 3, 4, 4]
    )
    assert fold_batch_norms(model) == 0
    assert len(model.graph.node) == 1


def test_constants_are_folded_through_operators_of_several_outputs():
    weights = {"a": np.arange(6, dtype=np.float32)[None, :, None, None], "one": np.float32([1])}
    nodes = [
        helper.make_node("Split", ["a"], ["low", "high"], axis=1, num_outputs=2),
        helper.make_node("Add", ["low", "one"], ["lifted"]),
        helper.make_node("Mul", ["x", "lifted"], ["scaled"]),
        helper.make_node("Add", ["scaled", "high"], ["y"]),
    ]
    model = chain(nodes, weights, ["N", 3, 2, 2])
    x = np.random.default_rng(3).standard_normal((BATCH, 3, 2, 2)).astype(np.float32)
    channel = np.arange(3)[None, :, None, None]
    assert fold_constants(model) == 2
    assert [node.op_type for node in model.graph.node] == ["Mul", "Add"]
    np.testing.assert_allclose(run(model, x), x * (channel + 1) + channel + 3, atol=1e-6)
