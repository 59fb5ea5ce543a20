"""Fixed random convolutional features, the ground of `fd-random`.

What they are: 464 numbers a slice from four convolution layers whose weights are drawn once from
a frozen random stream, the same on every machine and with every version of NumPy and PyTorch.
Random convolutions with rectification answer to edges, texture, brightness and layout, so a
Frechet distance on them falls as slices come to look alike, and needs no download.

What they are not: Inception features, and `fd-random` is not FID. Nothing here was trained, so
nothing here knows anatomy; values compare only with values of the same FEATURES_VERSION, and with
the split-half floor of the same real set.

Sizes: texture (the first layer) is seen at the slice's own size, layout (all layers) at 64x64
after area resizing, so slices of 64 to 512 pixels give the same 464 features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fastmrigan.metrics.checks import check_slices
from fastmrigan.progress import Progress

FEATURES_VERSION = 1  # raised whenever a weight, a layer or the pooling changes
FEATURES_SEED = 20170626
LAYOUT_SIZE = 64  # pixels a side at which the deeper layers look
CONTRAST_FILTERS = 16  # of the stem's 24: mean-free, blind to brightness, awake to edges
LAYERS = ((24, 1, 5), (32, 24, 3), (48, 32, 3), (64, 48, 3))  # out, in, kernel
BATCH_PIXELS = 32 * 64 * 64  # a batch whose first layer stays in the processor's cache
DIMENSION = 2 * 24 + 2 * 32 + 2 * 48 + 4 * 64

Float32 = npt.NDArray[np.float32]


def random_features(slices: Float32, *, label: str = "features", shown: bool = True) -> Float32:
    """The fixed random features of slices.

    slices: float32 [N, H, W] in [-1, 1], H and W >= 16. Returns float32 [N, 464].
    Row i depends on slice i alone. `shown` false keeps its progress to itself, for callers that
    have one of their own. Raises UsageError for another shape or type.
    """
    check_slices("random_features", slices, side=16)
    rows = np.empty((len(slices), DIMENSION), np.float32)
    batch = max(1, BATCH_PIXELS // (slices.shape[1] * slices.shape[2]))
    progress = Progress(label, len(slices), "slices", shown=shown)
    with progress, torch.inference_mode():
        for first in range(0, len(slices), batch):
            chunk = np.ascontiguousarray(slices[first : first + batch])
            slice_batch = torch.from_numpy(chunk).unsqueeze(1)
            rows[first : first + batch] = embed(slice_batch, frozen_weights()).numpy()
            progress.advance(len(chunk))
    return rows


def resize_area(x: Tensor, size: int) -> Tensor:
    """[N, 1, H, W] to [N, 1, size, size], each pixel the mean of the area it covers."""
    return x if x.shape[-2:] == (size, size) else F.interpolate(x, (size, size), mode="area")


def embed(slices: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Slices [N, 1, H, W] in [-1, 1] by the network of four `weights`: [N, 464]."""
    stem, second, third, fourth = weights
    x = (slices + 1) / 2  # [N, 1, H, W], black is 0 as the padding is
    texture = torch.relu_(F.conv2d(x, stem, padding=2))  # [N, 24, H, W]
    small = resize_area(x, LAYOUT_SIZE)  # [N, 1, 64, 64]
    y = texture if small is x else torch.relu_(F.conv2d(small, stem, padding=2))  # [N, 24, 64, 64]
    parts = [_mean_and_spread(texture)]
    for weight in (second, third):
        y = torch.relu_(F.conv2d(y, weight, stride=2, padding=1))  # [N, 32, 32, 32], 48 at 16
        parts.append(_mean_and_spread(y))
    y = torch.relu_(F.conv2d(y, fourth, stride=2, padding=1))  # [N, 64, 8, 8]
    parts.append(F.adaptive_avg_pool2d(y, 2).flatten(1))  # [N, 256], the four quadrants
    return torch.cat(parts, dim=1)  # [N, 464]


def _mean_and_spread(y: Tensor) -> Tensor:
    """[N, C, H, W] to [N, 2C]: each channel's mean and standard deviation over the slice."""
    mean = y.mean(dim=(2, 3), keepdim=True)  # [N, C, 1, 1]
    pixels = y.shape[2] * y.shape[3]
    spread = torch.linalg.vector_norm(y - mean, dim=(2, 3)) / pixels**0.5  # [N, C]
    return torch.cat([mean.flatten(1), spread], dim=1)


@cache
def frozen_weights() -> tuple[Tensor, ...]:
    """The four layers' weights, He-scaled (std sqrt(2 / fan in)), float32.

    RandomState and not default_rng: NumPy promises its stream never changes (NEP 19), and gives
    no such promise for Generator; a test pins the weights' digest.
    """
    return draw_weights(np.random.RandomState(FEATURES_SEED))


def draw_weights(stream: np.random.RandomState) -> tuple[Tensor, ...]:
    """Another network of the same kind."""
    weights = []
    for channels, inputs, kernel in LAYERS:
        draw = stream.standard_normal((channels, inputs, kernel, kernel))
        if inputs == 1:
            draw[:CONTRAST_FILTERS] -= draw[:CONTRAST_FILTERS].mean(axis=(2, 3), keepdims=True)
        scaled = draw * np.sqrt(2 / (inputs * kernel * kernel))
        weights.append(torch.from_numpy(scaled.astype(np.float32)))
    return tuple(weights)
