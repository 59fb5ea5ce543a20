"""The nearest real slice of a synthetic one, as it lies and wherever it was moved to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fastmrigan.errors import UsageError
from fastmrigan.imaging.likeness import FLAT, SHIFT, SHORTLIST
from fastmrigan.metrics.features import resize_area

COMPARE_SIZE = 32  # pixels a side at which slices are compared: layout counts, noise does not

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """For each query slice, the real slice most like it."""

    index: npt.NDArray[np.int64]  # [M], position among the real slices
    correlation: Float32  # [M], pixel correlation at 32x32, in [-1, 1]; 1 is a copy


@dataclass(frozen=True)
class Aligned:
    """For each query slice, the real slice most like it after mirroring and shifting."""

    index: Int64  # [M], position among the real slices
    correlation: Float32  # [M], pixel correlation where they overlap, in [-1, 1]
    mirrored: npt.NDArray[np.bool_]  # [M], whether left and right had to be exchanged
    moved: Int64  # [M, 2], pixels that the (mirrored) query lies below and right of the real slice


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


def nearest_aligned(queries: Float32, real: Float32, *, block: int = 128) -> Aligned:
    """The nearest real slice of each query by correlation, mirrored or not, shifted up to 3 pixels.

    queries: float32 [M, S, S]; real: float32 [N, S, S], N >= 1, S >= 16 and even; any range.
    Two steps: at half size, with shifts of at most one pixel, the 6 most alike are found; those
    are compared at full size with every shift; around the best pose half pixels are tried, as
    whole ones of a larger slice become. Only what overlaps is compared, so it does not matter what
    a shift brought in at the edge.
    """
    search = AlignedSearch(real)
    firsts = range(0, max(1, len(queries)), block)
    return joined([search(queries[first : first + block]) for first in firsts])


class AlignedSearch:
    """`nearest_aligned` among real slices [N, S, S], for queries that come in blocks."""

    def __init__(self, real: Float32) -> None:
        if len(real) == 0:
            raise UsageError("nearest_aligned: there are no real slices to search")
        slices = torch.from_numpy(np.ascontiguousarray(real))  # [N, S, S]
        self.coarse = _window(_half(slices), SHIFT // 2, 0, 0)  # [N, (S / 2 - 2)²]
        self.fine = _window(slices, SHIFT, 0, 0)  # [N, (S - 6)²]
        self.shifts = torch.tensor(_shifts(SHIFT))  # [49, 2]

    def __call__(self, queries: Float32) -> Aligned:
        rows = torch.from_numpy(np.ascontiguousarray(queries))  # [B, S, S]
        both = torch.stack([rows, rows.flip(-1)], dim=1)  # [B, 2, S, S]
        likely = self._shortlist(both)  # [B, K]
        scores = self._scores(both, likely)  # [B, 49, K, 2]
        score, place = scores.flatten(1).max(dim=1)  # [B], of 49 * K * 2
        index = likely.gather(1, (place // 2 % likely.shape[1])[:, None])[:, 0]  # [B]
        moved, mirrored = self.shifts[place // (2 * likely.shape[1])], place % 2  # [B, 2], [B]
        posed = both[torch.arange(len(both)), mirrored]  # [B, S, S]
        between = _half_pixels(posed, moved) @ self.fine[index][:, :, None]  # [B, 8, 1]
        score = torch.maximum(score, between.amax(dim=(1, 2))).clamp(-1, 1)
        return Aligned(index.numpy(), score.numpy(), mirrored.bool().numpy(), moved.numpy())

    def _shortlist(self, both: Tensor) -> Tensor:
        """The real slices that each of [B, 2, S, S] is like at half size: [B, K]."""
        small = _half(both.flatten(0, 1))  # [2B, S / 2, S / 2]
        best = torch.full((len(small), len(self.coarse)), -torch.inf)  # [2B, N]
        scores = torch.empty_like(best)
        for by in _shifts(SHIFT // 2):
            torch.mm(_window(small, SHIFT // 2, *by), self.coarse.T, out=scores)
            torch.maximum(best, scores, out=best)
        count = min(SHORTLIST, len(self.coarse))
        return best.view(len(both), 2, len(self.coarse)).amax(dim=1).topk(count).indices

    def _scores(self, both: Tensor, likely: Tensor) -> Tensor:
        """The correlations of [B, 2, S, S] in every pose with real slices [B, K]: [B, 49, K, 2].

        The real rows have mean 0, so a window needs no mean taken off: its length alone is divided
        out, and that comes from sums over the window.
        """
        side = both.shape[-1] - 2 * SHIFT
        queries = both - both.mean(dim=(2, 3), keepdim=True)  # [B, 2, S, S], for the last digits
        products = torch.empty(*likely.shape, 2 * len(self.shifts))  # [B, K, 98]
        for query, real, out in zip(queries, self.fine[likely], products, strict=True):
            windows = query.unfold(1, side, 1).unfold(2, side, 1)  # [2, 7, 7, S - 6, S - 6]
            torch.mm(real, windows.reshape(len(out[0]), -1).T, out=out)
        lengths = _window_lengths(queries, side)  # [B, 2, 7, 7]
        scale = torch.where(lengths > FLAT, 1 / lengths.clamp_min(FLAT), 0.0).float()
        poses = products * scale.flatten(1)[:, None]  # [B, K, 98]
        return poses.view(*likely.shape, 2, len(self.shifts)).permute(0, 3, 1, 2)


def joined(parts: list[Aligned]) -> Aligned:
    """What was found for one block of queries after the other."""
    return Aligned(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("index", "correlation", "mirrored", "moved")
        )
    )


def _window_lengths(x: Tensor, side: int) -> Tensor:
    """Of each window [side, side] of [..., S, S], less its mean: float64 [..., S - side + 1, …]."""
    wide = x.double()
    sums = [
        F.pad(each, (1, 0, 1, 0)).cumsum(-1).cumsum(-2)  # [..., S + 1, S + 1]
        for each in (wide, wide.square())
    ]
    total, squares = (
        y[..., side:, side:]
        - y[..., side:, :-side]
        - y[..., :-side, side:]
        + y[..., :-side, :-side]
        for y in sums
    )
    return (squares - total.square() / side**2).clamp_min(0).sqrt()


def _shifts(reach: int) -> list[tuple[int, int]]:
    return [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]


def _half(x: Tensor) -> Tensor:
    return resize_area(x.unsqueeze(1), x.shape[-1] // 2)[:, 0]  # [N, S / 2, S / 2]


def _window(x: Tensor, margin: int, down: int, right: int) -> Tensor:
    """What is left of [N, S, S] without a margin, moved, as unit rows [N, (S - 2 margin)²]."""
    side = x.shape[-1] - 2 * margin
    top, left = margin + down, margin + right
    return unit_rows(x[:, top : top + side, left : left + side].flatten(1))


def _half_pixels(x: Tensor, moved: Tensor) -> Tensor:
    """Windows of [B, S, S] half a pixel around `moved` [B, 2]: unit rows [B, 8, (S - 2 margin)²].

    Halfway a pixel is the mean of its two or four neighbours; beyond the edge it is repeated.
    """
    size = x.shape[-1]
    place = torch.arange(SHIFT - 1, size - SHIFT + 1)  # one more than the window on every side
    down = (place + moved[:, :1]).clamp(0, size - 1)  # [B, S - 2 margin + 2]
    right = (place + moved[:, 1:]).clamp(0, size - 1)
    wide = x[torch.arange(len(x))[:, None, None], down[:, :, None], right[:, None, :]]
    rows = {-1: (wide[:, :-2] + wide[:, 1:-1]) / 2, 0: wide[:, 1:-1]}
    rows[1] = (wide[:, 1:-1] + wide[:, 2:]) / 2
    windows = []
    for by, each in rows.items():  # each [B, S - 2 margin, S - 2 margin + 2]
        windows += [
            (each[:, :, :-2] + each[:, :, 1:-1]) / 2,
            (each[:, :, 1:-1] + each[:, :, 2:]) / 2,
        ]
        if by != 0:
            windows.append(each[:, :, 1:-1])
    return torch.stack([unit_rows(window.flatten(1)) for window in windows], dim=1)


def unit_rows(rows: Tensor) -> Tensor:
    """Rows [N, d] of mean 0 and length 1, so that a dot product is a correlation.

    A constant row has no direction: it stays zero and correlates 0 with everything.
    """
    rows = rows - rows.mean(dim=1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)  # [N, 1]
    return rows * torch.where(length > FLAT, 1 / length.clamp_min(FLAT), 0.0)


def _standardised(slices: Float32) -> Float32:
    """Slices at 32x32 as unit rows [N, 1024]."""
    x = torch.from_numpy(np.ascontiguousarray(slices, np.float32)).unsqueeze(1)  # [N, 1, H, W]
    return unit_rows(resize_area(x, COMPARE_SIZE).flatten(1)).numpy()
