"""The Frechet distance between two sets of features, exact in float64, from rows or from moments.

Heusel et al. 2017 (arXiv:1706.08500), equation 6, between the Gaussians fitted to both sets:

    |m1 - m2|² + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

With any factors F of the covariances, S = FᵀF, the last trace is the nuclear norm (the sum of the
singular values) of F1 F2ᵀ. Which factors, and whether any, the shapes choose, and `Frechet.method`
says:

    N1 <= d, N2 <= d    the centred rows themselves, so that a [N1, N2] matrix is all there is
    N1 <= d < N2        the centred rows of one, projected on those of the other; the triangle of
                        the thin QR factorisation of that [N2, N1] matrix, chunk by chunk
    N1 > d, N2 > d      streamed covariances, S1 = L Lᵀ (Cholesky), the eigenvalues of Lᵀ S2 L,
                        which are the squares of those singular values; where Cholesky fails, or
                        small eigenvalues make this too inexact, the triangles of thin QR
                        factorisations of both sets of rows
    moments of one      the same with the Cholesky factor, or, where the covariance is singular,
                        the factor of a pivoted Cholesky factorisation, without a cut

Small eigenvalues are never cut, negative ones are taken for the zeros they are but for rounding.
From rows the result is within 1e-8 of the exact value, and within 1e-10 (tr S1 + tr S2), for
traces up to 1e5 and beside what float64 leaves of means far from zero; 1e-13 of the traces is what
is seen. From moments of rank-deficient sets it may be off by 1e-4 for traces of 1e3, because of a
zero eigenvalue a covariance keeps no more than the square of that. `error_bound` says how far.

Features whose squares, or the squares of those, float64 cannot hold (below 1e-50 or above 1e50)
are divided by a power of two first, and `method` says so; a distance that float64 itself cannot
hold is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.metrics.moments import Moments

if TYPE_CHECKING:
    import torch

    from fastmrigan.metrics.feature_set import FeatureSet

Rows: TypeAlias = Union["npt.NDArray[np.floating[Any]]", "torch.Tensor"]
Features: TypeAlias = Rows | Moments

HALVES = 10  # seeded random halvings averaged into the floor


@dataclass(frozen=True)
class Frechet:
    """A distance, its two parts, the algorithm that the shapes chose, and how exact it is."""

    distance: float  # mean_part + covariance_part, >= 0
    mean_part: float  # |m1 - m2|²
    covariance_part: float  # tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), >= 0
    method: str
    error_bound: float  # on |distance - exact|, from the rounding of float64


def frechet_distance(a: Features, b: Features) -> float:
    """The Frechet distance between feature sets a and b; 0 is best. As `frechet`."""
    return frechet(a, b).distance


def frechet(a: Features, b: Features) -> Frechet:
    """`frechet_distance` with its parts, method and error.

    a, b: float [N, d] with N >= 2, all finite, NumPy arrays or tensors, or `Moments` of at least
    two rows; N may differ. Tensors on a CUDA device are measured there, and both must be on it.
    Raises UsageError where a set has another shape, fewer than two rows, or NaN or inf, and where
    the distance is beyond float64.
    """
    from fastmrigan.metrics.feature_set import FeatureSet
    from fastmrigan.metrics.frechet_range import in_range, near_one, scaled_back

    first, second = FeatureSet("first", a), FeatureSet("second", b)
    if first.dimension != second.dimension:
        raise UsageError(
            f"frechet: the sets must have the same number of features, "
            f"got {first.dimension} and {second.dimension}"
        )
    if first.device != second.device:
        raise UsageError(
            f"frechet: the sets must be on one device, got {first.device} and {second.device}"
        )
    if in_range(first.trace + second.trace + squared_gap(first, second)):
        return measured(first, second)
    found = near_one(first, second)
    if found is None:
        return Frechet(0.0, 0.0, 0.0, "all rows of both sets are the same", 0.0)
    return scaled_back(measured(*found[:2]), found[2])


def squared_gap(first: FeatureSet, second: FeatureSet) -> float:
    gap = first.mean - second.mean  # [d]
    return float(gap @ gap)


def measured(first: FeatureSet, second: FeatureSet) -> Frechet:
    """Of sets whose squares float64 holds."""
    from fastmrigan.metrics.feature_set import EPS, ROUNDING
    from fastmrigan.metrics.overlap import overlap_of

    traces, mean_part = first.trace + second.trace, squared_gap(first, second)
    overlap = overlap_of(first, second)
    covariance_part = max(0.0, traces - 2 * overlap.value)  # below zero by round-off alone
    means = 2 * mean_part**0.5 * float(first.mean.norm() + second.mean.norm())
    error = 2 * overlap.error + ROUNDING * EPS * (traces + means)
    return Frechet(mean_part + covariance_part, mean_part, covariance_part, overlap.method, error)


def split_half_floor(features: Rows, seed: int) -> float:
    """Mean distance between random halves of features [N, d], N >= 4: real against real.

    Over HALVES halvings drawn from `seed`. Raises UsageError as `frechet` does.
    """
    draws = np.random.default_rng(seed)
    half = len(features) // 2
    distances = []
    for _ in range(HALVES):
        order = draws.permutation(len(features))
        distances.append(frechet_distance(features[order[:half]], features[order[half : 2 * half]]))
    return float(np.mean(distances))
