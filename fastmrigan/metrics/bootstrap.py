"""Confidence intervals: the bootstrap for means, the jackknife for distances between sets.

Two tools, because one does not serve both. A bootstrap sample holds some rows twice and leaves a
third out, which is harmless to a mean, but a Frechet distance, KID's diagonal and every k-nearest
neighbour radius react to rows held twice: their bootstrap distribution lies beside the value
instead of around it (of a Frechet distance above it, often as a whole). The delete-a-group
jackknife leaves rows out and repeats none.

Slices of one head are not independent. Where `groups` say which rows belong together, whole
groups are drawn or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.metrics.checks import check_groups, described
from fastmrigan.metrics.frechet import frechet_distance

BLOCKS = 40  # groups of the jackknife: its error is itself known to about 1 / sqrt(2 * 40) = 11 %

Rows = npt.NDArray[Any]
Groups = npt.NDArray[Any] | None
Statistic = Callable[..., float]
Unit = npt.NDArray[np.int64]  # rows that are drawn, or left out, together


def interval(
    statistic: Statistic,
    *rows: Rows,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
    method: Literal["percentile", "bca"] = "percentile",
    groups: Sequence[Groups] | None = None,
) -> tuple[float, float]:
    """A bootstrap interval (low, high) of statistic(*rows), for means and what is smooth in them.

    rows: one or more arrays [N_i, ...], each drawn with replacement on its own; put what belongs
    together (pairs) into the columns of one array. groups: for each of `rows` either None or an
    array [N_i] of group names. "percentile" takes quantiles of the draws; "bca" (Efron 1987,
    J. Am. Stat. Assoc. 82, 171) corrects them for bias and skewness, at one call of the statistic
    a row more. Not for Frechet distances and their kind: `jackknife`.
    Raises UsageError for an empty array, or options out of range.
    """
    units = _units(rows, groups)
    _check_level("interval", level)
    if draws < 2:
        raise UsageError(f"interval: expected at least 2 draws, got {draws}")
    stream = np.random.default_rng(seed)
    drawn = np.array(
        [
            statistic(*(x[_draw(of, stream)] for x, of in zip(rows, units, strict=True)))
            for _ in range(draws)
        ]
    )  # [draws]
    tail = (1 - level) / 2
    ends = (tail, 1 - tail)
    if method == "bca":
        ends = _bca_ends(statistic, rows, units, drawn, ends)
    elif method != "percentile":
        raise UsageError(f"interval: method is {method!r}, expected 'percentile' or 'bca'")
    low, high = np.quantile(drawn, ends)
    return float(low), float(high)


def interval_of_mean(
    values: Rows, *, seed: int = 0, groups: Groups = None
) -> tuple[float, float] | None:
    """`interval` of the mean of values [N], over `groups` [N] where they are known: None where all
    are of one group, for every draw would be that group."""
    if groups is not None and len(np.unique(groups)) < 2:
        return None
    return interval(np.mean, values, seed=seed, groups=[groups])


@dataclass(frozen=True)
class Jackknife:
    """What leaving out a group at a time says about a statistic of sets."""

    value: float  # the statistic of all rows
    error: float  # its standard error, >= 0
    bias: float  # how far the value lies above that of endless rows, as far as bias falls as 1 / N
    blocks: int  # how many groups were left out in turn

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where the mean of values from other samples of the same sizes lies."""
        return self._around(self.value, level)

    def unbiased_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where the statistic of endless rows lies, around value - bias."""
        return self._around(self.value - self.bias, level)

    def _around(self, centre: float, level: float) -> tuple[float, float]:
        _check_level("jackknife", level)
        reach = _student(0.5 + level / 2, self.blocks - 1) * self.error
        return centre - reach, centre + reach


def jackknife(
    statistic: Statistic,
    *rows: Rows,
    blocks: int = BLOCKS,
    seed: int = 0,
    groups: Sequence[Groups] | None = None,
) -> Jackknife:
    """The delete-a-group jackknife (Kott 2001, J. Official Stat. 17, 521) of statistic(*rows).

    Every array is dealt at random into `blocks` blocks (whole groups into one block, where
    `groups` names them as for `interval`); the k-th value leaves out the k-th block of each array,
    so that their errors add. blocks + 1 calls of the statistic. With fewer rows or groups than
    blocks there are only as many blocks. Raises UsageError for an empty array, or where fewer than
    two blocks are left.
    """
    units = _units(rows, groups)
    blocks = min(blocks, *(len(of) for of in units))
    if blocks < 2:
        raise UsageError(
            "jackknife: needs at least 2 blocks, and rows or groups for them in every set, "
            f"got {blocks}"
        )
    stream = np.random.default_rng(seed)
    block_of = [_deal(of, blocks, stream) for of in units]  # arrays [N_i]
    value = statistic(*rows)
    without = np.array(
        [
            statistic(*(x[block != k] for x, block in zip(rows, block_of, strict=True)))
            for k in range(blocks)
        ]
    )  # [blocks]
    mean = without.mean()
    error = float(np.sqrt((blocks - 1) / blocks * np.square(without - mean).sum()))
    return Jackknife(float(value), error, float((blocks - 1) * (mean - value)), blocks)


def frechet_interval(
    a: Rows,
    b: Rows,
    *,
    level: float = 0.95,
    seed: int = 0,
    groups: Sequence[Groups] | None = None,
) -> tuple[float, float]:
    """The interval (low, high) of the Frechet distance between features a [N1, d] and b [N2, d].

    Of the distance at these sample sizes: it lies around the value, which is itself too high for
    small samples. Where N < d it is up to twice as wide as it need be. What the distance would be
    with endless rows: `jackknife(frechet_distance, a, b).unbiased_interval()`, for N of at least
    twice d; where N < d that correction is far from enough, and nothing but more slices helps.
    Raises UsageError as `frechet_distance` does.
    """
    low, high = jackknife(frechet_distance, a, b, seed=seed, groups=groups).interval(level)
    return max(0.0, low), high


def wilson(successes: float, count: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion (1927, J. Am. Stat. Assoc. 22, 209), within [0, 1]."""
    _check_level("wilson", level)
    if not 0 <= successes <= count or count <= 0:
        raise UsageError(f"wilson: expected 0 <= successes <= count, got {successes} of {count}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / count
    centre = share + z * z / (2 * count)
    reach = z * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    scale = 1 + z * z / count
    # At both ends the formula gives the end itself, but for rounding.
    low = 0.0 if successes == 0 else (centre - reach) / scale
    high = 1.0 if successes == count else (centre + reach) / scale
    return max(0.0, low), min(1.0, high)


def _units(rows: Sequence[Rows], groups: Sequence[Groups] | None) -> list[list[Unit]]:
    """For each array its units: single rows, or the rows of each group."""
    for x in rows:
        if not isinstance(x, np.ndarray) or x.ndim == 0:
            raise UsageError(f"interval: expected arrays with rows, got {described(x)}")
    if not rows or any(len(x) == 0 for x in rows):
        raise UsageError(f"interval: expected arrays with rows, got {[len(x) for x in rows]} rows")
    if groups is None:
        groups = [None] * len(rows)
    if len(groups) != len(rows):
        raise UsageError(f"interval: {len(rows)} arrays, but groups for {len(groups)}")
    return [_units_of(x, of) for x, of in zip(rows, groups, strict=True)]


def _units_of(rows: Rows, groups: Groups) -> list[Unit]:
    if groups is None:
        return list(np.arange(len(rows))[:, None])
    check_groups("interval", groups, len(rows))
    _, group = np.unique(groups, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _draw(units: list[Unit], stream: np.random.Generator) -> Unit:
    return np.concatenate([units[i] for i in stream.integers(0, len(units), len(units))])


def _deal(units: list[Unit], blocks: int, stream: np.random.Generator) -> Unit:
    """The block, 0 to blocks - 1, of every row; blocks hold equally many units, or one more."""
    block_of = np.empty(sum(len(unit) for unit in units), np.int64)
    for place, unit in enumerate(stream.permutation(len(units))):
        block_of[units[unit]] = place % blocks
    return block_of


def _bca_ends(
    statistic: Statistic,
    rows: Sequence[Rows],
    units: list[list[Unit]],
    drawn: npt.NDArray[np.float64],
    ends: tuple[float, float],
) -> tuple[float, float]:
    """The quantiles that take the place of `ends` (Efron 1987, equations 2.3 and 4.4)."""
    normal = NormalDist()
    value = statistic(*rows)
    below = (np.mean(drawn < value) + np.mean(drawn <= value)) / 2
    if not 0 < below < 1:
        raise UsageError(
            "interval: every draw lies on one side of the value, so BCa has no quantile to take; "
            "take the jackknife"
        )
    bias = normal.inv_cdf(float(below))
    cubes = squares = 0.0
    for place, of in enumerate(units):
        influence = []
        for unit in of:
            left = [np.delete(x, unit, axis=0) if i == place else x for i, x in enumerate(rows)]
            influence.append(statistic(*left))
        u = (np.mean(influence) - np.array(influence)) * (len(of) - 1) / len(of)
        cubes += float((u**3).sum())
        squares += float((u**2).sum())
    skew = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    moved = []
    for end in ends:
        z = bias + normal.inv_cdf(end)
        moved.append(normal.cdf(bias + z / (1 - skew * z)))
    return moved[0], moved[1]


def _student(share: float, freedom: int) -> float:
    """The quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def _check_level(name: str, level: float) -> None:
    if not 0 < level < 1:
        raise UsageError(f"{name}: level is {level}, expected above 0 and below 1")
