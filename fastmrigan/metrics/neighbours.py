"""The nearest real slice of a synthetic one: a first look at whether a generator copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fastmrigan.errors import UsageError
from fastmrigan.metrics.features import resize_area

COMPARE_SIZE = 32  # pixels a side at which slices are compared: layout counts, noise does not

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """For each query slice, the real slice most like it."""

    index: npt.NDArray[np.int64]  # [M], position among the real slices
    correlation: Float32  # [M], pixel correlation at 32x32, in [-1, 1]; 1 is a copy


def nearest_real(queries: Float32, real: Float32, *, block: int = 1024) -> Neighbours:
    """The nearest real slice of each query by pixel correlation at 32x32.

    queries: float32 [M, H, W]; real: float32 [N, H', W'], N >= 1; both in [-1, 1].
    Works in blocks of `block` queries against `block` real slices, never [M, N] at once.
    """
    if len(real) == 0:
        raise UsageError("nearest_real: there are no real slices to search")
    best = np.full(len(queries), -np.inf, np.float32)
    index = np.zeros(len(queries), np.int64)
    for q in range(0, len(queries), block):
        query_rows = _standardised(queries[q : q + block])  # [<=block, 1024]
        for r in range(0, len(real), block):
            scores = query_rows @ _standardised(real[r : r + block]).T  # [<=block, <=block]
            nearest = scores.argmax(axis=1)
            score = np.take_along_axis(scores, nearest[:, None], axis=1)[:, 0]
            better = score > best[q : q + block]
            best[q : q + block][better] = score[better]
            index[q : q + block][better] = r + nearest[better]
    return Neighbours(index, best.clip(-1, 1))


def _standardised(slices: Float32) -> Float32:
    """Rows of mean 0 and length 1, so that a dot product is a correlation: [N, 1024].

    A constant slice has no direction: its row stays zero and correlates 0 with everything.
    """
    x = torch.from_numpy(np.ascontiguousarray(slices, np.float32)).unsqueeze(1)  # [N, 1, H, W]
    rows = resize_area(x, COMPARE_SIZE).flatten(1)  # [N, 1024]
    rows = rows - rows.mean(dim=1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-4, rows / length.clamp_min(1e-4), 0.0).numpy()
