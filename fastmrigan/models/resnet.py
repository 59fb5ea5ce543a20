"""CycleGAN's ResNet generator: a stem, two strided convolutions, residual blocks, two ups, a head.

Zhu, Park, Isola, Efros: Unpaired image-to-image translation using cycle-consistent adversarial
networks, ICCV 2017 (appendix 7.2), after Johnson, Alahi, Fei-Fei, ECCV 2016. In its notation
c7s1-64, d128, d256, nine (six) R256, u128, u64, c7s1, with reflection padding and instance norm
without affine. At one channel it holds 11,365,633 (7,825,153) parameters.
"""

from __future__ import annotations

from torch import Tensor, nn

from fastmrigan.models.initial import normal_weights
from fastmrigan.ops import FusedInstanceNorm2d

SMALLEST = 8  # the blocks pad by reflection, which needs 2x2 there


class ResnetGenerator(nn.Module):
    """Slices [N, channels, size, size] to slices of the same shape, in [-1, 1].

    width: channels of the stem; the blocks have four times as many.
    dropout: probability between a block's two convolutions.
    inert_bias: False leaves out the biases of convolutions before an instance norm, which
        subtracts them again: the same slices from fewer parameters.
    Raises ValueError for a size that is no multiple of 4 or below 8, and for blocks below 1.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int = 1,
        width: int = 64,
        blocks: int = 9,
        dropout: float = 0.0,
        inert_bias: bool = True,
    ) -> None:
        super().__init__()
        if size % 4 or size < SMALLEST:
            raise ValueError(
                f"ResnetGenerator: expected a size that is a multiple of 4, at least {SMALLEST}, "
                f"got {size}"
            )
        if blocks < 1:
            raise ValueError(f"ResnetGenerator: expected at least 1 block, got {blocks}")
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 7, 1, 3, bias=inert_bias, padding_mode="reflect"),
            FusedInstanceNorm2d(width, activation="relu"),
        )  # [N, width, size, size]
        self.downs = nn.Sequential(
            nn.Conv2d(width, width * 2, 3, 2, 1, bias=inert_bias),
            FusedInstanceNorm2d(width * 2, activation="relu"),  # [N, width * 2, size / 2, size / 2]
            nn.Conv2d(width * 2, width * 4, 3, 2, 1, bias=inert_bias),
            FusedInstanceNorm2d(width * 4, activation="relu"),
        )  # [N, width * 4, size / 4, size / 4]
        self.blocks = nn.Sequential(
            *(ResidualBlock(width * 4, dropout, inert_bias) for _ in range(blocks))
        )  # [N, width * 4, size / 4, size / 4]
        self.ups = nn.Sequential(
            nn.ConvTranspose2d(width * 4, width * 2, 3, 2, 1, 1, bias=inert_bias),
            FusedInstanceNorm2d(width * 2, activation="relu"),  # [N, width * 2, size / 2, size / 2]
            nn.ConvTranspose2d(width * 2, width, 3, 2, 1, 1, bias=inert_bias),
            FusedInstanceNorm2d(width, activation="relu"),
        )  # [N, width, size, size]
        self.head = nn.Sequential(
            nn.Conv2d(width, channels, 7, 1, 3, padding_mode="reflect"), nn.Tanh()
        )  # [N, channels, size, size]

    def forward(self, slices: Tensor) -> Tensor:
        x = self.blocks(self.downs(self.stem(slices)))  # [N, width * 4, size / 4, size / 4]
        made: Tensor = self.head(self.ups(x))  # [N, channels, size, size]
        return made

    def initialise(self) -> None:
        """Draws the initial weights from torch's global RNG."""
        normal_weights(self)


class ResidualBlock(nn.Module):
    """x [N, width, H, W] to x + norm(conv(relu(norm(conv(x))))), of the same shape."""

    def __init__(self, width: int, dropout: float, inert_bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, bias=inert_bias, padding_mode="reflect")
        self.norm1 = FusedInstanceNorm2d(width, activation="relu")
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=inert_bias, padding_mode="reflect")
        self.norm2 = FusedInstanceNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(self.norm1(self.conv1(x)))  # [N, width, H, W]
        y: Tensor = self.norm2(self.conv2(inner), residual=x)  # [N, width, H, W]
        return y
