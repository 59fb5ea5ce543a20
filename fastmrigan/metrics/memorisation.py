"""Copies of training slices among synthetic ones.

A generator that learned slices by heart hands them out again, and with them the people in them.
A copy is looked for as a pirate would hide it: mirrored, shifted by a few pixels, re-graded (gain,
offset, gamma: any change of grey values that keeps their order).

What decides is what held-out slices show (the distance ratio of Meehan et al. 2020,
arXiv:2004.05675, slice by slice): they were never trained on, so however like a training slice
one of them is, it is so without copying. A synthetic slice that is far more like a training slice
than held-out ones are is flagged.

What is flagged need not be a copy pixel by pixel. In two T2 volumes of 1 mm, all slices 1 or 2 mm
from a training slice of the same head were flagged, none from 6 mm on: a slice between two training
slices shows the same person too.
What is not flagged is not proven to be new: parts of slices, strong changes of shape and anything
blurred beyond recognition escape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastmrigan.errors import UsageError
from fastmrigan.imaging.likeness import (
    COARSE,
    FEWEST_HELD_OUT,
    FINE,
    blur,
    common_grading,
    compared_side,
    copy_threshold,
    regraded,
)
from fastmrigan.metrics.checks import check_slices
from fastmrigan.metrics.features import resize_area
from fastmrigan.metrics.neighbours import Aligned, AlignedSearch, joined, unit_rows
from fastmrigan.progress import Progress

BLOCK = 256  # slices re-graded at once

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Features = Callable[[Float32], Float32]


@dataclass(frozen=True)
class Copies:
    """The nearest training slice of each synthetic one, and whether it is a copy of it."""

    nearest: npt.NDArray[np.int64]  # [N], position among the training slices
    score: Float32  # [N], how alike the two are, in [-1, 1]; 1 is a perfect copy
    ratio: Float32  # [N], distance to it over the median distance of held-out slices; 0 is a copy
    flagged: Bool  # [N], score above the threshold: a copy
    threshold: float  # of the score
    mirrored: Bool  # [N], whether left and right had to be exchanged
    held_out_score: Float32  # [M], the score of each held-out slice
    poses: tuple[Aligned, Aligned]  # how held-out and synthetic slices lie, found by pixels

    @property
    def share(self) -> float:
        """The share of synthetic slices that are copies."""
        return float(self.flagged.mean()) if len(self.flagged) else 0.0


def find_copies(
    made: Float32,
    train: Float32,
    held_out: Float32,
    *,
    features: Features | None = None,
    pixels: Copies | None = None,
    shown: bool = True,
) -> Copies:
    """Searches the training slice that each synthetic slice is most like.

    made: float32 [N, H, W]; train: [T, H, W], T >= 1; held_out: [M, H, W], M >= 20, real slices
    of heads that are not in `train`; all in [-1, 1], H and W >= 16.
    In pixel space (`features` None) the score is the best correlation over mirroring and shifts of
    up to 3 pixels of 64x64, of the detail of slices brought to one grading. With `features`, a
    function from slices [K, H, W] to rows [K, d], it is the best correlation of standardised
    features of the re-graded slices, each laid as the pixel search found it to fit best.
    That is the weaker test: with random features 1 or 2 in 100 slices that are no copies were
    flagged on phantoms, and noisy copies missed; pixels decide, features are a second opinion.
    pixels: what the search by pixels found for the same slices, so that it is not done again.
    The threshold lies 3 robust standard deviations above the median held-out score (in Fisher's
    z). Held-out slices of a head that is also in `train` raise it and hide copies.
    `shown` false keeps its progress to itself. Raises UsageError for other shapes, or too few
    slices.
    """
    for name, slices, fewest in (
        ("training", train, 1),
        ("synthetic", made, 0),
        ("held-out", held_out, FEWEST_HELD_OUT),
    ):
        _check(name, slices, fewest, train)
    grading = common_grading(train)
    poses = (
        _by_pixels(train, (held_out, made), grading, shown=shown)
        if pixels is None
        else pixels.poses
    )
    usual_ones, found = poses
    if features is not None:
        usual_ones, found = _by_features(
            train, (held_out, made), poses, grading, features, shown=shown
        )
    reference = usual_ones.correlation
    threshold = copy_threshold(reference)
    usual = float(np.median(_distance(reference)))
    return Copies(
        nearest=found.index,
        score=found.correlation,
        ratio=_distance(found.correlation) / np.float32(max(usual, 1e-6)),
        flagged=found.correlation > threshold,
        threshold=threshold,
        mirrored=found.mirrored,
        held_out_score=reference,
        poses=poses,
    )


def _by_pixels(
    train: Float32, sides: tuple[Float32, Float32], grading: Float32, *, shown: bool
) -> tuple[Aligned, Aligned]:
    """The nearest training slice of each slice of both sides, and how it lies."""

    def prepared(part: Float32) -> Float32:
        return _detail(regraded(part, grading))  # [<= BLOCK, S, S]

    search = AlignedSearch(np.concatenate([prepared(part) for part in _blocks(train)]))
    with Progress("copies by pixels", sum(map(len, sides)), "slices", shown=shown) as progress:

        def nearest(part: Float32) -> Aligned:
            found = search(prepared(part))
            progress.advance(len(part))
            return found

        held_out, made = (joined([nearest(part) for part in _blocks(slices)]) for slices in sides)
    return held_out, made


def _by_features(
    train: Float32,
    sides: tuple[Float32, Float32],
    poses: tuple[Aligned, Aligned],
    grading: Float32,
    features: Features,
    *,
    shown: bool,
) -> tuple[Aligned, Aligned]:
    """The training slice whose features each slice, laid as `poses` say, is most like."""
    count = len(train) + sum(map(len, sides))
    with Progress("copies by features", count, "slices", shown=shown) as progress:

        def seen(slices: Float32) -> Float32:
            rows = []
            for part in _blocks(slices):
                rows.append(features(regraded(part, grading)))  # [<= BLOCK, d]
                progress.advance(len(part))
            return np.concatenate(rows)

        ours = seen(train)  # [T, d]
        mean, spread = ours.mean(axis=0), ours.std(axis=0)  # [d]
        scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)

        def unit(rows: Float32) -> Tensor:
            return unit_rows(torch.from_numpy((rows - mean) * scale))  # [K, d]

        references = unit(ours)  # [T, d]

        def search(slices: Float32, pose: Aligned) -> Aligned:
            queries = unit(seen(_laid(slices, pose)))  # [K, d]
            best = [(part @ references.T).max(dim=1) for part in torch.split(queries, 1024)]
            score = torch.cat([x.values for x in best]).clamp(-1, 1).numpy()
            index = torch.cat([x.indices for x in best]).numpy()
            return Aligned(index, score, pose.mirrored, pose.moved)

        return search(sides[0], poses[0]), search(sides[1], poses[1])


def _laid(slices: Float32, pose: Aligned) -> Float32:
    """Slices [K, H, W] mirrored and moved as the search found them to fit; the edge is repeated."""
    _, height, width = slices.shape
    scale = np.array([height, width]) / compared_side(slices)
    laid = np.where(pose.mirrored[:, None, None], slices[:, :, ::-1], slices)
    for x, moved in zip(laid, np.rint(pose.moved * scale).astype(np.int64), strict=True):
        rows = (np.arange(height) + moved[0]).clip(0, height - 1)
        columns = (np.arange(width) + moved[1]).clip(0, width - 1)
        x[:] = x[rows][:, columns]
    return laid


def _blocks(slices: Float32) -> Iterator[Float32]:
    """At most BLOCK slices at a time, so that large slices are never held twice; at least one."""
    for first in range(0, max(1, len(slices)), BLOCK):
        yield slices[first : first + BLOCK]


def _detail(slices: Float32) -> Float32:
    """At most 64x64, without noise and without what all heads share: [N, S, S].

    The difference of two Gaussian blurs: the outline of the head and slow shading go with the
    wide one, single noisy pixels with the narrow one.
    """
    size = compared_side(slices)
    x = resize_area(torch.from_numpy(slices).unsqueeze(1), size)[:, 0]  # [N, S, S]
    fine, coarse = (torch.from_numpy(blur(size, sigma)) for sigma in (FINE, COARSE))  # [S, S]
    return (fine @ x @ fine.T - coarse @ x @ coarse.T).numpy()


def _distance(score: Float32) -> Float32:
    """Between unit rows of that correlation, 0 to 2."""
    return np.sqrt(np.maximum(2 - 2 * score, 0))


def _check(name: str, slices: Float32, fewest: int, train: Float32) -> None:
    check_slices(f"find_copies, {name} slices", slices, side=16)
    size = train.shape[1:]
    if slices.shape[1:] != size:
        raise UsageError(
            f"find_copies: the {name} slices are {slices.shape[1]}x{slices.shape[2]}, the training "
            f"slices {size[0]}x{size[1]}; prepare and generate both at the same size"
        )
    if len(slices) and not max(slices.max(), -slices.min()) <= 1 + 1e-3:  # NaN too
        raise UsageError(
            f"find_copies: the {name} slices have values outside [-1, 1], or NaN; grade them so"
        )
    if len(slices) < fewest:
        raise UsageError(
            f"find_copies: {len(slices)} {name} slices, at least {fewest} are needed"
            + ("; prepare with a larger --test-fraction" if name == "held-out" else "")
        )
