"""pix2pix's U-Net generator: strided convolutions down to 1x1, and up again beside their outputs.

Isola, Zhu, Zhou, Efros: Image-to-image translation with conditional adversarial networks, CVPR
2017 (section 6.1.1), as its reference implementation builds it. At one channel with instance norm
it holds 54,403,457 parameters at 256x256 (eight downs) and 41,819,521 at 128x128 (seven).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmrigan.models.initial import normal_weights
from fastmrigan.ops import FusedInstanceNorm2d
from fastmrigan.ops.instance_norm import Activation
from fastmrigan.ops.strided_conv import StridedConv2d, StridedConvTranspose2d

Norm = Literal["instance", "batch"]

SMALLEST = 32  # five downs: the four that widen, and the innermost
SLOPE = 0.2  # of the leaky ReLU on the way down


class UnetGenerator(nn.Module):
    """Slices [N, channels, size, size] to slices of the same shape, in [-1, 1].

    size: a power of two of at least 32; log2(size) downs end at 1x1.
    width: channels of the first down; they double up to eight times as many.
    norm: "instance" (without affine) or "batch". The outermost and innermost downs have none.
    dropout: probability behind the ups to 4x4, 8x8, ... size / 16 (three at 256), where the
        paper takes 0.5. The paper leaves it on when it translates; here eval mode switches it off.
    inert_bias: False leaves out the biases of convolutions before an instance norm, which
        subtracts them again: the same slices from fewer parameters. Before a batch norm there
        never are any.
    Raises ValueError for a size, norm or dropout that cannot be.
    """

    def __init__(
        self,
        *,
        size: int = 256,
        channels: int = 1,
        width: int = 64,
        norm: Norm = "instance",
        dropout: float = 0.0,
        inert_bias: bool = True,
    ) -> None:
        super().__init__()
        if size < SMALLEST or size & (size - 1):
            raise ValueError(
                f"UnetGenerator: expected a size that is a power of two, at least {SMALLEST}, "
                f"got {size}"
            )
        depth = size.bit_length() - 1
        if dropout and depth == 5:
            raise ValueError(
                f"UnetGenerator: expected dropout 0 at size {size}, where no up has a place for "
                f"it, got {dropout}"
            )
        widths = [width * min(1 << step, 8) for step in range(depth)]  # of the downs' outputs
        bias = norm == "instance" and inert_bias
        # A bias with no norm behind it is not inert; with batch norm the reference has none there
        # either.
        bare = norm == "instance"

        self.downs = nn.ModuleList(
            [nn.Sequential(StridedConv2d(channels, widths[0], bias=bare), nn.LeakyReLU(SLOPE))]
        )  # [N, width, size / 2, size / 2]
        for step in range(1, depth - 1):
            self.downs.append(
                nn.Sequential(
                    StridedConv2d(widths[step - 1], widths[step], bias=bias),
                    *norm_and_activation("UnetGenerator", norm, widths[step], "leaky_relu"),
                )
            )  # half the side
        self.downs.append(
            nn.Sequential(StridedConv2d(widths[-2], widths[-1], bias=bare), nn.ReLU())
        )  # [N, width * 8, 1, 1]

        self.ups = nn.ModuleList()
        for step in reversed(range(1, depth)):
            # The innermost up alone has no skip connection beside its input.
            beside = 1 if step == depth - 1 else 2
            layers = [
                StridedConvTranspose2d(widths[step] * beside, widths[step - 1], bias=bias),
                *norm_and_activation("UnetGenerator", norm, widths[step - 1], "relu"),
            ]
            if dropout and 4 <= step < depth - 1:
                layers.append(nn.Dropout(dropout))  # relu(dropout(x)) = dropout(relu(x))
            self.ups.append(nn.Sequential(*layers))  # twice the side
        self.head = nn.Sequential(StridedConvTranspose2d(width * 2, channels), nn.Tanh())

    def forward(self, slices: Tensor) -> Tensor:
        skips: list[Tensor] = []
        x = slices
        for down in self.downs:
            x = down(x)  # [N, width * 2^k, size / 2^(k + 1), ...], at the end [N, width * 8, 1, 1]
            skips.append(x)
        skips.pop()
        for up in self.ups:
            # The ReLU of the way up over the leaky one of the way down is a ReLU.
            x = torch.cat([F.relu(skips.pop()), up(x)], 1)
        made: Tensor = self.head(x)  # [N, channels, size, size]
        return made

    def initialise(self) -> None:
        """Draws the initial weights from torch's global RNG."""
        normal_weights(self)


def norm_and_activation(
    who: str, norm: str, width: int, activation: Activation
) -> tuple[nn.Module, ...]:
    """The layers behind one of pix2pix's convolutions, to [N, width, H, W].

    activation: "relu" or "leaky_relu" (0.2). Raises ValueError, which opens with `who`, for a norm
    that is neither "instance" nor "batch".
    """
    if norm == "instance":
        return (FusedInstanceNorm2d(width, activation=activation, slope=SLOPE),)
    if norm == "batch":
        return (
            nn.BatchNorm2d(width),
            nn.ReLU() if activation == "relu" else nn.LeakyReLU(SLOPE),
        )
    raise ValueError(f"{who}: expected norm instance or batch, got {norm!r}")
