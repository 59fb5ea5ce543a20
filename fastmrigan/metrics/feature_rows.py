"""Rows of features as they come from outside: what they must be, and how they are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError


def checked_rows(features: Any, what: str) -> Any:
    """The rows as float32 or float64: a NumPy array, or a tensor where they are on a CUDA device.

    Raises UsageError, which begins with `what`, where they are no finite floats [N, d].
    """
    if isinstance(features, np.ndarray):
        floating = features.dtype.kind == "f"
    elif hasattr(features, "is_floating_point") and hasattr(features, "detach"):
        features, floating = features.detach(), features.is_floating_point()
        if features.device.type == "cpu" and floating:
            features = (features.float() if features.itemsize < 4 else features).numpy()
    else:
        raise UsageError(
            f"{what}: expected floats [N, d], an array or a tensor, got {type(features).__name__}"
        )
    shape = tuple(features.shape)
    if not floating or len(shape) != 2 or shape[1] == 0:
        raise UsageError(f"{what}: expected floats [N, d], got {features.dtype} {list(shape)}")
    if isinstance(features, np.ndarray):
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


def _refuse_infinite(features: npt.NDArray[np.floating[Any]], what: str) -> None:
    with np.errstate(all="ignore"):
        if np.isfinite(features.sum()):  # several times quicker than to look at every number
            return
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():  # else it was the sum that went over
        raise UsageError(f"{what}: NaN or infinity in row {int(np.argmin(finite))}")
