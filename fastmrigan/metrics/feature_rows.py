"""Rows of features as they come from outside: what they must be, and how they are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.metrics.checks import array_or_tensor

Rows = npt.NDArray[np.floating[Any]]


def checked_rows(features: Any, what: str) -> Any:
    """The rows as float32 or float64: a NumPy array, or a tensor where they are on a CUDA device.

    Raises UsageError, which begins with `what`, where they are no finite floats [N, d].
    """
    features = array_or_tensor(features, f"{what}: expected floats [N, d]")
    on_host = isinstance(features, np.ndarray)
    floating = features.dtype.kind == "f" if on_host else features.is_floating_point()
    shape = tuple(features.shape)
    if not floating or len(shape) != 2 or shape[1] == 0:
        raise UsageError(f"{what}: expected floats [N, d], got {features.dtype} {list(shape)}")
    if on_host:
        if features.dtype not in (np.float32, np.float64):
            wide = np.float32 if features.itemsize < 4 else np.float64
            features = features.astype(wide)
        _refuse_infinite(features, what)
    else:
        features = features.float() if features.itemsize < 4 else features
        if not bool(features.isfinite().all()):
            row = int(features.isfinite().all(dim=1).int().argmin())
            raise UsageError(f"{what}: NaN or infinity in row {row}")
    return features


def checked_pair(name: str, sets: Mapping[str, Any], fewest: int, why: str) -> list[Rows]:
    """Two sets of rows on the CPU, by what they are called, of one number of features.

    name: of the measure, which every message begins with; `fewest` rows of each, and `why`.
    """
    found: list[Rows] = []
    for side, features in sets.items():
        what = f"{name}: the {side} set"
        rows = checked_rows(features, what)
        if not isinstance(rows, np.ndarray):
            raise UsageError(f"{what}: expected rows on the CPU, got {rows.device}; move them")
        if len(rows) < fewest:
            raise UsageError(f"{what} has {len(rows)} rows, {why} at least {fewest}")
        found.append(rows)
    first, second = (rows.shape[1] for rows in found)
    if first != second:
        raise UsageError(
            f"{name}: the sets must have the same number of features, got {first} and {second}"
        )
    return found


def _refuse_infinite(features: Rows, what: str) -> None:
    with np.errstate(all="ignore"):
        if np.isfinite(features.sum()):  # several times quicker than to look at every number
            return
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():  # else it was the sum that went over
        raise UsageError(f"{what}: NaN or infinity in row {int(np.argmin(finite))}")
