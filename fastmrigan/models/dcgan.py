"""DCGAN: transposed convolutions up from a latent, strided convolutions down to one logit.

Radford, Metz, Chintala: Unsupervised representation learning with deep convolutional generative
adversarial networks, ICLR 2016. At 64x64, one channel, latent 100 and width 64 the generator
holds 3,574,656 parameters and the discriminator 2,763,520.
"""

from __future__ import annotations

from torch import Tensor, nn

from fastmrigan.models.initial import normal_weights
from fastmrigan.ops.strided_conv import StridedConv2d, StridedConvTranspose2d

SMALLEST = 16


def doublings(size: int) -> int:
    """How often 4x4 doubles to reach `size`; ValueError unless a power of two >= 16."""
    if size < SMALLEST or size & (size - 1):
        raise ValueError(f"DCGAN size must be a power of two of at least {SMALLEST}, got {size}")
    return size.bit_length() - 3


class DcganGenerator(nn.Module):
    """Latents float32 [N, latent] to slices [N, channels, size, size] in [-1, 1]."""

    latent_distribution = "normal"

    def __init__(
        self, *, size: int = 64, channels: int = 1, latent: int = 100, width: int = 64
    ) -> None:
        super().__init__()
        self.latent = latent
        ups = doublings(size)
        deepest = width << (ups - 1)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent, deepest, 4, 1, 0, bias=False),
            nn.BatchNorm2d(deepest),
            nn.ReLU(),
        ]  # [N, width * size / 8, 4, 4]
        for step in range(1, ups):
            inner = deepest >> step
            layers += [
                StridedConvTranspose2d(inner * 2, inner, bias=False),
                nn.BatchNorm2d(inner),
                nn.ReLU(),
            ]  # twice the size, half the channels
        layers += [StridedConvTranspose2d(width, channels, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents[:, :, None, None])  # [N, channels, size, size]

    def initialise(self) -> None:
        """Convolutions N(0, 0.02); batch norm's scale N(1, 0.02) and bias 0. From torch's RNG."""
        normal_weights(self)


class DcganDiscriminator(nn.Module):
    """Slices [N, channels, size, size] to logits [N]; above 0 means "real"."""

    def __init__(self, *, size: int = 64, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        downs = doublings(size)
        layers: list[nn.Module] = [
            StridedConv2d(channels, width, bias=False),
            nn.LeakyReLU(0.2),
        ]  # [N, width, size / 2, size / 2]
        for step in range(1, downs):
            outer = width << step
            layers += [
                StridedConv2d(outer // 2, outer, bias=False),
                nn.BatchNorm2d(outer),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(width << (downs - 1), 1, 4, 1, 0, bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, slices: Tensor) -> Tensor:
        return self.layers(slices).flatten()  # [N]

    def initialise(self) -> None:
        """As the generator's."""
        normal_weights(self)
