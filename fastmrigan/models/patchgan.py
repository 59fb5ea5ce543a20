"""PatchGAN: a discriminator that judges every patch of a slice by itself, 70x70 by default.

Isola, Zhu, Zhou, Efros: Image-to-image translation with conditional adversarial networks, CVPR
2017 (section 6.1.2), without its sigmoid. In its notation C64-C128-C256-C512 and one logit; at one
channel with instance norm 2,762,689 parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastmrigan.models.initial import normal_weights
from fastmrigan.models.unet import SLOPE, Norm, norm_and_activation
from fastmrigan.ops.strided_conv import StridedConv2d


class PatchGan(nn.Module):
    """Slices [N, channels, size, size] to logits [N, 1, h, h], h = size // 2^layers - 2.

    conditions: channels of the slice that the judged one was made from, given to forward beside
        it; 0 for a discriminator that sees its slice alone.
    width: channels of the first layer; they double up to eight times as many.
    layers: strided convolutions. A logit sees 16, 34, 70, 142, ... pixels across for 1, 2, 3, 4.
    norm: "instance" (without affine) or "batch"; the first layer has none.
    inert_bias: False leaves out the biases of convolutions before an instance norm, which
        subtracts them again: the same logits from fewer parameters. Before a batch norm there
        never are any.
    Raises ValueError for layers below 1, a size that leaves no logit, and an unknown norm.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int = 1,
        conditions: int = 0,
        width: int = 64,
        layers: int = 3,
        norm: Norm = "instance",
        inert_bias: bool = True,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"PatchGan: expected at least 1 layer, got {layers}")
        smallest = 3 << layers
        if size < smallest:
            raise ValueError(
                f"PatchGan: expected a size of at least {smallest} for {layers} layers, got {size}"
            )
        self.conditions = conditions
        bias = norm == "instance" and inert_bias
        parts: list[nn.Module] = [
            StridedConv2d(channels + conditions, width),
            nn.LeakyReLU(SLOPE),
        ]  # [N, width, size / 2, size / 2]
        inner = width
        for step in range(1, layers + 1):
            outer = width * min(1 << step, 8)
            parts += [
                StridedConv2d(inner, outer, bias=bias)
                if step < layers
                else nn.Conv2d(inner, outer, 4, 1, 1, bias=bias),
                *norm_and_activation("PatchGan", norm, outer, "leaky_relu"),
            ]  # half the side; the last one pixel less
            inner = outer
        parts.append(nn.Conv2d(inner, 1, 4, 1, 1))
        self.layers = nn.Sequential(*parts)

    def forward(self, slices: Tensor, condition: Tensor | None = None) -> Tensor:
        """condition: [N, conditions, size, size], the slice that `slices` was translated from.

        Raises ValueError where a condition is missing or not expected.
        """
        came = 0 if condition is None else condition.shape[1]
        if came != self.conditions:
            raise ValueError(
                f"PatchGan: expected a condition of {self.conditions} channels, got {came}"
            )
        if condition is not None:
            slices = torch.cat([condition, slices], 1)  # [N, conditions + channels, size, size]
        logits: Tensor = self.layers(slices)  # [N, 1, h, h]
        return logits

    def initialise(self) -> None:
        """Draws the initial weights from torch's global RNG."""
        normal_weights(self)
