"""DiffAugment: what a discriminator sees is augmented, real and generated slices alike.

Zhao et al. 2020, Differentiable Augmentation for Data-Efficient GAN Training. The gradient flows
through to the generator, so that it is not the augmented distribution that is learnt. For data sets
of some hundred slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastmrigan.training.order import draws_of

POLICIES = ("colour", "translation", "cutout")
NUMBERS = 6  # uniform numbers a slice: brightness, contrast, shift (y, x), cutout (y, x)
FIRST_STREAM = 16  # of draws_of; those before are the augmentation's


@dataclass(frozen=True)
class DiffAugment:
    """`DiffAugment(policies)(slices, draws)`; the policies apply in the paper's order.

    The paper's values; its code fills with 0, which is mid-grey here, so `fill` is air instead.
    There is no saturation: slices are grey. ValueError for an unknown policy.
    """

    policies: tuple[str, ...] = POLICIES
    brightness: float = 0.5  # added to a slice: uniformly within +- this
    contrast: float = 0.5  # times its deviations from its mean: uniformly within 1 +- this
    translation: float = 1 / 8  # share of the side, to either side
    cutout: float = 1 / 2  # side of the square as a share of the slice's
    fill: float = -1.0  # where there is nothing any more

    def __post_init__(self) -> None:
        unknown = [name for name in self.policies if name not in POLICIES]
        if unknown:
            raise ValueError(f"DiffAugment: expected policies of {POLICIES}, got {unknown[0]!r}")

    def __call__(self, slices: Tensor, draws: Tensor, *, images: int = 1) -> Tensor:
        """slices [N, C, H, W] and draws [N, 6] (`draw` or `draws_at`) to slices of that shape.

        images: how many the channels hold, one after the other (a slice and what it was made from).
        They move and are cut alike; brightness and contrast are of each by its own mean.
        Brightness and contrast may leave [-1, 1], as in the paper.
        """
        if draws.shape != (len(slices), NUMBERS):
            raise ValueError(
                f"DiffAugment: expected draws [{len(slices)}, {NUMBERS}], got {list(draws.shape)}"
            )
        draws = draws.to(slices.device)
        if "colour" in self.policies:
            slices = self._colour(slices, draws, images)
        if "translation" in self.policies:
            slices = self._translated(slices, draws)
        if "cutout" in self.policies:
            slices = self._cut_out(slices, draws)
        return slices

    def _colour(self, slices: Tensor, draws: Tensor, images: int) -> Tensor:
        signed = (2 * draws[:, :2] - 1).to(slices.dtype)  # [N, 2]
        brightness, contrast = signed[:, :, None, None, None, None].unbind(
            1
        )  # [N, 1, 1, 1, 1] each
        count, channels, height, width = slices.shape
        each = slices.view(count, images, channels // images, height, width)
        each = each + brightness * self.brightness
        mean = each.mean((2, 3, 4), keepdim=True)  # [N, images, 1, 1, 1]
        return ((each - mean) * (1 + contrast * self.contrast) + mean).flatten(1, 2)

    def _translated(self, slices: Tensor, draws: Tensor) -> Tensor:
        channels, height, width = slices.shape[1:]
        rows = self._shifted(draws[:, 2], height)  # [N, H]: where each row comes from
        columns = self._shifted(draws[:, 3], width)  # [N, W]
        inside = ((rows >= 0) & (rows < height))[:, :, None]
        inside = inside & ((columns >= 0) & (columns < width))[:, None]  # [N, H, W]
        # Taken round the frame and then masked: every pixel is read once, so that the gradient
        # needs no sum and is the same on each run.
        places = rows.remainder(height)[:, :, None] * width + columns.remainder(width)[:, None]
        index = places.flatten(1)[:, None].expand(-1, channels, -1)  # [N, C, H*W]
        moved = slices.flatten(2).gather(2, index).view(slices.shape)
        # masked_fill takes `fill` as a number; where would copy it to the device at each call.
        return moved.masked_fill(~inside[:, None], self.fill)

    def _shifted(self, uniform: Tensor, side: int) -> Tensor:
        most = int(side * self.translation + 0.5)  # pixels
        shift = floor_of(uniform, 2 * most + 1) - most  # [N]
        return torch.arange(side, device=uniform.device) - shift[:, None]

    def _cut_out(self, slices: Tensor, draws: Tensor) -> Tensor:
        height, width = slices.shape[-2:]
        rows = self._hidden(draws[:, 4], height)  # bool [N, H]
        columns = self._hidden(draws[:, 5], width)  # bool [N, W]
        hidden = rows[:, :, None] & columns[:, None]  # [N, H, W]
        return slices.masked_fill(hidden[:, None], self.fill)

    def _hidden(self, uniform: Tensor, side: int) -> Tensor:
        """Which rows the square covers; its middle lies anywhere in the slice."""
        extent = int(side * self.cutout + 0.5)  # pixels
        first = floor_of(uniform, side + 1 - extent % 2) - extent // 2  # [N]
        place = torch.arange(side, device=uniform.device) - first[:, None]  # [N, side]
        return (place >= 0) & (place < extent)


def floor_of(uniform: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) to whole ones in 0..count-1."""
    return (uniform * count).floor().long().clamp(max=count - 1)  # float32 may round up to count


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Draws for `count` slices, float32 [count, 6] in [0, 1), from an explicit generator."""
    return torch.rand(count, NUMBERS, generator=generator, device=generator.device)


def draws_at(
    count: int, *, seed: int, step: int, stream: int = 0, rank: int = 0, world: int = 1
) -> Tensor:
    """Draws for this rank's `count` slices, float32 [count, 6], of (seed, step, stream) alone.

    stream: one for each time slices are shown in a step (0 to 239). Drawn for all ranks and cut.
    """
    drawn = draws_of(seed, step, FIRST_STREAM + stream).random((world * count, NUMBERS), "f4")
    return torch.from_numpy(drawn[rank * count : (rank + 1) * count].copy())
