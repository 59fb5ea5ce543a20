"""The training slice that a synthetic one is most like: a slice at a time, with NumPy alone.

The search of `metrics.memorisation` by pixels, over again: there torch compares many slices at
once; here no torch may be, and what is found of a slice must not depend on which others are looked
at with it. The tests hold the two to the same scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from fastmrigan.imaging.likeness import (
    COARSE,
    FINE,
    FLAT,
    GRADED,
    SHIFT,
    SHORTLIST,
    blur,
    common_grading,
    compared_side,
    regraded,
)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
HALVES = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]


class CopySearch:
    """Searches `count` training slices, of which `slice_of(i)` is float32 [H, W] in [-1, 1].

    count >= 1, H and W >= 16. Of each 17 KB stay in memory; `watched` is called once it is read.
    """

    def __init__(
        self,
        count: int,
        slice_of: Callable[[int], Float32],
        watched: Callable[[], None] = lambda: None,
    ) -> None:
        some = np.stack([slice_of(i) for i in range(0, count, -(-count // GRADED))])  # [<=256, …]
        self._grading = common_grading(some)
        side = compared_side(some)  # S
        self._blurs = [
            [blur(side, sigma) @ _area(length, side) for length in some.shape[1:]]
            for sigma in (FINE, COARSE)
        ]  # of rows [S, H] and of columns [S, W]; in double, so that BLAS's threads do not show
        self._coarse = np.empty((count, (side // 2 - 2 * (SHIFT // 2)) ** 2), np.float32)
        self._fine = np.empty((count, (side - 2 * SHIFT) ** 2), np.float32)
        for i in range(count):
            detail = self._detail(slice_of(i))
            self._coarse[i] = _middle(_half(detail), SHIFT // 2)
            self._fine[i] = _middle(detail, SHIFT)
            watched()

    def __call__(self, x: Float32) -> tuple[int, float]:
        """The training slice that x, [H, W] in [-1, 1], is most like, and how much: 1 is a copy.

        The score is the correlation of the two slices' detail where x fits best, mirrored or not
        and moved by up to 3 pixels of 64x64, whatever the grading.
        """
        detail = self._detail(x)
        both = np.stack([detail, detail[:, ::-1]])  # [2, S, S]
        alike = (_windows(_half(both), SHIFT // 2) @ self._coarse.T).max(axis=0)  # [T]
        few = min(SHORTLIST, len(alike))
        likely = np.argpartition(-alike, few - 1)[:few]  # [K]
        windows = _windows(both, SHIFT)  # [98, (S - 6)²]
        pose, best = divmod(int((windows @ self._fine[likely].T).argmax()), few)
        reach = 2 * SHIFT + 1
        mirrored, down, right = np.unravel_index(pose, (2, reach, reach))
        nearest = int(likely[best])
        moved = (int(down) - SHIFT, int(right) - SHIFT)
        poses = [windows[pose : pose + 1], _half_pixels(both[mirrored], *moved)]
        # Not by BLAS, whose last bits depend on its threads: the score is held against a limit.
        scores = (np.concatenate(poses) * self._fine[nearest]).sum(axis=1, dtype=np.float64)  # [9]
        return nearest, min(1.0, float(scores.max()))

    def _detail(self, x: Float32) -> Float32:
        """[S, S], S at most 64: without noise, and without what all heads share."""
        y = regraded(x[None], self._grading)[0]  # [H, W]
        fine, coarse = (rows @ y @ columns.T for rows, columns in self._blurs)
        return np.asarray(fine - coarse, np.float32)


def _area(length: int, side: int) -> Float64:
    """The matrix [side, length] that makes each pixel the mean of what it covers."""
    matrix = np.zeros((side, length))
    for i in range(side):
        first, end = i * length // side, -(-(i + 1) * length // side)
        matrix[i, first:end] = 1 / (end - first)
    return matrix


def _half(x: Float32) -> Float32:
    """[..., S, S] to [..., S / 2, S / 2]."""
    side = x.shape[-1] // 2
    halved: Float32 = x.reshape(*x.shape[:-2], side, 2, side, 2).mean(axis=(-3, -1))
    return halved


def _middle(x: Float32, margin: int) -> Float32:
    """[S, S] without a margin, as a unit row [(S - 2 margin)²]."""
    (row,) = _unit_rows(x[margin:-margin, margin:-margin].reshape(1, -1))
    return np.asarray(row)


def _windows(x: Float32, margin: int) -> Float32:
    """Of [B, S, S] every window of S - 2 margin: unit rows [B (2 margin + 1)², (S - 2 margin)²]."""
    side = x.shape[-1] - 2 * margin
    return _unit_rows(sliding_window_view(x, (side, side), axis=(1, 2)).reshape(-1, side * side))


def _half_pixels(x: Float32, down: int, right: int) -> Float32:
    """Windows of [S, S] half a pixel around a move: unit rows [8, (S - 2 SHIFT)²].

    Halfway a pixel is the mean of its two or four neighbours; beyond the edge it is repeated.
    """
    size = len(x)
    place = np.arange(SHIFT - 1, size - SHIFT + 1)  # one more than the window on every side
    rows, columns = ((place + by).clip(0, size - 1) for by in (down, right))
    wide = x[rows[:, None], columns]  # [S - 2 SHIFT + 2, S - 2 SHIFT + 2]
    side = size - 2 * SHIFT
    windows = []
    for by in HALVES:
        whole = wide[1 : 1 + side, 1 : 1 + side]
        ends = [slice(1 + step, 1 + step + side) for step in by]
        corners = [whole, wide[ends[0], 1 : 1 + side], wide[1 : 1 + side, ends[1]]]
        windows.append((sum(corners) + wide[ends[0], ends[1]]) / 4)
    return _unit_rows(np.stack(windows).reshape(len(HALVES), -1))


def _unit_rows(rows: Float32) -> Float32:
    """Rows [N, d] of mean 0 and length 1; a constant one stays 0 and is like nothing."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]  # [N, 1]
    scale = np.where(length > FLAT, 1 / np.maximum(length, FLAT), 0)
    return np.asarray(rows * scale, np.float32)
