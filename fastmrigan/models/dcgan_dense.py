"""DCGAN with a dense layer under it: uniform latents to slices, as Chithra and Dhivya use it.

Chithra, Dhivya: Synthesizing MRI images using generative AI and image style transfer GAN; the
networks follow Radford, Metz, Chintala (ICLR 2016), who project a uniform latent and reshape it to
4x4. The paper names the dense layer, transposed convolutions, batch norm, LeakyReLU and tanh, and
for the discriminator strided convolutions with LeakyReLU. What it leaves open is taken so: 4x4
after the dense layer, kernels of 4 (5 is not a multiple of the stride, and shows as a
checkerboard), slope 0.2, channels halving up to `width` before the last layer, and no norm in the
discriminator, since none is named. At 128x128, one channel, latent 100 and width 64 the generator
holds 12,800,897 parameters and the discriminator 11,160,513.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from fastmrigan.models.dcgan import doublings
from fastmrigan.models.initial import normal_weights
from fastmrigan.ops.strided_conv import StridedConv2d, StridedConvTranspose2d

SLOPE = 0.2


class DenseDcganGenerator(nn.Module):
    """Latents [N, latent], each number from U(-1, 1), to slices [N, channels, size, size].

    The slices are in [-1, 1]. size: a power of two of at least 16; width: channels before the last
    layer, which double with each halving of the size.
    """

    latent_distribution = "uniform"

    def __init__(
        self, *, size: int = 128, channels: int = 1, latent: int = 100, width: int = 64
    ) -> None:
        super().__init__()
        self.latent = latent
        ups = doublings(size)
        self.deepest = width << (ups - 1)
        # The norm behind it is over each channel's 16 pixels: it does not undo a bias a pixel.
        self.dense = nn.Linear(latent, self.deepest * 16)
        layers: list[nn.Module] = [nn.BatchNorm2d(self.deepest), nn.LeakyReLU(SLOPE)]
        for step in range(1, ups):
            inner = self.deepest >> step
            layers += [
                StridedConvTranspose2d(inner * 2, inner, bias=False),
                nn.BatchNorm2d(inner),
                nn.LeakyReLU(SLOPE),
            ]  # twice the size, half the channels
        layers += [StridedConvTranspose2d(width, channels), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.dense(latents)  # [N, deepest * 16]
        x = x.unflatten(1, (self.deepest, 4, 4))  # [N, width * size / 8, 4, 4]
        slices: Tensor = self.layers(x)  # [N, channels, size, size]
        return slices

    def initialise(self) -> None:
        """The dense layer and convolutions N(0, 0.02), norm scales N(1, 0.02), biases 0."""
        normal_weights(self)


class DenseDcganDiscriminator(nn.Module):
    """Slices [N, channels, size, size] to logits [N]; above 0 means "real"."""

    def __init__(self, *, size: int = 128, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        downs = doublings(size)
        widths = [channels, *(width << step for step in range(downs))]
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(widths):
            layers += [StridedConv2d(inner, outer), nn.LeakyReLU(SLOPE)]  # half the size
        layers.append(nn.Conv2d(widths[-1], 1, 4, 1, 0))  # [N, 1, 1, 1]: dense over 4x4
        self.layers = nn.Sequential(*layers)

    def forward(self, slices: Tensor) -> Tensor:
        logits: Tensor = self.layers(slices)  # [N, 1, 1, 1]
        return logits.flatten()  # [N]

    def initialise(self) -> None:
        """Convolutions N(0, 0.02), biases 0."""
        normal_weights(self)
