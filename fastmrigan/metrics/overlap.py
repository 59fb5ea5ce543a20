"""tr (S1 S2)^(1/2) of two feature sets, by the algorithm that suits their shapes.

`frechet` says which there are. All of them are the nuclear norm of F1 F2ᵀ, S = FᵀF.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fastmrigan.metrics.feature_set import EPS, ROUNDING, FeatureSet
from fastmrigan.metrics.nuclear_norm import polar_nuclear_norm

# An overlap with a larger error, of both traces or in itself, is left for a slower way.
RELATIVE, ABSOLUTE = 5e-11, 4e-9
DETERMINANT = 10  # how many times the error of the determinant that of an eigenvalue may be
TINY = 1e-300
STRIPS = 8  # as quick as LAPACK's dsygst, in products alone
QR_ROWS = 4096  # rows factorised at a time
POLAR_ON_CUDA = False  # see benchmarks/frechet_cuda.py


@dataclass(frozen=True)
class Overlap:
    value: float  # tr (S1 S2)^(1/2)
    error: float
    method: str


def overlap_of(a: FeatureSet, b: FeatureSet) -> Overlap:
    if not (a.full and b.full):
        return _from_factors(a, b)
    quick = _from_eigenvalues(a, b)
    if quick is not None and quick.error <= _enough(a, b):
        return quick
    exact = _from_factors(a, b)
    return exact if quick is None or exact.error < quick.error else quick


def _enough(a: FeatureSet, b: FeatureSet) -> float:
    return min(RELATIVE * (a.trace + b.trace), ABSOLUTE)


def _from_eigenvalues(a: FeatureSet, b: FeatureSet) -> Overlap | None:
    """From the eigenvalues of Lᵀ S2 L; None where S1 has no Cholesky factor L."""
    if a.lower is None:
        return None
    if POLAR_ON_CUDA and a.device.type == "cuda":
        return _from_polar_factor(a, b)
    values = torch.linalg.eigvalsh(_between(a.lower, b.covariance)).clamp_(min=0)  # [d]
    off = ROUNDING * EPS * a.size * b.size
    error = _error_of_roots(values, off)
    if error > _enough(a, b):
        error = _error_of_roots(values, off, _relative_error(values, a, b))
    return Overlap(
        float(values.sqrt().sum()), error, "eigenvalues of L' S2 L, S1 = L L' (Cholesky)"
    )


def _error_of_roots(values: Tensor, off: float, relative: float = math.inf) -> float:
    """Of the sum of their roots, where each is off by at most `off` and by at most `relative` of
    itself, up or down at random, so that the errors partly cancel.

    The roots of values lost below `off` do not: a root is never negative, and all of them go up.
    """
    roots = values.sqrt()
    errors = off / (2 * roots).clamp(min=max(off**0.5, TINY))
    lost = values < 9 * off
    if relative < 0.1:
        errors, lost = errors.minimum(relative * roots / 2), torch.zeros_like(lost)
    return float(errors[~lost].square().sum().sqrt() + errors[lost].sum())


def _relative_error(values: Tensor, a: FeatureSet, b: FeatureSet) -> float:
    """The largest relative error of an eigenvalue of Lᵀ S2 L, or infinity.

    That of finding it is seen in the product of all, det S1 det S2, which the Cholesky factors
    know: 0.1 to 7 times as far off. That of the covariances comes to it.
    """
    if a.lower is None or b.lower is None or float(values.min()) <= 0:
        return math.inf
    exact = sum(2 * float(lower.diagonal().log().sum()) for lower in (a.lower, b.lower))
    found = abs(float(values.log().sum()) - exact)
    return DETERMINANT * found + _relative_rounding(a) + _relative_rounding(b)


def _between(lower: Tensor, s: Tensor) -> Tensor:
    """Lᵀ S L [d, d], of which the lower triangle holds, as `torch.linalg.eigvalsh` reads it.

    In strips of columns, which leaves out what the zeros of L make and what stands above the
    diagonal: two thirds of both products.
    """
    found = torch.zeros_like(s)
    cuts = [len(s) * k // STRIPS for k in range(STRIPS + 1)]
    for k, (left, right) in enumerate(pairwise(cuts)):
        strip = s[left:, left:] @ lower[left:, left:right]  # [d - left, right - left]
        for top, bottom in pairwise(cuts[k:]):
            found[top:bottom, left:right] = lower[top:, top:bottom].mT @ strip[top - left :]
    return found


def _from_polar_factor(a: FeatureSet, b: FeatureSet) -> Overlap | None:
    if a.lower is None or b.lower is None:
        return None
    value, error = polar_nuclear_norm(a.lower.mT @ b.lower)
    error += sum(_error_of_lower(one, other) for one, other in ((a, b), (b, a)))
    return Overlap(value, error, "nuclear norm of L1' L2 (Cholesky) by its polar factor")


def _from_factors(a: FeatureSet, b: FeatureSet) -> Overlap:
    """The nuclear norm of F1 F2ᵀ, by its singular values."""
    few, many = (a, b) if not a.full else (b, a)
    rows = few.features is not None and many.features is not None
    if rows and not few.full and many.full:
        product = _triangle(part @ few.rows.mT for part in many.chunks(QR_ROWS))  # [N1, N1]
        error, method = 0.0, "projections on centred features, their QR triangle"
    else:
        (left, left_error, left_name), (right, right_error, right_name) = (
            _factor(a, b),
            _factor(b, a),
        )
        product = left @ right.mT
        error, method = left_error + right_error, f"the product of {left_name} and {right_name}"
    values = torch.linalg.svdvals(product)
    error += ROUNDING * EPS * (len(values) * a.trace * b.trace) ** 0.5
    return Overlap(float(values.sum()), error, f"singular values of {method}")


def _factor(one: FeatureSet, other: FeatureSet) -> tuple[Tensor, float, str]:
    """F [r, d] with FᵀF = S, what its rounding makes of the overlap, and its name."""
    if one.features is not None:
        if not one.full:
            return one.rows, 0.0, "centred features"
        return _triangle(one.chunks(QR_ROWS)), 0.0, "QR triangle"
    if one.lower is not None:
        return one.lower.mT, _error_of_lower(one, other), "Cholesky factor"
    return _pivoted(one.covariance), _error_at_worst(one, other), "pivoted Cholesky factor"


def _triangle(parts: Iterator[Tensor]) -> Tensor:
    """R of the QR factorisation of all parts, one on top of the other: as many columns as they."""
    found: Tensor | None = None
    for part in parts:
        stack = part if found is None else torch.cat([found, part])
        found = torch.linalg.qr(stack, mode="r").R
    assert found is not None
    return found


def _pivoted(s: Tensor) -> Tensor:
    """F [r, d] of a singular covariance; r ends where no pivot above zero is left."""
    from scipy.linalg.lapack import dpstrf

    lower, order, rank, _ = dpstrf(s.cpu().numpy(), tol=0.0, lower=1)
    factor = np.zeros((rank, len(s)))
    factor[:, order - 1] = np.tril(lower)[:, :rank].T
    return torch.from_numpy(factor).to(s.device)


def _relative_rounding(one: FeatureSet) -> float:
    """|E| |S^-1|, E the rounding of S: no eigenvalue of L1ᵀ S L1 is moved by more of itself."""
    assert one.lower is not None
    x = torch.arange(one.dimension, dtype=torch.float64, device=one.device).cos_()[:, None]
    inverse = 0.0  # the norm of S^-1, by inverse iteration
    for _ in range(4):
        x = torch.cholesky_solve(x / x.norm(), one.lower)
        inverse = float(x.norm())
    return ROUNDING * EPS * one.size * inverse if math.isfinite(inverse) else math.inf


def _error_of_lower(one: FeatureSet, other: FeatureSet) -> float:
    """What E makes of the overlap by way of the Cholesky factor: half of what it makes of the
    squares, of at most (tr S1 tr S2)^(1/2); the half is left to the estimate of |S^-1|."""
    most = math.sqrt(one.trace * other.trace)
    return min(_relative_rounding(one) * most, _error_at_worst(one, other))


def _error_at_worst(one: FeatureSet, other: FeatureSet) -> float:
    """|E|^(1/2) tr S2^(1/2), for |(S + E)^(1/2) - S^(1/2)| <= |E|^(1/2) in the spectral norm."""
    return float((ROUNDING * EPS * one.size * one.dimension * other.trace) ** 0.5)
