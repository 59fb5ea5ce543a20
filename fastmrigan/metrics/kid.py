"""KID: the unbiased squared maximum mean discrepancy with a cubic kernel.

Binkowski et al. 2018 (arXiv:1801.01401), section 4: with k(x, y) = (x·y / d + 1)³,

    mean of k over pairs within a + mean of k over pairs within b - 2 mean of k between a and b,

where a pair within a set is never a row with itself. It is 0 on average where both sets come from
the same source, so single values may lie below 0; unlike a Frechet distance it is unbiased at any
sample size.

The products x·y are float32 on rows whose common mean c was taken off, and x·c, y·c, c·c are
float64, as is everything after: features lie far from the origin beside their spread, and what
float32 loses on the small remainder averages out (1e-9 of the kernel's mean at 660 rows).

Every value here is one pass over the kernel matrix in blocks that are never kept: the U-statistic
of subset s is sᵀ K s with s its indicator vector, so all subsets together cost one matrix product
more, and the kernel of two rows is computed once however many subsets hold them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastmrigan.errors import UsageError
from fastmrigan.metrics.checks import check_whole
from fastmrigan.metrics.feature_rows import checked_pair

BLOCK = 256  # rows and columns of the kernel matrix at a time, 0.5 MB

Features = npt.NDArray[np.floating[Any]]


def kid(a: Features, b: Features) -> float:
    """KID of feature sets a [N1, d] and b [N2, d], over all their rows; 0 is best.

    Floats on the CPU, all finite, N1 and N2 >= 2. Raises UsageError for anything else.
    """
    a, b = _checked("kid", a, b)
    return float(u_statistics(a, b, *(np.ones((1, len(x)), bool) for x in (a, b)))[0])


def kid_subsets(
    a: Features, b: Features, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean and (population) standard deviation of KID over random subsets, as papers report it.

    Each of the `subsets` draws `size` rows of a [N1, d] and as many of b [N2, d], without
    repetition. Raises UsageError as `kid` does, and where a set has fewer than `size` rows.
    """
    a, b = _checked("kid_subsets", a, b)
    for name, value, least in (("subsets", subsets, 1), ("size", size, 2), ("seed", seed, 0)):
        check_whole(f"kid_subsets: {name}", value, least)
    if size > min(len(a), len(b)):
        raise UsageError(
            f"kid_subsets: {subsets} subsets of {size} rows from sets of {len(a)} and {len(b)}; "
            "take subsets of the smaller set at most, or kid(), which uses all rows"
        )
    draws = np.random.default_rng(seed)
    chosen = [np.zeros((subsets, len(x)), bool) for x in (a, b)]
    for subset in range(subsets):
        for rows in chosen:
            rows[subset, draws.choice(rows.shape[1], size, replace=False)] = True
    values = u_statistics(a, b, *chosen)
    return float(values.mean()), float(values.std())


def u_statistics(
    a: Features, b: Features, in_a: npt.NDArray[np.bool_], in_b: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """KID of each of m subsets, float64 [m].

    in_a: [m, N1], in_b: [m, N2]: which rows of a [N1, d] and b [N2, d] a subset holds, at least
    two of each.
    """
    middle = (a.mean(axis=0, dtype=np.float64) + b.mean(axis=0, dtype=np.float64)) / 2
    origin = middle.astype(np.float32)  # [d], so that a row about it is rounded once
    x, y = (Rows.of(rows, origin) for rows in (a, b))
    in_x, in_y = (torch.from_numpy(chosen).double() for chosen in (in_a, in_b))  # [m, N]
    m, n = in_x.sum(dim=1), in_y.sum(dim=1)  # [m], rows of each subset
    within = _within(x, in_x) / (m * (m - 1)) + _within(y, in_y) / (n * (n - 1))
    between = torch.zeros_like(m)
    for rows in _blocks(len(in_a[0])):
        for columns in _blocks(len(in_b[0])):
            block = _kernel(x, rows, y, columns)
            between += ((in_x[:, rows] @ block) * in_y[:, columns]).sum(dim=1)
    return (within - 2 * between / (m * n)).numpy()


class Rows(NamedTuple):
    """Features in two parts: x = u + c with the origin c, and x·y = u·v + u·c + v·c + c·c."""

    centred: Tensor  # [N, d] float32, u
    along: Tensor  # [N] float64, (u·c + c·c / 2) / d + 1 / 2: what a side brings to x·y / d + 1

    @classmethod
    def of(cls, features: Features, origin: npt.NDArray[np.float32]) -> Rows:
        u = (features - origin).astype(np.float32, copy=False)  # [N, d]
        c = origin.astype(np.float64)
        along = (np.einsum("nd,d->n", features, c, dtype=np.float64) - c @ c / 2) / len(c) + 0.5
        return cls(torch.from_numpy(u), torch.from_numpy(along))


def _within(x: Rows, chosen: Tensor) -> Tensor:
    """The kernel summed over ordered pairs of different rows of each subset: [m]."""
    total = torch.zeros(len(chosen), dtype=torch.float64)
    for rows in _blocks(chosen.shape[1]):
        for columns in _blocks(chosen.shape[1]):
            if columns.start < rows.start:
                continue  # the kernel is symmetric: the block on the other side counts twice
            block = _kernel(x, rows, x, columns)
            if rows == columns:
                block.fill_diagonal_(0)
            part = ((chosen[:, rows] @ block) * chosen[:, columns]).sum(dim=1)
            total += part if rows == columns else 2 * part
    return total


def _kernel(x: Rows, rows: slice, y: Rows, columns: slice) -> Tensor:
    """(x·y / d + 1)³ of every row with every column, float64."""
    products = x.centred[rows] @ y.centred[columns].T  # [rows, columns]
    base = x.along[rows, None] + y.along[columns]
    base.add_(products, alpha=1 / x.centred.shape[1])
    return (base * base).mul_(base)


def _blocks(count: int) -> list[slice]:
    return [slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]


def _checked(name: str, a: Any, b: Any) -> list[Features]:
    sets = {"first": a, "second": b}
    found = checked_pair(name, sets, 2, "pairs need")
    for side, x in zip(sets, found, strict=True):
        if float(np.abs(x).max()) > 1e15:  # float32 products would overflow
            raise UsageError(f"{name}: the {side} set has values above 1e15; scale both sets down")
    return found
