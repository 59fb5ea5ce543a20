"""The nuclear norm of a square matrix by matrix products alone, as a GPU likes it.

It is tr UᵀP, with U the polar factor of P: the limit of the Newton-Schulz iteration
X <- X (3 I - XᵀX) / 2, in which every singular value between 0 and 1 grows towards 1. Scaled by
Chen and Chow (A stable scaling of Newton-Schulz for improving the sign function computation of a
Hermitian matrix, ANL/MCS-P5059, 2014) small ones grow 2.5 times a step instead of 1.5. Those that
are below LOWEST of the largest need not arrive: what they would add is no more than themselves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 2.0**-52
LOWEST = 1e-15  # of the largest singular value: those above have arrived in the end
# The interval [l, 1] that a step is best for. Below this l the largest singular values would be
# thrown down to l, and their vectors would drown in rounding.
CUSHION = 0.1


def polar_nuclear_norm(p: Tensor) -> tuple[float, float]:
    """The sum of the singular values of p, float64 [n, n], and a bound on its error."""
    largest = float(torch.linalg.matrix_norm(p, 1) * torch.linalg.matrix_norm(p, torch.inf)) ** 0.5
    if largest == 0:
        return 0.0, 0.0
    x = p / largest  # singular values in [0, 1]
    low, last = LOWEST, False
    while not last:
        last = low > 1 - 1e-8  # one more step squares what is left
        edge = max(low, CUSHION)
        rho = (3 / (1 + edge + edge * edge)) ** 0.5  # both ends of [edge, 1] go to the same value
        x = torch.addmm(x, x, x.mT @ x, beta=1.5 * rho, alpha=-0.5 * rho**3)
        low = min(_step(low, rho), _step(1.0, rho))
    h = x.mT @ p  # the other polar factor, (PᵀP)^(1/2)
    value = float(h.diagonal().sum())
    return value, _bound(p, x, h, value, largest)


def _step(s: float, rho: float) -> float:
    return 0.5 * rho * s * (3 - rho * rho * s * s)


def _bound(p: Tensor, x: Tensor, h: Tensor, value: float, largest: float) -> float:
    """|value - nuclear norm|, whatever x is.

    From below: tr XᵀP <= |X| |P|_*. From above: P = X H + (P - X H), and |H|_* is at most the trace
    of its symmetric part, twice the sum of that part's negative eigenvalues, and what its skew part
    adds. In |.| stands the spectral norm; |M|_* <= sqrt(n) |M|_F for any M.
    """
    n = len(p)
    negative = _least_shift((h + h.mT) / 2, EPS * largest)
    skew = n**0.5 * float((h - h.mT).norm()) / 2
    rest = n**0.5 * float((p - x @ h).norm())
    identity = torch.eye(n, dtype=p.dtype, device=p.device)
    spread = math.sqrt(1 + _least_shift(identity - x.mT @ x, EPS))  # at least |X|
    above = spread * (value + 2 * n * negative + skew) + rest - value
    below = value - value / spread
    return float(max(above, below))


def _least_shift(s: Tensor, smallest: float) -> float:
    """A shift that makes the symmetric s positive definite: none of its eigenvalues is lower."""
    shift = smallest
    while bool(torch.linalg.cholesky_ex(s + shift * torch.eye(len(s)).to(s)).info):
        shift *= 4
    return shift
