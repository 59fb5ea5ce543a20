"""Augmentation of real slices: enlarge and crop, shift, mirror, rotate, zoom, afresh at each step.

A function of (slices, seed, step) alone. The draws are made for the batches of all ranks and then
cut to the rank's own, so that a resumed run, and two ranks at batch B beside one at 2B, see the
same slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastmrigan.training.order import TARGET, draws_of

BACKGROUND = -1.0  # air


@dataclass(frozen=True)
class Augmentation:
    """What is done to a slice; nothing by default. ValueError for values that make no sense."""

    resize: float = 1.0  # enlarge by this factor, bicubic, then crop at random to the size again
    shift: int = 0  # pixels of background added on each side before the random crop
    horizontal_flip: bool = False  # mirror half of the slices left to right
    rotation: float = 0.0  # degrees, uniformly within +- this, about the middle of the frame
    zoom: float = 1.0  # enlarge or shrink by up to this factor, about the middle; 1.25: 0.8 to 1.25

    def __post_init__(self) -> None:
        sizes = self.resize >= 1 and self.zoom >= 1
        if not (sizes and self.shift >= 0 and 0 <= self.rotation <= 180):
            raise ValueError(
                "Augmentation: expected resize and zoom >= 1, shift >= 0 and rotation from 0 to "
                f"180, got {self.resize}, {self.zoom}, {self.shift} and {self.rotation}"
            )


@dataclass(frozen=True)
class Draws:
    """What is done to each of N slices."""

    top: Tensor  # int64 [N]: first row of the crop in the enlarged frame; below 0: background
    left: Tensor  # int64 [N]
    mirrored: Tensor  # bool [N]
    angle: Tensor  # float64 [N], radians, anticlockwise as the slice is looked at
    zoom: Tensor  # float64 [N], above 1: larger


def augment(
    slices: Tensor,
    options: Augmentation,
    *,
    seed: int,
    step: int,
    side: int = TARGET,
    rank: int = 0,
    world: int = 1,
) -> Tensor:
    """Augmented slices, [N, C, H, W] as given and in [-1, 1], clamped since bicubic overshoots.

    side: TARGET or SOURCE, whose draws differ; registered twins stay registered when both are given
    the same side. Where `options` ask for nothing, the slices themselves are returned.
    """
    if options == Augmentation():
        return slices
    height, width = slices.shape[-2:]
    enlarged = (int(height * options.resize), int(width * options.resize))
    draws = draw(len(slices), (height, width), enlarged, options, seed, step, side, rank, world)
    if options.rotation or options.zoom > 1:
        moved = resampled(slices, enlarged, draws)
    else:
        if enlarged != (height, width):
            # antialias changes nothing in an enlargement but the kernel: Keys' a = -0.5, as PIL's
            slices = F.interpolate(slices, enlarged, mode="bicubic", antialias=True)
        moved = cropped(slices, (height, width), draws)
    return moved.clamp(-1, 1)


def draw(
    count: int,
    size: tuple[int, int],
    enlarged: tuple[int, int],
    options: Augmentation,
    seed: int,
    step: int,
    side: int,
    rank: int,
    world: int,
) -> Draws:
    """This rank's `count` draws. One field of the options does not change what another draws."""
    generator = draws_of(seed, step, side)
    own = slice(rank * count, (rank + 1) * count)
    uniform = generator.random((world * count, 4))[own]  # one row a slice
    free = np.array(enlarged) - size + 2 * options.shift  # places of the crop, less one
    corner = np.floor(uniform[:, :2] * (free + 1)).astype(np.int64) - options.shift  # [N, 2]
    mirrored = (uniform[:, 2] < 0.5) & options.horizontal_flip
    angle = np.deg2rad((2 * uniform[:, 3] - 1) * options.rotation)
    zoom = options.zoom ** (2 * generator.random(world * count)[own] - 1)
    top, left = torch.from_numpy(corner).unbind(1)
    rest = (torch.from_numpy(drawn) for drawn in (mirrored, angle, zoom))
    return Draws(top, left, *rest)


def cropped(slices: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
    """The part of each of [N, C, h, w] that begins at its corner: [N, C, *size]."""
    (height, width), (h, w) = size, slices.shape[-2:]
    rows = draws.top[:, None] + torch.arange(height)  # [N, H], in the frame it is cut from
    columns = torch.arange(width).expand(len(slices), -1)
    columns = torch.where(draws.mirrored[:, None], width - 1 - columns, columns)
    columns = columns + draws.left[:, None]  # [N, W]
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None]
    places = rows.clamp(0, h - 1)[:, :, None] * w + columns.clamp(0, w - 1)[:, None]  # [N, H, W]
    index = places.flatten(1)[:, None].expand(-1, slices.shape[1], -1).to(slices.device)
    taken = slices.flatten(2).gather(2, index).view(*slices.shape[:2], *size)  # [N, C, H, W]
    return torch.where(inside[:, None].to(slices.device), taken, BACKGROUND)


def resampled(slices: Tensor, enlarged: tuple[int, int], draws: Draws) -> Tensor:
    """Rotated and zoomed, then enlarged, cropped and mirrored, in one bicubic resampling
    (a = -0.75)."""
    height, width = slices.shape[-2:]
    h, w = enlarged
    # From a place in the result to the one it is taken from, in grid_sample's units, where a frame
    # of any size is [-1, 1]. Hence backwards: mirror, crop and enlarge in one, then rotate
    # and zoom.
    placed = torch.zeros(len(slices), 3, 3, dtype=torch.float64)
    placed[:, 0, 0] = torch.where(draws.mirrored, -1, 1) * width / w
    placed[:, 0, 2] = (width + 2 * draws.left) / w - 1
    placed[:, 1, 1] = height / h
    placed[:, 1, 2] = (height + 2 * draws.top) / h - 1
    placed[:, 2, 2] = 1
    none = torch.zeros_like(draws.angle)
    cos, sin = draws.angle.cos() / draws.zoom, draws.angle.sin() / draws.zoom
    rotated = torch.stack(
        [
            torch.stack([cos, -sin * height / width, none], 1),
            torch.stack([sin * width / height, cos, none], 1),
        ],
        1,
    )  # [N, 2, 3]
    grid = F.affine_grid(rotated @ placed, list(slices.shape), align_corners=False)
    grid = grid.to(slices.device, slices.dtype)  # [N, H, W, 2]
    # grid_sample takes 0 for what lies outside: shifted so that 0 is background
    above = slices - BACKGROUND
    return F.grid_sample(above, grid, mode="bicubic", align_corners=False) + BACKGROUND
