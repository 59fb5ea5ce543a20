"""How alike two slices are, whatever their grading: what a search for copies is made of.

Slices are brought to one grading, and of them the detail is compared that neither noise nor what
all heads share can change. `metrics.memorisation` says what the search is worth; it and the quality
gate of a job compare slices so.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SIZE = 64  # pixels a side, at most, at which slices are compared
FEWEST_HELD_OUT = 20  # slices from which the threshold can be told
SPREADS = 3.0  # how far above the held-out median, in robust standard deviations, the threshold is
FINE, COARSE = 1.2, 4.0  # pixels: detail between these two blurs is compared
LEVELS = 1024  # grey levels that the grading tells apart
QUANTILES = 256  # points of the common grading
SHIFT = 3  # pixels a slice may have been moved, in any direction, and still be found
SHORTLIST = 6  # slices that are like a query at half size, and are compared at full size
FLAT = 1e-4  # the length of a row, less its mean, up to which it is constant and like nothing
GRADED = 256  # training slices, at most, that the common grading is taken from

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def common_grading(train: Float32) -> Float32:
    """The quantiles [QUANTILES] of a training slice, in the mean: the grading all are brought to.

    After Nyúl and Udupa 1999 (Magn. Reson. Med. 42, 1072), with every quantile a landmark.
    """
    some = train[:: -(-len(train) // GRADED)]
    ordered = np.sort(some.reshape(len(some), -1), axis=1)
    places = ((np.arange(QUANTILES) + 0.5) / QUANTILES * ordered.shape[1]).astype(np.int64)
    grading: Float32 = ordered[:, places].mean(axis=0)
    return grading


def regraded(slices: Float32, grading: Float32) -> Float32:
    """Slices [N, H, W] whose grey values, in their order, are given those of `grading`.

    Equal grey values (a clipped background) share the mean of their ranks.
    """
    graded = np.empty(slices.shape, np.float32)
    places = (np.arange(QUANTILES) + 0.5) / QUANTILES
    for i, x in enumerate(slices):
        level = np.rint((x.clip(-1, 1) + 1) * ((LEVELS - 1) / 2)).astype(np.int64)  # [H, W]
        counts = np.bincount(level.ravel(), minlength=LEVELS)
        rank = (np.cumsum(counts) - counts / 2) / level.size  # [LEVELS], in 0..1
        graded[i] = np.interp(rank, places, grading).astype(np.float32)[level]
    return graded


def blur(size: int, sigma: float) -> Float32:
    """The matrix [size, size] that blurs along columns; beyond the edge its pixel is repeated."""
    reach = round(3 * sigma)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    matrix = np.zeros((size, size), np.float32)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        np.add.at(matrix, (np.arange(size), (np.arange(size) + offset).clip(0, size - 1)), weight)
    return matrix


def compared_side(slices: Float32) -> int:
    """Pixels a side at which slices [N, H, W] are compared: at most 64, and even."""
    return min(SIZE, int(min(slices.shape[1:])) // 2 * 2)


def copy_threshold(reference: Float32) -> float:
    """The likeness above which a slice is a copy: SPREADS deviations above the median, in Fisher's
    z, of that of held-out slices [M], which were never trained on.

    The deviation is told by the median absolute one and by the 95th percentile, whichever is
    wider: a few copies among the held-out slices move neither, a long upper tail moves the second.
    """
    z = np.arctanh(reference.astype(np.float64).clip(-0.9999, 0.9999))
    centre, high = np.quantile(z, [0.5, 0.95])
    spread = max(1.4826 * np.median(np.abs(z - centre)), (high - centre) / 1.6449)
    return float(np.tanh(centre + SPREADS * spread))
