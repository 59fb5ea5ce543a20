"""Gaussian smoothing of a slice's edges, for the Pix2Pix branch of the style stage."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

STEEP = 0.95  # the quantile of the gradient from which on a pixel is all edge
REACH = 4.0  # the kernel ends at so many sigmas


def gaussian_blur(slices: Tensor, sigma: float) -> Tensor:
    """slices [N, C, H, W] with a separable Gaussian of `sigma` pixels; the frame is continued."""
    radius = math.floor(REACH * sigma + 0.5)
    place = torch.arange(-radius, radius + 1, dtype=slices.dtype, device=slices.device)
    kernel = torch.softmax(-0.5 * (place / sigma) ** 2, 0)  # [2 * radius + 1], sums to 1
    channels = slices.shape[1]
    padded = F.pad(slices, (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel.expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(across, kernel[:, None].expand(channels, 1, -1, 1), groups=channels)


def smooth_edges(slices: Tensor, sigma: float) -> Tensor:
    """Blurs where the slice is steep and leaves flat regions as they are.

    slices: float32 [N, C, H, W]; sigma: in pixels, more than 0. Each pixel is mixed with its
    blurred self by its gradient (Sobel), which counts as 1 from its 95th percentile on. A slice
    without gradient comes back unchanged.
    """
    if not sigma > 0:
        raise ValueError(f"smooth_edges: expected a sigma of more than 0 pixels, got {sigma}")
    blurred = gaussian_blur(slices, sigma)
    steep = gradient(slices)  # [N, C, H, W]
    top = steep.flatten(2).quantile(STEEP, dim=2)[:, :, None, None]  # [N, C, 1, 1]
    # Where fewer than 5 % of the pixels are steep, the steepest one sets the scale.
    top = torch.where(top > 0, top, steep.amax(dim=(2, 3), keepdim=True))
    edge = (steep / top.clamp(min=torch.finfo(slices.dtype).tiny)).clamp(max=1)
    return slices + edge * (blurred - slices)


def gradient(slices: Tensor) -> Tensor:
    """The length of Sobel's gradient, [N, C, H, W]; the frame is continued."""
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=slices.device)
    kernels = torch.stack([across, across.T])[:, None].to(slices.dtype)  # [2, 1, 3, 3]
    n, c, h, w = slices.shape
    padded = F.pad(slices, (1,) * 4, mode="replicate").reshape(n * c, 1, h + 2, w + 2)
    return F.conv2d(padded, kernels).square().sum(1).sqrt().reshape(n, c, h, w)
