"""Sets of features whose squares float64 does not hold: brought to about one, measured, and back.

A distance does not change where both sets are moved alike, and is s² times as large where they are
scaled by s. Scaling by a power of two is exact; moving costs what any mean costs, half a unit in
the last place of a feature.
"""

from __future__ import annotations

import math
from dataclasses import replace
from sys import float_info
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.metrics.feature_set import FeatureSet
from fastmrigan.metrics.moments import Moments

if TYPE_CHECKING:
    from fastmrigan.metrics.frechet import Frechet

Array = npt.NDArray[np.float64]

# Of the traces and the squared gap together. Their squares, which the algorithms take, must not
# overflow, and a millionth of a millionth of them must not underflow.
SMALLEST, LARGEST = 1e-100, 1e100


def in_range(size: float) -> bool:
    """Whether sets of that size can be measured as they are; False for NaN."""
    return SMALLEST < size < LARGEST


def near_one(first: FeatureSet, second: FeatureSet) -> tuple[FeatureSet, FeatureSet, int] | None:
    """Both sets on the CPU, moved and divided by 2 to the third, so that they are of order one.

    None where all rows of both are one and the same, so that there is nothing to measure.
    """
    sets = (first, second)
    points = [_points(one) for one in sets]  # [N, d], or the mean [1, d] of moments
    spreads = [_spread(one) for one in sets]  # of moments, beside their mean
    before = _exponent(points, spreads)
    points = [np.ldexp(x, -before) for x in points]
    spreads = [math.ldexp(x, -before) for x in spreads]
    origin = points[0][0].copy()
    points = [x - origin for x in points]
    if not any(spreads) and not any(x.any() for x in points):
        return None
    after = _exponent(points, spreads)
    exponent = before + after
    found = []
    for name, one, x in zip(("first", "second"), sets, points, strict=True):
        rows: Any = np.ldexp(x, -after)
        if one.features is None:
            covariance = np.ldexp(one.moments.covariance, -2 * exponent)
            rows = Moments.of_statistics(rows[0], covariance, one.count)
        found.append(FeatureSet(name, rows))
    return found[0], found[1], exponent


def scaled_back(near: Frechet, exponent: int) -> Frechet:
    """What `near` is for features 2^exponent times as large. UsageError beyond float64."""
    by = 2 * exponent
    try:
        distance, mean_part, covariance_part, error_bound = (
            math.ldexp(x, by)
            for x in (near.distance, near.mean_part, near.covariance_part, near.error_bound)
        )
    except OverflowError:
        raise UsageError(
            f"frechet: the distance overflows float64 ({near.distance:.3g} times 2^{by}); scale "
            "both sets down"
        ) from None
    if near.distance > 0 and distance < float_info.min:
        raise UsageError(
            f"frechet: the distance underflows float64 ({near.distance:.3g} times 2^{by}); scale "
            "both sets up"
        )
    return replace(
        near,
        distance=distance,
        mean_part=mean_part,
        covariance_part=covariance_part,
        error_bound=error_bound,
        method=f"{near.method}, of features divided by 2^{exponent}, on the CPU",
    )


def _points(one: FeatureSet) -> Array:
    if one.features is None:
        return one.moments.mean[None]
    rows = one.features
    rows = rows if isinstance(rows, np.ndarray) else rows.cpu().numpy()
    return rows.astype(np.float64)


def _spread(one: FeatureSet) -> float:
    """The largest standard deviation, of moments alone."""
    if one.features is not None:
        return 0.0
    return math.sqrt(float(one.moments.covariance.diagonal().max()))


def _exponent(points: list[Array], spreads: list[float]) -> int:
    """The power of two just above all of them."""
    return math.frexp(max(*(float(np.abs(x).max()) for x in points), *spreads))[1]
