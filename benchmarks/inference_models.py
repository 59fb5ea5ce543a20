"""The networks of inference.py, with seeded random weights: in PyTorch, as graphs, as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

import fastmrigan
from fastmrigan.export.onnx import (
    GeneratorFacts,
    build_graph,
    check_graph,
    export_generator,
    with_metadata,
)
from fastmrigan.models.dcgan import DcganGenerator
from fastmrigan.models.resnet import ResnetGenerator
from fastmrigan.models.unet import UnetGenerator
from fastmrigan.ops import FusedInstanceNorm2d
from fastmrigan.runtime.model_file import ModelFile, ModelMetadata, read_model_file
from fastmrigan.runtime.onnx_wire import graph_sha256

SEED = 0
SPREAD = 0.5  # standard deviation of what goes into the last tanh


@dataclass(frozen=True)
class Graph:
    """What an engine reads; no parity figures, since the benchmark names the precision."""

    path: Path
    data: bytes
    parity: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"  # that it is typed in


class PlainNorm(nn.Module):
    """What FusedInstanceNorm2d computes, operator by operator as PyTorch's users write it."""

    def __init__(self, fused: FusedInstanceNorm2d) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = F.instance_norm(x, weight=self.fused.weight, bias=self.fused.bias, eps=self.fused.eps)
        if self.fused.activation == "relu":
            y = F.relu(y, inplace=True)
        elif self.fused.activation == "leaky_relu":
            y = F.leaky_relu(y, self.fused.slope, inplace=True)
        return y if residual is None else residual + y


def plain(network: nn.Module) -> nn.Module:
    """`network`, its fused instance norms swapped in place for PyTorch's own operators."""
    for parent in list(network.modules()):
        if isinstance(parent, PlainNorm):
            continue
        for name, child in list(parent.named_children()):
            if isinstance(child, FusedInstanceNorm2d):
                setattr(parent, name, PlainNorm(child))
    return network


def seeded(network: nn.Module, x: Tensor) -> nn.Module:
    """Initial weights of SEED, in eval mode, with slices that use their range.

    Initial weights alone make slices of nearly zero, on which any precision looks good: batch
    norms get the statistics of `x`, and the last convolution is scaled until what enters the tanh
    has the standard deviation SPREAD.
    """
    torch.manual_seed(SEED)
    network.initialise()
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # the running statistics become the batch's
    last = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_hook(lambda layer, given, made: seen.append(made))
    with torch.inference_mode():
        network.train(bool(norms))(x)
        last.weight.mul_(SPREAD / float(seen[0].std()))
    hook.remove()
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def inputs(latent: int | None, size: int, batch: int) -> np.ndarray:
    """Latents [batch, latent], or slices [batch, 1, size, size]: blobs on black, in [-1, 1]."""
    draws = np.random.default_rng(SEED)
    if latent is not None:
        return draws.standard_normal((batch, latent), dtype=np.float32)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radii = draws.uniform(0.6, 0.9, (batch, 1, 1))
    texture = 0.4 * np.sin(draws.uniform(5, 20, radii.shape) * x + 9 * y)
    noise = 0.05 * draws.standard_normal((batch, size, size))
    made = np.where(np.hypot(x, y) < radii, texture + noise, -1.0)
    return made.clip(-1, 1)[:, None].astype(np.float32)


NETWORKS = {
    "ResNet-9": (ResnetGenerator, GeneratorFacts("translate", "ResNet-9", (256, 256))),
    "U-Net": (UnetGenerator, GeneratorFacts("translate", "U-Net", (256, 256))),
    "DCGAN-64": (DcganGenerator, GeneratorFacts("sample", "DCGAN-64", (64, 64), latent_size=100)),
}


def make(name: str) -> nn.Module:
    """One of NETWORKS as the recipes have it at one channel, with its seeded weights."""
    cls, facts = NETWORKS[name]
    size = facts.slice_size[0]
    example = inputs(facts.latent_size, size, 16 if facts.task == "sample" else 1)
    return seeded(cls(size=size), torch.from_numpy(example))


def as_graph(name: str, network: nn.Module) -> Graph:
    """The graph that `fastmrigan export` writes of it."""
    facts = NETWORKS[name][1]
    graph = build_graph(network, facts)
    check_graph(graph, facts)
    return Graph(Path(f"{name}.onnx"), graph.SerializeToString())


def as_model_file(name: str, network: nn.Module, folder: Path) -> ModelFile:
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
