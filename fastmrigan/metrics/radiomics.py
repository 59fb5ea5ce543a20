"""Radiomic-style features of many slices; what they are, `imaging.radiomics` says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.radiomics import LEVELS, NAMES, SMALLEST, UNITS, radiomic_row
from fastmrigan.metrics.checks import check_slices
from fastmrigan.progress import Progress

__all__ = ["LEVELS", "NAMES", "UNITS", "radiomic_features"]

Float32 = npt.NDArray[np.float32]


def radiomic_features(
    slices: Float32, *, label: str = "radiomic features", shown: bool = True
) -> Float32:
    """Float32 [N, 30]: `radiomic_row` of each slice.

    slices: float32 [N, H, W] in [-1, 1], H and W >= 16. Raises UsageError for another shape or
    type.
    """
    check_slices("radiomic_features", slices, side=SMALLEST)
    rows = np.empty((len(slices), len(NAMES)), np.float32)
    with Progress(label, len(slices), "slices", shown=shown) as progress:
        for row, each in zip(rows, slices, strict=True):
            row[:] = radiomic_row(each)
            progress.advance()
    return rows
