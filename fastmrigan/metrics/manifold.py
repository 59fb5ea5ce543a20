"""Precision, recall, density and coverage: quality and variety apart, from nearest neighbours.

A set's manifold is the union of balls round its points, each as wide as the distance to the
point's k-th nearest neighbour in the set.

    precision  share of made points inside the real manifold      (Kynkäänniemi et al. 2019,
    recall     share of real points inside the made manifold       arXiv:1904.06991)
    density    how many real balls hold a made point, mean over k  (Naeem et al. 2020,
    coverage   share of real balls that hold a made point           arXiv:2002.09797)

Inside means strictly inside, as in Naeem et al. Density and coverage are the robust pair: one
outlier with a huge ball lifts precision or recall, and hardly moves them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastmrigan.metrics.checks import check_whole
from fastmrigan.metrics.feature_rows import checked_pair

BLOCK_ENTRIES = 4_000_000  # of the distance matrix at a time, 32 MB

Features = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]


class Manifold(NamedTuple):
    """Higher is better for all; density alone may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(real: Features, made: Features, k: int = 5) -> Manifold:
    """The four figures of made features [M, d] against real features [N, d].

    Floats on the CPU, all finite, N and M > k. Euclidean distances in float64, in blocks of rows,
    so that memory grows with N + M alone. Raises UsageError for anything else.
    """
    name = "precision_recall_density_coverage"
    check_whole(f"{name}: k", k, 1)
    sets = {"real": real, "made": made}
    x, y = _near_one(*checked_pair(name, sets, k + 1, f"{k} neighbours need"))
    radius_x, radius_y = _radii(x, k), _radii(y, k)  # [N], [M], squared

    precise, dense = 0, 0
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float64)
    recalled = torch.zeros(len(x), dtype=torch.bool)
    for rows in _blocks(len(y), len(x)):
        distances = _squared(y[rows], x)  # [rows, N]
        inside = distances < radius_x
        precise += int(inside.any(dim=1).sum())
        dense += int(inside.sum())
        nearest = torch.minimum(nearest, distances.amin(dim=0))
        recalled |= (distances < radius_y[rows, None]).any(dim=0)
    return Manifold(
        precision=precise / len(y),
        recall=float(recalled.double().mean()),
        density=dense / (k * len(y)),
        coverage=float((nearest < radius_x).double().mean()),
    )


def _near_one(real: Features, made: Features) -> tuple[Tensor, Tensor]:
    """Both sets in float64, moved and scaled alike, to values of about one.

    None of the four figures changes with the origin or the scale. Near the data distances lose
    the fewest digits, and near one no square overflows or vanishes.
    """
    x, y = _divided(real.astype(np.float64), made.astype(np.float64))
    origin = x.mean(axis=0)
    x, y = _divided(x - origin, y - origin)
    return torch.from_numpy(x), torch.from_numpy(y)


def _divided(x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """By one power of two, which is exact; the largest value is then between 1/2 and 1."""
    exponent = np.frexp(max(np.abs(x).max(), np.abs(y).max()))[1]
    return np.ldexp(x, -exponent), np.ldexp(y, -exponent)


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each row of x [N, d] to its k-th nearest other row: [N]."""
    radii = torch.empty(len(x), dtype=torch.float64)
    for rows in _blocks(len(x), len(x)):
        distances = _squared(x[rows], x)  # [rows, N]
        distances[torch.arange(len(distances)), torch.arange(len(x))[rows]] = torch.inf
        radii[rows] = distances.kthvalue(k, dim=1).values
    return radii


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances of every row with every row: [n, d], [m, d] to [n, m]."""
    lengths = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)  # [n, m]
    return torch.addmm(lengths, x, y.T, alpha=-2).clamp_min_(0)


def _blocks(count: int, columns: int) -> list[slice]:
    step = max(1, BLOCK_ENTRIES // columns)
    return [slice(first, first + step) for first in range(0, count, step)]
