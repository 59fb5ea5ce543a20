"""Which real slices the page shows beside synthetic ones, as the most like them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastmrigan.metrics.memorisation import Copies
from fastmrigan.metrics.neighbours import nearest_real
from fastmrigan.metrics.slice_sets import SliceSet

SHOWN = 8  # the most suspicious, and as many drawn at random

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Nearest:
    """Pairs of a synthetic slice and the real one most like it; entry i of each."""

    made: Index  # [K], among the synthetic slices
    real: Index  # [K], among the real slices
    mirrored: npt.NDArray[np.bool_]  # [K], whether the real one is to be mirrored
    captions: list[str]  # [K]
    suspects: int  # of the K, the first so many are the most suspicious
    text: str  # how they were found, and what to make of them


def of_copies(
    copies: Copies, made: SliceSet, searched: Index, real: SliceSet, seed: int
) -> Nearest:
    """The likeliest copies first, then slices drawn at random.

    searched [Q]: which synthetic slices `copies` is about; its training slices are `real.train`.
    """
    order = np.argsort(-copies.score, kind="stable")
    suspects = order[:SHOWN]
    rest = np.random.default_rng(seed).permutation(order[SHOWN:])[:SHOWN]
    chosen = np.concatenate([suspects, np.sort(rest)])
    train = np.flatnonzero(~real.held_out)
    captions = [
        f"no. {made.number(searched[i])}, score {copies.score[i]:.2f}"
        + (", mirrored" if copies.mirrored[i] else "")
        + (": a copy" if copies.flagged[i] else "")
        for i in chosen
    ]
    return Nearest(
        searched[chosen],
        train[copies.nearest[chosen]],
        copies.mirrored[chosen],
        captions,
        len(suspects),
        "Synthetic slices (left of each pair) with the training slice most like them (right), by "
        "the score of the copies above: the correlation of their detail, whatever the grading, "
        f"shift or mirroring. Above {copies.threshold:.2f} a slice is called a copy, and a copy is "
        "a reason not to share the generator.",
    )


def by_correlation(made: SliceSet, searched: Index, real: SliceSet, seed: int) -> Nearest:
    """Slices drawn at random, where too few held-out slices say what a copy is."""
    draws = np.random.default_rng(seed)
    chosen = np.sort(draws.permutation(searched)[: 2 * SHOWN])
    found = nearest_real(made.slices[chosen], real.slices)
    splits = np.where(real.held_out[found.index], "test", "train")
    return Nearest(
        chosen,
        found.index,
        np.zeros(len(chosen), bool),
        [
            f"no. {made.number(i)}, r = {r:.2f} ({split})"
            for i, r, split in zip(chosen, found.correlation, splits, strict=True)
        ],
        0,
        f"{len(chosen)} synthetic slices drawn at random (left of each pair), each with the real "
        "slice most like it (right), by pixel correlation r at 32x32. A pair that is the same in "
        "every fold is a copy, and a reason not to share the generator.",
    )
