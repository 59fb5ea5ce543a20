"""The networks of the inference benchmarks, with seeded random weights: PyTorch alone, no ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastmrigan.export.facts import GeneratorFacts
from fastmrigan.models.dcgan import DcganGenerator
from fastmrigan.models.resnet import ResnetGenerator
from fastmrigan.models.unet import UnetGenerator
from fastmrigan.ops import FusedInstanceNorm2d

SEED = 0
SPREAD = 0.5  # standard deviation of what goes into the last tanh


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


NETWORKS: dict[str, tuple[Any, GeneratorFacts]] = {
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
