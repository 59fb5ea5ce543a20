"""Inception v3 as an .onnx graph, for the runtime's engines."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from fastmrigan.errors import MissingDependency
from fastmrigan.metrics.inception import DIMENSION, SIDE, Conv, InceptionV3

OPSET = 18


def to_onnx(network: InceptionV3) -> bytes:
    """The network as one .onnx file: input "grey" [N, 1, 299, 299], output "features" [N, 2048].

    Batch norm is folded into the convolutions in float64, and so are the three equal channels. A
    mean pool before a 1x1 convolution is taken after it, which is the same sum over fewer channels.
    Written node by node: it takes well under a second where torch.onnx.export takes many, so that
    no file need be kept and trusted.
    Raises MissingDependency where the package onnx is not installed.
    """
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingDependency("onnx", "export", "FID on the CPU") from error

    nodes, weights = [], []

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    for node in _Units().trace(network).nodes:
        inputs = [each.name for each in node.all_input_nodes]
        if node.op == "call_function" and node.target is torch.cat:
            if len(inputs) == 1:  # grey thrice: the first convolution takes it once
                assert all(_convolves(network, user) for user in node.users), node
            else:
                add("Concat", inputs, node.name, axis=1)
        elif node.op == "call_function" and node.target is torch.flatten:
            add("Flatten", inputs, node.name, axis=1)
        elif node.op == "call_module":
            layer = network.get_submodule(node.target)
            if isinstance(layer, Conv):
                names = [f"{node.name}.weight", f"{node.name}.bias"]
                weight, bias = layer.folded()
                if _repeats(node.all_input_nodes[0]):
                    weight = weight.double().sum(dim=1, keepdim=True).float()
                    inputs = [each.name for each in node.all_input_nodes[0].all_input_nodes]
                for name, value in zip(names, (weight, bias), strict=True):
                    weights.append(numpy_helper.from_array(value.numpy(), name))
                raw, pool = f"{node.name}.raw", _pool_before(network, node)
                if pool is not None:
                    inputs = [each.name for each in node.all_input_nodes[0].all_input_nodes]
                add("Conv", [*inputs, *names], raw, **_window(layer.conv))
                if pool is not None:
                    add("AveragePool", [raw], f"{raw}.mean", count_include_pad=0, **_window(pool))
                    raw = f"{raw}.mean"
                add("Relu", [raw], node.name)
            elif isinstance(layer, nn.AvgPool2d):
                assert all(_pool_before(network, user) is layer for user in node.users), node
            elif isinstance(layer, nn.MaxPool2d):
                add("MaxPool", inputs, node.name, **_window(layer))
            else:
                assert isinstance(layer, nn.AdaptiveAvgPool2d), layer
                add("GlobalAveragePool", inputs, node.name)
        elif node.op == "output":
            add("Identity", inputs, "features")
        else:
            assert node.op == "placeholder", node
            assert node.name == "grey", node
    graph = helper.make_graph(
        nodes,
        "inception_v3_fid",
        [helper.make_tensor_value_info("grey", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", DIMENSION])],
        weights,
    )
    # An IR version that older engines read too; onnx itself would write its newest.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return bytes(model.SerializeToString())


class _Units(fx.Tracer):
    """Traces down to convolutions with their batch norm, and poolings."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Conv) or super().is_leaf_module(m, module_qualified_name)


def _repeats(node: fx.Node) -> bool:
    """Whether a node lays one value beside itself."""
    return node.target is torch.cat and len(node.all_input_nodes) == 1


def _convolves(network: InceptionV3, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), Conv)


def _pool_before(network: InceptionV3, node: fx.Node) -> nn.AvgPool2d | None:
    """The mean pool that a 1x1 convolution is given the output of."""
    layer, before = network.get_submodule(str(node.target)), node.all_input_nodes[0]
    if before.op != "call_module" or not isinstance(layer, Conv):
        return None
    pool = network.get_submodule(str(before.target))
    point = tuple(layer.conv.kernel_size) == (1, 1) and tuple(layer.conv.stride) == (1, 1)
    return pool if isinstance(pool, nn.AvgPool2d) and point else None


def _window(layer: Any) -> dict[str, list[int]]:
    """Kernel, strides and pads of a convolution or pooling, as ONNX writes them."""
    kernel, strides, pads = (
        [value, value] if isinstance(value, int) else list(value)
        for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    return {"kernel_shape": kernel, "strides": strides, "pads": pads * 2}
