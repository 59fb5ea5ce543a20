"""Whether two slices of different contrast have the same structure, whatever their grey levels.

Without pairs, a CycleGAN may put a tissue where another is, as long as the way back undoes it: both
discriminators and the cycle are content. Yang et al. (Unpaired brain MR-to-CT synthesis using a
structure-constrained CycleGAN, 2018) hold a translation to its source by MIND, the modality
independent neighbourhood descriptor of Heinrich et al. 2012: how like each patch is to those around
it. It is the same for a slice and its negative, and changes where an edge moves or texture appears.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# From a pixel to those whose patches its own is compared with, two pixels away: (rows, columns).
OFFSETS = tuple((dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2) if (dy, dx) != (0, 0))
NEAREST = ((-1, 0), (1, 0), (0, -1), (0, 1))  # for the local variance
RADIUS = 2  # of a patch: 5x5 pixels
LEAST_VARIANCE = 1e-3  # of slices in [-1, 1]: below it a patch is taken for flat


def structure_loss(made: Tensor, source: Tensor) -> Tensor:
    """Mean absolute difference of the descriptors of two batches [N, C, H, W] in [-1, 1]: 0 for the
    same structure, at most 1. In float32."""
    return F.l1_loss(descriptor(made.float()), descriptor(source.float()))


def descriptor(slices: Tensor) -> Tensor:
    """MIND of float32 [N, C, H, W] in [-1, 1]: [N, C * 8, H, W] in [0, 1], 1 the largest of a pixel
    and channel.

    exp(-D / V), D the mean squared difference of the patch around a pixel and of the one two pixels
    on, V the mean of the same for its four neighbours.
    """
    variance = torch.stack([patch_distance(slices, offset) for offset in NEAREST]).mean(0)
    distances = torch.stack([patch_distance(slices, offset) for offset in OFFSETS], dim=2)
    # Divided by the largest of the exponentials, which is that of the least distance.
    distances = distances - distances.amin(dim=2, keepdim=True)
    return torch.exp(-distances / variance.clamp(min=LEAST_VARIANCE)[:, :, None]).flatten(1, 2)


def patch_distance(slices: Tensor, offset: tuple[int, int]) -> Tensor:
    """[N, C, H, W]: the mean over a patch of the squared difference to the slice moved by `offset`,
    what lies outside being as the border is."""
    reach = max(map(abs, offset))
    height, width = slices.shape[-2:]
    padded = F.pad(slices, (reach,) * 4, mode="replicate")
    dy, dx = offset
    moved = padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]
    side = 2 * RADIUS + 1
    return F.avg_pool2d((slices - moved) ** 2, side, 1, RADIUS, count_include_pad=False)
