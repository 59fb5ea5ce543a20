"""One of the two sets of a Frechet distance, and of it what the algorithms ask for, once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmrigan.errors import UsageError
from fastmrigan.metrics.feature_rows import checked_rows
from fastmrigan.metrics.moments import Moments

EPS = 2.0**-52
BLOCK = 256  # columns of a Cholesky factor at a time, on the CPU
ROUNDING = 4  # units of EPS, times Frobenius norms, that sums and factorisations may lose


class FeatureSet:
    """Features [N, d] or moments, checked."""

    def __init__(self, name: str, given: Any) -> None:
        self.features: Any = None  # [N, d], an array, or a tensor on a CUDA device
        self.device = torch.device("cpu")
        if isinstance(given, Moments):
            self.moments, self.count = given, given.count
            self.dimension, self.device = int(given.dimension or 0), given.device
        else:
            self.features = checked_rows(given, f"frechet: the {name} set")
            self.count, self.dimension = len(self.features), int(self.features.shape[1])
            if not isinstance(self.features, np.ndarray):
                self.device = self.features.device
        if self.count is not None and self.count < 2:
            raise UsageError(
                f"frechet: the {name} set has {self.count} rows, a covariance needs at least 2"
            )

    @property
    def full(self) -> bool:
        """More rows than features; of moments without a count, Cholesky finds out."""
        return self.count is None or self.count > self.dimension

    @cached_property
    def moments(self) -> Moments:
        return Moments().add(self.features)  # whatever its squares: `frechet` looks at them

    @cached_property
    def mean(self) -> Tensor:  # [d]
        if self.features is None or self.full:
            return torch.as_tensor(self.moments.mean, device=self.device)
        return _tensor(self.features).mean(dim=0, dtype=torch.float64)

    @cached_property
    def trace(self) -> float:
        if self.features is None or self.full:
            return float(self.covariance.diagonal().sum())
        flat = self.rows.flatten()
        return float(flat @ flat)

    @cached_property
    def rows(self) -> Tensor:
        """The rows about their mean over sqrt(N - 1), float64 [N, d]."""
        return next(self.chunks(len(self.features)))

    def chunks(self, size: int) -> Iterator[Tensor]:
        """`rows` in parts, float64 [size, d], the last one shorter."""
        scale = (len(self.features) - 1) ** -0.5
        for first in range(0, len(self.features), size):
            part = _tensor(self.features[first : first + size])
            yield torch.sub(part, self.mean).mul_(scale)

    @cached_property
    def covariance(self) -> Tensor:  # [d, d]
        return self.moments.covariance_tensor()

    @cached_property
    def lower(self) -> Tensor | None:
        """L [d, d] of S = L Lᵀ, kept with the moments; None where Cholesky fails."""
        known = self.moments.cache
        if "lower" not in known:
            known["lower"] = cholesky(self.covariance)
        found: Tensor | None = known["lower"]
        return found

    @cached_property
    def size(self) -> float:
        """The Frobenius norm of the covariance, of which it may be off by ROUNDING * EPS."""
        return float(torch.linalg.matrix_norm(self.covariance))


def cholesky(s: Tensor) -> Tensor | None:
    """L [d, d] of S = L Lᵀ, zero above the diagonal; None where S is not positive definite."""
    if s.device.type != "cpu":
        lower, failed = torch.linalg.cholesky_ex(s)
        return None if bool(failed) else lower
    # In columns of blocks, most of it products: half of torch's own time at d = 2048. SciPy's
    # is quick too, but the threads of its second BLAS slow the next step down by as much.
    lower = torch.zeros_like(s)
    for left in range(0, len(s), BLOCK):
        right = left + BLOCK
        column = s[left:, left:right] - lower[left:, :left] @ lower[left:right, :left].mT
        corner, failed = torch.linalg.cholesky_ex(column[:BLOCK])
        if bool(failed):
            return None
        lower[left:right, left:right] = corner
        lower[right:, left:right] = torch.linalg.solve_triangular(
            corner.mT, column[BLOCK:], upper=True, left=False
        )
    return lower


def _tensor(rows: Any) -> Tensor:
    """Without a copy where torch allows it: not of read-only arrays or backward steps."""
    if not isinstance(rows, np.ndarray):
        return rows  # type: ignore[no-any-return]
    plain = rows.flags.writeable and min(rows.strides, default=0) >= 0
    return torch.from_numpy(rows if plain else rows.copy())
