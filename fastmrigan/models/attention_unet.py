"""U-Net whose skips pass through attention gates: Pix2Pix's generator of Chithra and Dhivya.

Chithra, Dhivya: Synthesizing MRI images using generative AI and image style transfer GAN; gates by
Oktay et al.: Attention U-Net: learning where to look for the pancreas, MIDL 2018. Chithra and
Dhivya name attention gates, four encoding units, and Pix2Pix around them. What they leave open is
taken so:

- An encoding unit is Oktay's: two 3x3 convolutions, each with norm and ReLU; 2x2 max pooling lies
  between units. A bottleneck unit follows the four. A decoding unit is a 2x2 transposed
  convolution, the gated skip joined to it, and an encoding unit. The last layer is a 1x1
  convolution and tanh.
- Norm: batch norm, which is Pix2Pix's own, and whose statistics are sound at the paper's batch of
  80. At batch 1 choose norm="instance" (without affine): batch norm would then train on one
  slice's statistics and translate with averages over all.
- Dropout 0.5 in the three innermost decoding units, where Pix2Pix has its noise.
- Gates: half the skip's channels inside; the skip comes to the gating signal's grid by a 2x2
  convolution with stride 2, the coefficients return bilinearly, as in Oktay's own code.

At width 64 and one channel it holds 32,081,925 parameters, 1,045,444 of them in the gates.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmrigan.models.initial import normal_weights
from fastmrigan.ops import FusedInstanceNorm2d

Norm = Literal["batch", "instance"]

DROPPED_UNITS = 3  # the innermost decoding ones


class AttentionGate(nn.Module):
    """Additive attention (Oktay et al. 2018, eq. 1 and 2) to a skip, by a signal one level deeper.

    forward(skip [N, C, H, W], gating [N, G, H / 2, W / 2]) gives the coefficients the skip is to
    be multiplied by, one in [0, 1] a pixel: [N, 1, H, W].
    """

    def __init__(self, skip: int, gating: int) -> None:
        super().__init__()
        inner = max(skip // 2, 1)
        self.of_skip = nn.Conv2d(skip, inner, 2, 2, bias=False)  # W_x; b_g serves both
        self.of_gating = nn.Conv2d(gating, inner, 1)  # W_g, b_g
        self.psi = nn.Conv2d(inner, 1, 1)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        x = F.relu(self.of_skip(skip) + self.of_gating(gating))  # [N, C / 2, H / 2, W / 2]
        coarse = torch.sigmoid(self.psi(x))  # [N, 1, H / 2, W / 2]
        return F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)


class AttentionUnetGenerator(nn.Module):
    """Slices [N, channels, size, size] of one contrast to the other's, both in [-1, 1].

    units: encoding units, and as many decoding ones; size is a multiple of 2^units.
    width: channels of the first unit; they double with each unit, the bottleneck's included.
    slice_skip: whether the last layer sees the given slice too, with weight 1 at first. Instance
        norm is over the frame: how bright a slice is, and how large the head, it takes away.
    inert_bias: where norm is "instance", whether the convolutions before it keep the biases that
        it removes again; before batch norm there are none.
    """

    def __init__(
        self,
        *,
        size: int = 256,
        channels: int = 1,
        units: int = 4,
        width: int = 64,
        norm: Norm = "batch",
        dropout: float = 0.5,
        slice_skip: bool = False,
        inert_bias: bool = True,
    ) -> None:
        super().__init__()
        if units < 1:
            raise ValueError(f"AttentionUnetGenerator: expected units of at least 1, got {units}")
        if size < 1 << units or size % (1 << units):
            raise ValueError(
                f"AttentionUnetGenerator: with {units} units expected size to be a multiple of "
                f"{1 << units}, got {size}"
            )
        if norm not in ("batch", "instance"):
            raise ValueError(
                f"AttentionUnetGenerator: expected norm 'batch' or 'instance', got {norm!r}"
            )
        if norm == "instance" and size == 1 << units:
            raise ValueError(
                f"AttentionUnetGenerator: {units} units bring size {size} to one pixel, which "
                f"instance norm makes 0; expected at least {2 << units}"
            )
        bias = norm == "instance" and inert_bias

        def unit(inner: int, outer: int, drop: float = 0.0) -> nn.Sequential:
            return _unit(inner, outer, norm, bias, drop)

        widths = [width << level for level in range(units)]
        inputs = [channels, *widths]
        self.encoding = nn.ModuleList(unit(inputs[i], widths[i]) for i in range(units))
        self.bottleneck = unit(widths[-1], 2 * widths[-1])
        inwards = widths[::-1]  # from the innermost skip outwards
        self.gates = nn.ModuleList(AttentionGate(skip, 2 * skip) for skip in inwards)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * skip, skip, 2, 2) for skip in inwards)
        self.decoding = nn.ModuleList(
            unit(2 * skip, skip, dropout if i < DROPPED_UNITS else 0.0)
            for i, skip in enumerate(inwards)
        )
        self.slice_skip = slice_skip
        self.last = nn.Conv2d(width + channels if slice_skip else width, channels, 1)

    def forward(self, slices: Tensor) -> Tensor:
        return self._translate(slices)[0]  # [N, channels, H, W]

    def attention_maps(self, slices: Tensor) -> list[Tensor]:
        """Each gate's coefficients in [0, 1], from the coarsest [N, 1, H / 2^(units - 1), ...] to
        [N, 1, H, W]: where the generator looks."""
        return self._translate(slices)[1]

    def _translate(self, slices: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips, maps = [], []
        x = slices
        for unit in self.encoding:
            skips.append(unit(x))  # [N, width * 2^i, H / 2^i, W / 2^i]
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)  # [N, width * 2^units, H / 2^units, W / 2^units]
        for gate, up, unit in zip(self.gates, self.ups, self.decoding, strict=True):
            skip = skips.pop()
            maps.append(gate(skip, x))
            x = unit(torch.cat((skip * maps[-1], up(x)), dim=1))  # the skip's shape
        if self.slice_skip:
            x = torch.cat((x, slices), dim=1)
        return torch.tanh(self.last(x)), maps

    def initialise(self) -> None:
        """Convolutions N(0, 0.02), norm scales N(1, 0.02), biases 0: coefficients begin near a
        half. The last layer's weights of the slice itself, if it sees it: 1 for its own channel."""
        normal_weights(self)
        if self.slice_skip:
            channels = self.last.out_channels
            with torch.no_grad():
                self.last.weight[:, -channels:, 0, 0] = torch.eye(channels)


def _unit(inner: int, outer: int, norm: Norm, bias: bool, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inner, outer):
        layers.append(nn.Conv2d(channels, outer, 3, 1, 1, bias=bias))
        if norm == "instance":
            layers.append(FusedInstanceNorm2d(outer, activation="relu"))
        else:
            layers += [nn.BatchNorm2d(outer), nn.ReLU()]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)
