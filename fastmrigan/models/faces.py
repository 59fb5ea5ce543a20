"""What every generator looks like from outside, whatever it is inside.

A model file samples from N(0, 1) latents or translates a grey slice, and gives grey slices in
[-1, 1]. Networks of other habits are brought to that here.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

Distribution = Literal["normal", "uniform"]


def as_distributed(latents: Tensor, distribution: Distribution) -> Tensor:
    """N(0, 1) numbers as they are, or as U(-1, 1): 2 Phi(z) - 1 = erf(z / sqrt 2)."""
    return latents if distribution == "normal" else torch.erf(latents / math.sqrt(2))


def grey(slices: Tensor) -> Tensor:
    """[N, C, H, W] to [N, 1, H, W]: the mean over the channels, in [-1, 1]."""
    mean = slices if slices.shape[1] == 1 else slices.mean(1, keepdim=True)
    return mean.clamp(-1.0, 1.0)  # a progressive GAN's output is linear


class SampleFace(nn.Module):
    """Latents float32 [N, latent] from N(0, 1) to slices [N, 1, H, W] in [-1, 1]."""

    def __init__(self, generator: nn.Module, **options: Any) -> None:
        super().__init__()
        self.generator, self.options = generator, options  # of its forward

    def forward(self, latents: Tensor) -> Tensor:
        drawn = as_distributed(latents, self.generator.latent_distribution)
        return grey(self.generator(drawn, **self.options))


class TranslateFace(nn.Module):
    """Slices [N, 1, H, W] of the source to slices [N, 1, H, W] of the target, in [-1, 1]."""

    def __init__(self, generator: nn.Module, channels: int) -> None:
        super().__init__()
        self.generator, self.channels = generator, channels

    def forward(self, slices: Tensor) -> Tensor:
        if self.channels > 1:
            slices = slices.expand(-1, self.channels, -1, -1)
        return grey(self.generator(slices))
