"""Translated slices against the true targets of a paired dataset, beside what costs nothing.

Two floors stand beside every figure, scored on the same slices: the source slice itself, taken for
the target ("plain copy"), and the source slice with its intensities exchanged by one table of 256
entries fitted on the training pairs ("intensity table"). A translation that does not beat the
table has learned no more than a look-up of grey values.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import PreparedDataset, open_array
from fastmrigan.imaging.mask import brain_mask
from fastmrigan.imaging.quantise import to_float, to_uint8
from fastmrigan.metrics.bootstrap import interval_of_mean
from fastmrigan.metrics.measure import Better, Measure
from fastmrigan.metrics.similarity import SCALES, WINDOW, compare, ms_ssim
from fastmrigan.metrics.slice_sets import patients
from fastmrigan.metrics.translated import Origins, check_known
from fastmrigan.progress import Progress

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

DATA_RANGE = 2.0  # slices lie in [-1, 1]
LEVELS = 256
CHUNK = 64  # pairs scored at a time
RIVALS = ("translation", "plain copy", "intensity table")
METRICS: dict[str, tuple[str, Better, str]] = {
    "ssim": ("SSIM", "higher", "structural similarity, 1 is identical"),
    "ms_ssim": ("MS-SSIM", "higher", "structural similarity over five scales, 1 is identical"),
    "psnr": ("PSNR (dB)", "higher", "peak signal-to-noise ratio, 6 dB more is half the error"),
    "mae": ("MAE", "lower", "mean absolute error, in units of slices in [-1, 1]"),
}
REGIONS = {"_brain": "inside the brain", "": "whole frame"}


@dataclass(frozen=True)
class Pairs:
    """Translations, what they were made of and what they should have been; entry i of each."""

    made: Float32  # [N, H, W]
    source: Float32  # [N, H, W]
    truth: Float32  # [N, H, W]
    index: npt.NDArray[np.int64]  # [N], in the dataset
    split: npt.NDArray[np.str_]  # [N]: train, test or guard
    groups: npt.NDArray[np.int64] | None  # [N], patients, where known
    table: Float32 | None  # [256], target intensity by source level; None without training pairs


@dataclass(frozen=True)
class Row:
    """One metric in one region: the translation's mean beside the floors'."""

    measure: Measure  # of the translation; its reference is the table's mean, or the copy's
    hint: str  # what the metric is
    copy: float | None  # None: each copy is exact, and its PSNR infinite
    table: float | None
    gain: float | None  # over the table; above 0 the translation is better
    gain_interval: tuple[float, float] | None  # over the same pairs


@dataclass(frozen=True)
class PairResult:
    """What the page and report.json say of the pairs."""

    pairs: Pairs
    judged: npt.NDArray[np.int64]  # [J], which pairs: the held-out ones, where there are any
    held_out: bool
    scores: dict[str, dict[str, Float64]]  # rival: metric with region: [N]; NaN where undefined
    rows: list[Row]
    shown: dict[str, int]  # best, median and worst of the judged, as positions among the pairs
    ranked_by: str  # the metric that says so
    notes: list[str]  # how it was measured, a sentence each

    def document(self) -> dict[str, Any]:
        """For report.json."""
        pairs = self.pairs
        return {
            "judged": "test" if self.held_out else "all",
            "notes": self.notes,
            "floors": {
                row.measure.key: {
                    "plain_copy": row.copy,
                    "intensity_table": row.table,
                    "gain_over_table": row.gain,
                    "gain_interval": row.gain_interval,
                }
                for row in self.rows
            },
            "slices": [
                {"source_index": int(pairs.index[i]), "split": str(pairs.split[i])}
                | {
                    key: float(values[i])
                    for key, values in self.scores["translation"].items()
                    if np.isfinite(values[i])
                }
                for i in range(len(pairs.made))
            ],
        }


def find_pairs(
    dataset: PreparedDataset, made: Float32, origins: Origins, label: str | None = None
) -> Pairs:
    """The pairs of `made` [N, H, W], whose inputs `origins` names in `dataset`.

    `fastmrigan translate` reads the source side, so the truth is the target side. label: only
    pairs of this label. Raises UsageError where none is left, InputRejected where a record names a
    slice that the dataset does not have.
    """
    check_known(origins, len(made), dataset)
    kept = np.array([label in (None, dataset.records[i].label) for i in origins.index])
    if not kept.any():
        raise UsageError(f"{dataset.path}: none of the translated slices has the label {label!r}")
    index = origins.index[kept]
    records = [dataset.records[i] for i in index]

    def side(name: str, rows: npt.NDArray[np.int64]) -> Float32:
        return to_float(open_array(dataset.path, name, dataset.info)[rows])

    train = dataset.select("train", label)
    return Pairs(
        made=made[kept],
        source=side("slices.npy", index),
        truth=side("targets.npy", index),
        index=index,
        split=np.array([record.split for record in records]),
        groups=patients(records),
        table=intensity_table(side("slices.npy", train), side("targets.npy", train))
        if len(train)
        else None,
    )


def intensity_table(sources: Float32, targets: Float32) -> Float32:
    """The mean target intensity of each of 256 source levels: float32 [256].

    sources, targets: float32 [N, H, W] in [-1, 1]. The means minimise the squared error over all
    pixels; a level that never occurs takes the value between its neighbours.
    """
    sums, counts = np.zeros(LEVELS), np.zeros(LEVELS)
    for source, target in zip(sources, targets, strict=True):
        levels = to_uint8(source).ravel()
        sums += np.bincount(levels, target.ravel(), LEVELS)
        counts += np.bincount(levels, minlength=LEVELS)
    seen = np.flatnonzero(counts)
    return np.interp(np.arange(LEVELS), seen, sums[seen] / counts[seen]).astype(np.float32)


def score_pairs(pairs: Pairs, seed: int) -> PairResult:
    """Scores the translation and both floors, over the frame and inside the brain of the truth."""
    held_out = bool((pairs.split == "test").any())
    judged = np.flatnonzero(pairs.split == "test") if held_out else np.arange(len(pairs.made))
    scores = all_scores(pairs)
    rows = [
        row
        for region in REGIONS
        for metric in METRICS
        if (row := make_row(metric, region, scores, pairs, judged, seed)) is not None
    ]
    ours = scores["translation"]
    ranked_by = "ssim_brain" if np.isfinite(ours["ssim_brain"][judged]).any() else "ssim"
    values = ours[ranked_by][judged]
    order = judged[np.argsort(-values)][: np.isfinite(values).sum()]  # best first, NaN left out
    shown = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    return PairResult(
        pairs,
        judged,
        held_out,
        scores,
        rows,
        {name: int(place) for name, place in shown.items()},
        ranked_by,
        notes(pairs, judged, held_out, scores),
    )


def all_scores(pairs: Pairs) -> dict[str, dict[str, Float64]]:
    """Every metric of every pair, by rival."""
    tables = {} if pairs.table is None else {"intensity table": pairs.table}
    rivals = [name for name in RIVALS if name in ("translation", "plain copy") or name in tables]
    parts: dict[str, list[dict[str, Float64]]] = {name: [] for name in rivals}
    with Progress("pairs", len(pairs.made), "pairs") as progress:
        for first in range(0, len(pairs.made), CHUNK):
            part = slice(first, first + CHUNK)
            source, truth = pairs.source[part], pairs.truth[part]
            brains = np.stack([brain_mask(x) for x in truth])  # [<= CHUNK, H, W]
            for name in rivals:
                if name == "translation":
                    guess = pairs.made[part]
                else:
                    guess = tables[name][to_uint8(source)] if name in tables else source
                parts[name].append(scores_of(guess, truth, brains))
            progress.advance(len(truth))
    return {
        name: {key: np.concatenate([x[key] for x in found]) for key in found[0]}
        for name, found in parts.items()
    }


def scores_of(guess: Float32, truth: Float32, brains: Bool) -> dict[str, Float64]:
    """Every metric [N] of guess and truth [N, H, W]; NaN where it has no finite value.

    brains: bool [N, H, W]. Inside the brain a slice counts where SSIM has a window in it.
    """
    border = WINDOW // 2
    some = brains[:, border:-border, border:-border].any(axis=(1, 2))  # [N]
    found: dict[str, Float64] = {}
    for region, rows, mask in (
        ("", np.ones(len(guess), bool), None),
        ("_brain", some, brains[some]),
    ):
        values = {metric: np.full(len(guess), np.nan) for metric in METRICS}
        if rows.any():
            same = compare(guess[rows], truth[rows], data_range=DATA_RANGE, mask=mask)
            for metric in ("ssim", "psnr", "mae"):
                values[metric][rows] = getattr(same, metric)
            values["ms_ssim"][rows] = multi_scale(guess[rows], truth[rows], mask)
        values["psnr"][np.isinf(values["psnr"])] = np.nan  # identical slices
        found |= {metric + region: x for metric, x in values.items()}
    return found


def make_row(
    metric: str,
    region: str,
    scores: dict[str, dict[str, Float64]],
    pairs: Pairs,
    judged: npt.NDArray[np.int64],
    seed: int,
) -> Row | None:
    """The means over the judged pairs, with intervals over patients where they are known.

    A pair counts where the translation and the table have a value. The copy may be exact there,
    and then has no PSNR: its mean is over the others.
    """
    key = metric + region
    known = {rival: found[key][judged] for rival, found in scores.items()}
    learned = [values for rival, values in known.items() if rival != "plain copy"]
    finite = np.isfinite(learned).all(axis=0)  # [J]
    if not finite.any():
        return None
    groups = None if pairs.groups is None else pairs.groups[judged][finite]
    ours = known["translation"][finite]
    copies = known["plain copy"][finite]
    copies = copies[np.isfinite(copies)]
    copy = float(copies.mean()) if len(copies) else None
    name, better, meaning = METRICS[metric]
    held_out = bool((pairs.split[judged] == "test").all())
    table = gain = gain_interval = None
    if "intensity table" in known:
        rival = known["intensity table"][finite]
        table = float(rival.mean())
        gains = ours - rival if better == "higher" else rival - ours
        gain = float(gains.mean())
        gain_interval = interval_of_mean(gains, seed=seed, groups=groups)
    measure = Measure(
        key,
        f"{name}, {REGIONS[region]}",
        float(ours.mean()),
        better,
        f"{name}: {meaning}. Mean over {len(ours):,} pairs; the reference is "
        + ("the intensity table." if table is not None else "the plain copy.")
        + (" The plain copy is exact, so it has none." if copy is None else ""),
        copy if table is None else table,
        interval=interval_of_mean(ours, seed=seed, groups=groups),
        section="pairs",
        over=f"{len(ours):,} {'held-out pairs' if held_out else 'pairs, none held out'}",
        remark="The plain copy is exact." if copy is None else "",
    )
    return Row(measure, meaning, copy, table, gain, gain_interval)


def multi_scale(guess: Float32, truth: Float32, mask: Bool | None) -> Float64:
    """MS-SSIM [N]; NaN where the slices, or the brain in them, are too small for its scales."""
    values = np.full(len(guess), np.nan)
    if min(guess.shape[1:]) < WINDOW << (len(SCALES) - 1):
        return values
    for i, (one, other) in enumerate(zip(guess, truth, strict=True)):
        with contextlib.suppress(UsageError):  # the mask holds nothing of the coarsest scale
            values[i] = ms_ssim(
                one, other, data_range=DATA_RANGE, mask=None if mask is None else mask[i]
            )
    return values


def notes(
    pairs: Pairs,
    judged: npt.NDArray[np.int64],
    held_out: bool,
    scores: dict[str, dict[str, Float64]],
) -> list[str]:
    """How the pairs were measured, for the page and report.json."""
    counts = {name: int((pairs.split == name).sum()) for name in ("train", "guard", "test")}
    made_of = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    if held_out:
        which = (
            f"The figures are of the {len(judged):,} held-out pairs (test) of {len(pairs.made):,} "
            f"translated ({made_of})."
        )
        if counts["train"]:
            known = np.flatnonzero(pairs.split == "train")
            key = "ssim_brain" if np.isfinite(scores["translation"]["ssim_brain"]).any() else "ssim"
            ours, theirs = (
                float(np.nanmean(scores["translation"][key][rows])) for rows in (known, judged)
            )
            which += (
                f" On the training pairs {METRICS['ssim'][0]} "
                f"{REGIONS[key.removeprefix('ssim')]} is {ours:.3f}, on the held-out ones "
                f"{theirs:.3f}: a large gap means that the network learned them by heart."
            )
    else:
        which = (
            f"No held-out pair was translated: the figures are of all ({made_of}), and flatter "
            "what was trained on them."
        )
    brains = int(np.isfinite(scores["translation"]["mae_brain"][judged]).sum())
    lines = [
        which,
        "Plain copy: the source slice itself, taken for the target. Intensity table: the source "
        "slice with its grey values exchanged by one table of 256 entries, fitted on the training "
        "pairs (the mean target value of each source value); a translation that does not beat it "
        "has learned no more than a look-up of grey values.",
        f"Data range {DATA_RANGE:g} (slices in [-1, 1]). SSIM: Gaussian window of "
        f"{WINDOW}x{WINDOW} pixels, sigma 1.5, where it fits, so a border of {WINDOW // 2} pixels "
        "is left out; PSNR and MAE: all pixels. Black background counts in the whole frame and "
        "flatters every figure there.",
        f"The brain is the largest bright object of the true target (the head, where the skull was "
        f"not stripped); {brains:,} of {len(judged):,} pairs have one.",
        intervals_over(pairs, judged),
    ]
    if "intensity table" not in scores:
        lines.append("The dataset has no training pairs, so there is no intensity table.")
    if np.isnan(scores["translation"]["ms_ssim"][judged]).all():
        lines.append("MS-SSIM is left out: these slices are too small for its scales.")
    if any(np.isnan(found["psnr"][judged]).any() for found in scores.values()):
        lines.append(
            "Slices that are identical to a pixel have no PSNR: where the translation or the table "
            "is, the pair is left out of it; where the plain copy is, of the plain copy's alone."
        )
    return lines


def intervals_over(pairs: Pairs, judged: npt.NDArray[np.int64]) -> str:
    """What the intervals are of, as a sentence."""
    by = (
        f"slices ({len(judged):,}), since no patient is named: slices of one head are not "
        "independent, and the true intervals are wider"
    )
    if pairs.groups is not None:
        patients_judged = len(np.unique(pairs.groups[judged]))
        if patients_judged == 1:
            return "No intervals: all pairs are of one patient, and say nothing of others."
        by = f"patients ({patients_judged:,})"
    few = " So few say little." if len(judged) < 10 else ""
    return f"Intervals: 95 %, bootstrap over {by}.{few}"
