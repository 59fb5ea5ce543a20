"""Whether two slices of different contrast have the same structure, whatever their grey levels.

Without pairs, a CycleGAN may put a tissue where another is, as long as the way back undoes it: both
discriminators and the cycle are content. Yang et al. (Unpaired brain MR-to-CT synthesis using a
structure-constrained CycleGAN, 2018) hold a translation to its source by MIND, the modality
independent neighbourhood descriptor of Heinrich et al. 2012: how like each patch is to those around
it. It is the same for a slice and its negative, and changes where an edge moves or texture appears.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# From a pixel to those whose patches its own is compared with, (rows, columns), and the opposite of
# each: by symmetry those cost nothing more.
NEAREST = ((0, 1), (1, 0))  # for the local variance
AROUND = ((0, 2), (2, 0), (2, 2), (2, -2))
REACH = 2  # of the furthest
RADIUS = 2  # of a patch: 5x5 pixels
LEAST_VARIANCE = 1e-3  # of slices in [-1, 1]: below it a patch is taken for flat


def structure_loss(made: Tensor, source: Tensor) -> Tensor:
    """Mean absolute difference of the descriptors of two batches [N, C, H, W] in [-1, 1]: 0 for the
    same structure, at most 1. In float32; `source` has no gradient."""
    with torch.autocast(made.device.type, enabled=False):
        with torch.no_grad():
            wanted = descriptor(source.float())
        return F.l1_loss(descriptor(made.float()), wanted)


def descriptor(slices: Tensor) -> Tensor:
    """MIND of float32 [N, C, H, W] in [-1, 1]: [N, C * 8, H, W] in [0, 1], 1 the largest of a pixel
    and channel. Of each of AROUND, then its opposite.

    exp(-D / V), D the mean squared difference of the patch around a pixel and of the one two pixels
    on, V the mean of the same for its four neighbours. What lies outside is as the border is.
    """
    count, channels, height, width = slices.shape
    planes = slices.flatten(0, 1)
    found = patch_distances(planes, NEAREST + AROUND)  # of the slice and REACH around it

    def both_ways(index: int, dy: int, dx: int) -> tuple[Tensor, Tensor]:
        """From a pixel on, and back: that is from the pixel before it on."""
        forth, back = (
            found[:, index, top : top + height, left : left + width]
            for top, left in ((REACH, REACH), (REACH - dy, REACH - dx))
        )
        return forth, back

    ways = [both_ways(i, *offset) for i, offset in enumerate(NEAREST + AROUND)]
    near, around = (sum(some, ()) for some in (ways[: len(NEAREST)], ways[len(NEAREST) :]))
    variance = torch.stack(near).mean(0).clamp(min=LEAST_VARIANCE)
    distances = torch.stack(around, dim=1)
    # Divided by the largest of the exponentials, which is that of the least distance.
    distances = distances - distances.amin(dim=1, keepdim=True)
    likeness = torch.exp(-distances / variance[:, None])
    return likeness.unflatten(0, (count, channels)).flatten(1, 2)


def patch_distances(planes: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Of [N, H, W]: [N, K, H + 2 * REACH, W + 2 * REACH], the mean over a patch of the squared
    difference to the slice moved by each of K offsets."""
    padded = F.pad(planes, (2 * REACH + RADIUS,) * 4, mode="replicate")
    height, width = (side - 2 * REACH for side in padded.shape[-2:])

    def moved(dy: int, dx: int) -> Tensor:
        top, left = REACH + dy, REACH + dx
        return padded[:, top : top + height, left : left + width]

    squares = (torch.stack([moved(*offset) for offset in offsets], 1) - moved(0, 0)[:, None]) ** 2
    side = 2 * RADIUS + 1
    mean = squares.new_full((len(offsets), 1, side, side), 1 / side**2)
    # As a convolution: avg_pool2d of few channels was slower on the CPU (torch 2.13).
    return F.conv2d(squares, mean, groups=len(offsets))
