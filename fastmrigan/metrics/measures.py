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
COLLAPSED = 0.5  # of the real slices' variety: a generator with less is said to repeat itself

Float32 = npt.NDArray[np.float32]


def diversity(real: Float32, made: Float32, seed: int) -> Measure:
    """How like each other the slices of each side [N, H, W], [M, H, W] are."""
    draws = np.random.default_rng(seed)
    found = []
    for slices in (real, made):
        first = draws.integers(0, len(slices), PAIRS)
        second = (first + draws.integers(1, len(slices), PAIRS)) % len(slices)  # never itself
        found.append(np.asarray(ssim(slices[first], slices[second], data_range=2.0)))  # [PAIRS]
    value, usual = float(found[1].mean()), float(found[0].mean())
    return Measure(
        "pair_ssim",
        "likeness to each other",
        value,
        "near reference",
        f"Mean SSIM of {PAIRS} random pairs of synthetic slices; the reference is the same among "
        "real slices. Far above it, the generator repeats itself; far below, it makes noise.",
        usual,
        interval=interval(np.mean, found[1], seed=seed),
        remark="Far above: the generator repeats itself." if collapsed(value, usual) else "",
    )


def variety(likeness: float, usual: float) -> float:
    """How unlike each other synthetic slices are, as a share of how unlike real ones are."""
    return (1 - likeness) / (1 - usual) if usual < 1 else 1.0  # real slices that are all one


def collapsed(likeness: float, usual: float) -> bool:
    return variety(likeness, usual) < COLLAPSED


def variety_remark(likeness: Measure) -> str:
    """What stands beside a share of slices; `likeness` is what `diversity` returned."""
    assert likeness.reference is not None
    text = f"Variety: {100 * variety(likeness.value, likeness.reference):.0f} % of the real slices'"
    if collapsed(likeness.value, likeness.reference):
        return f"{text}. The generator repeats itself: this share says little."
    return f"{text}."


def collapse_warnings(likeness: Measure) -> list[str]:
    """For the head of the report, where a generator repeats itself."""
    assert likeness.reference is not None
    if not collapsed(likeness.value, likeness.reference):
        return []
    return [
        "The synthetic slices are far more like each other than real ones are (mean SSIM of random "
        f"pairs {likeness.value:.2f}, of real ones {likeness.reference:.2f}): the generator "
        "repeats itself. Shares of slices, such as those called tumour, and precision and density "
        "count each repetition."
    ]


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
