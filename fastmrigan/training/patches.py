"""How far the patches of some slices lie from those of others, with no pairs and no discriminator.

The sliced Wasserstein distance of patches at every scale: Karras et al. (Progressive growing of
GANs, 2018) measure by it; Elnekave and Weiss (Generating natural images with direct patch
distributions matching, 2022) learn by it. Discriminators of twenty slices a side let tissues change
places (RESULTS.md); this has nothing to learn.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 7  # of a patch
FILTERS = 24  # directions patches are projected on, at each scale
SMALLEST = 8  # side of slices at the coarsest scale, where a patch is nearly all of one
PATCHES = 16_384  # of more at a scale between half and twice so many are looked at, evenly spread


def scales(size: int) -> int:
    """How often slices of a side of `size` (at least 8) are looked at, each time halved."""
    return (size // SMALLEST).bit_length()


def draw_filters(size: int, draws: np.random.Generator, count: int = FILTERS) -> Tensor:
    """Random directions of length 1, for slices of a side of `size`: [scales, count, 1, 7, 7]."""
    filters = draws.standard_normal((scales(size), count, 1, SIDE, SIDE), np.float32)
    return torch.from_numpy(filters / np.sqrt((filters**2).sum((2, 3, 4), keepdims=True)))


def patch_distance(made: Tensor, real: Tensor, filters: Tensor) -> Tensor:
    """Between the patches of two batches [N, C, H, W], each channel a slice: summed over scales.

    At each scale the mean over `filters` of the Wasserstein-1 distance between the patches'
    projections, which for as many of both is that of the sorted ones. In float32; `real` has no
    gradient.
    """
    with torch.autocast(made.device.type, enabled=False):
        with torch.no_grad():
            wanted = profiles(real, filters)
        return apart(profiles(made, filters), wanted)


def profiles(slices: Tensor, filters: Tensor) -> list[Tensor]:
    """Projections of the patches at each scale, each row in order: [filters, patches]."""
    slices = slices.float().flatten(0, 1)[:, None]
    found = []
    for scale, directions in enumerate(filters):
        if scale:
            slices = F.avg_pool2d(slices, 2)
        stride = max(1, round(math.sqrt(len(slices) * slices[0].numel() / PATCHES)))
        seen = F.conv2d(slices, directions, stride=stride)
        found.append(seen.transpose(0, 1).flatten(1).sort(dim=1).values)
    return found


def apart(made: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """The distance of two `profiles`."""
    return torch.stack([F.l1_loss(*both) for both in zip(made, wanted, strict=True)]).sum()
