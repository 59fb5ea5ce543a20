"""The Frechet distance between two sets of features, exact in float64.

Heusel et al. 2017 (arXiv:1706.08500), equation 6, between the Gaussians fitted to both sets:

    |m1 - m2|² + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

With centred features A = (x - m) / sqrt(N - 1), so that S = AᵀA, the last trace is the nuclear
norm (sum of singular values) of A1 A2ᵀ, and A may be replaced by the triangle R of its QR
factorisation. No covariance, no matrix square root and no cut of small eigenvalues is needed, so
rank-deficient sets (fewer slices than features) are exact too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError

Features = npt.NDArray[np.floating]
Matrix = npt.NDArray[np.float64]

HALVES = 10  # seeded random halvings averaged into the floor


@dataclass(frozen=True)
class Frechet:
    """A distance, its two parts and the algorithm that its shapes chose."""

    distance: float  # mean_part + covariance_part, >= 0
    mean_part: float  # |m1 - m2|²
    covariance_part: float  # tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), >= 0
    method: str  # which factors the singular values were taken from


def frechet_distance(a: Features, b: Features) -> float:
    """The Frechet distance between feature sets a [N1, d] and b [N2, d]; 0 is best."""
    return frechet(a, b).distance


def frechet(a: Features, b: Features) -> Frechet:
    """`frechet_distance` with its parts.

    a: float [N1, d]; b: float [N2, d]; both N >= 2, all finite, N1 and N2 may differ.
    Raises UsageError where a set has another shape, fewer than two rows, or NaN or inf.
    """
    for name, features in (("first", a), ("second", b)):
        _check(name, features)
    if a.shape[1] != b.shape[1]:
        raise UsageError(
            f"frechet: the sets must have the same number of features, "
            f"got {a.shape[1]} and {b.shape[1]}"
        )
    mean_a, factor_a = _factor(a)  # [d], [min(N1, d), d]
    mean_b, factor_b = _factor(b)  # [d], [min(N2, d), d]
    overlap = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    traces = np.square(factor_a).sum() + np.square(factor_b).sum()
    mean_part = float(np.square(mean_a - mean_b).sum())
    covariance_part = max(0.0, float(traces - 2 * overlap))  # below zero by round-off alone
    forms = ["QR triangle" if len(x) > x.shape[1] else "centred features" for x in (a, b)]
    method = f"singular values of the product of {forms[0]} and {forms[1]}"
    return Frechet(mean_part + covariance_part, mean_part, covariance_part, method)


def split_half_floor(features: Features, seed: int) -> float:
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


def _factor(features: Features) -> tuple[Matrix, Matrix]:
    """The mean [d] and a factor F [min(N, d), d] with FᵀF the sample covariance."""
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    x /= np.sqrt(len(x) - 1)
    return mean, np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x


def _check(name: str, features: Features) -> None:
    if features.ndim != 2 or features.shape[1] == 0 or features.dtype.kind != "f":
        raise UsageError(
            f"frechet: expected the {name} set as floats [N, d], "
            f"got {features.dtype} {list(features.shape)}"
        )
    if len(features) < 2:
        raise UsageError(
            f"frechet: the {name} set has {len(features)} rows, a covariance needs at least 2"
        )
    if not np.isfinite(features).all():
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise UsageError(f"frechet: the {name} set has NaN or infinity in row {row}")
