"""Measures of a set as a whole beside its distances: variety, and copies of training slices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan.metrics.bootstrap import interval, wilson
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.memorisation import Copies
from fastmrigan.metrics.neighbours import nearest_real
from fastmrigan.metrics.similarity import ssim

PAIRS = 500  # random pairs behind the diversity figure

Float32 = npt.NDArray[np.float32]


def diversity(real: Float32, made: Float32, seed: int) -> Measure:
    """How like each other the slices of each side [N, H, W], [M, H, W] are."""
    draws = np.random.default_rng(seed)
    found = []
    for slices in (real, made):
        first = draws.integers(0, len(slices), PAIRS)
        second = (first + draws.integers(1, len(slices), PAIRS)) % len(slices)  # never itself
        found.append(np.asarray(ssim(slices[first], slices[second], data_range=2.0)))  # [PAIRS]
    return Measure(
        "pair_ssim",
        "likeness to each other",
        float(found[1].mean()),
        "near reference",
        f"Mean SSIM of {PAIRS} random pairs of synthetic slices; the reference is the same among "
        "real slices. Far above it, the generator repeats itself; far below, it makes noise.",
        float(found[0].mean()),
        interval=interval(np.mean, found[1], seed=seed),
    )


def copying(made: Float32, train: Float32, held_out: Float32, seed: int) -> Measure:
    """Median correlation with the nearest training slice, beside that of held-out slices."""
    ours = nearest_real(made, train).correlation  # [M]
    reference = None
    if len(held_out):
        reference = float(np.median(nearest_real(held_out, train).correlation))
    return Measure(
        "nearest_training_correlation",
        "likeness to the nearest training slice",
        float(np.median(ours)),
        "near reference",
        "Median over synthetic slices of the pixel correlation at 32x32 with the most similar "
        "training slice; the reference is the same for held-out real slices. Far above it, "
        "training slices are being copied.",
        reference,
        interval=interval(np.median, ours, seed=seed),
        section="copies",
    )


def copies_measures(copies: Copies, key: str = "copies", by: str = "pixels") -> list[Measure]:
    """The share of synthetic slices that repeat a training slice, and how near the nearest come."""
    count = len(copies.flagged)
    flagged = int(copies.flagged.sum())
    usual = float((copies.held_out_score > copies.threshold).mean())
    return [
        Measure(
            f"{key}_flagged",
            f"copies of training slices, by {by}",
            copies.share,
            "lower",
            f"{flagged:,} of {count:,} synthetic slices are more like a training slice (mirrored, "
            "shifted by up to three pixels of 64x64 and re-graded as may be) than held-out real "
            f"slices are: their score is above {copies.threshold:.3f}. The reference is the share "
            "of held-out slices above it, which is how often this alarm is false. What is not "
            "flagged is not proven to be new.",
            usual,
            share=True,
            interval=wilson(flagged, count),
            section="copies",
        ),
        Measure(
            f"{key}_ratio",
            f"nearest training slice, by {by}",
            float(np.median(copies.ratio)),
            "near reference",
            "Distance to it, median over synthetic slices, as a multiple of what held-out real "
            "slices show. Far below 1, training slices are being copied; far above, the slices are "
            "unlike all real ones.",
            1.0,
            section="copies",
        ),
    ]
