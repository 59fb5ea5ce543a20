"""Translations beside the slices they were made of: what changed, and what was there before.

A translation from normal to tumour slices that leaves everything as it was has the distance to
tumour slices that normal ones have; one that makes another head of each may well come near, and has
lost its patient. So both are told: the distance of the untranslated slices, and how much of each
source its translation keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.dataset import PreparedDataset, open_array
from fastmrigan.imaging.quantise import to_float
from fastmrigan.metrics.bootstrap import interval_of_mean
from fastmrigan.metrics.frechet import frechet
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.similarity import compare
from fastmrigan.metrics.slice_sets import patients
from fastmrigan.metrics.translated import check_known

if TYPE_CHECKING:
    from fastmrigan.metrics.evaluation_inputs import Inputs

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

DATA_RANGE = 2.0  # slices lie in [-1, 1]
NEAR = 0.01  # of the floor: sources nearer than this to the real slices are those themselves


@dataclass(frozen=True)
class Sources:
    """The slices that were translated; entry i is that of translation i."""

    slices: Float32  # [M, H, W]
    held_out: npt.NDArray[np.bool_]  # [M], True where their dataset keeps them for testing
    groups: npt.NDArray[np.int64] | None  # [M], patients, where known


@dataclass(frozen=True)
class Changes:
    """From sources to translations; entry i of each."""

    sources: Float32  # [N, H, W]
    made: Float32  # [N, H, W]
    ssim: Float64  # [N], of the two
    mae: Float64  # [N], in units of [-1, 1]
    shown: dict[str, int]  # the least, the median and the most changed
    groups: npt.NDArray[np.int64] | None  # [N], patients, where known


def source_slices(inputs: Inputs) -> Sources | None:
    """The slices that were translated; None where --real is not the dataset they are of.

    Raises InputRejected where the records name slices that the dataset does not have.
    """
    origins = inputs.direction.origins
    if origins is None:
        return None
    dataset = PreparedDataset.open(inputs.asked.real)
    check_known(origins, len(inputs.made.slices), dataset)
    records = [dataset.records[i] for i in origins.index]
    return Sources(
        to_float(open_array(dataset.path, "slices.npy", dataset.info)[origins.index]),
        np.array([record.split == "test" for record in records]),
        patients(records),
    )


def changes(sources: Sources, made: Float32) -> Changes:
    """made: [M, H, W] in [-1, 1], M of at least 1, H and W of at least 11."""
    found = compare(made, sources.slices, data_range=DATA_RANGE)
    order = np.argsort(-np.asarray(found.ssim))
    shown = {
        "least changed": order[0],
        "median": order[len(order) // 2],
        "most changed": order[-1],
    }
    return Changes(
        sources.slices,
        made,
        np.asarray(found.ssim),
        np.asarray(found.mae),
        {name: int(place) for name, place in shown.items()},
        sources.groups,
    )


def change_measures(changed: Changes, seed: int) -> list[Measure]:
    """How alike translations and their sources are; intervals over patients, where known."""
    over = f"{len(changed.made):,} translations, each with its source"
    if changed.groups is not None:
        count = len(np.unique(changed.groups))
        over += f", of {count:,} patients" if count > 1 else ", all of one patient"
    return [
        Measure(
            "source_ssim",
            "SSIM to the source slice",
            float(changed.ssim.mean()),
            "context",
            "Structural similarity of each translation and the slice it was made of, over the "
            "whole frame. 1: nothing changed. Within one contrast, far below 1: another head.",
            interval=interval_of_mean(changed.ssim, seed=seed, groups=changed.groups),
            section="sources",
            over=over,
        ),
        Measure(
            "source_mae",
            "change from the source slice",
            float(changed.mae.mean()),
            "context",
            "Mean absolute difference of the two, in units of slices in [-1, 1].",
            interval=interval_of_mean(changed.mae, seed=seed, groups=changed.groups),
            section="sources",
            over=over,
        ),
    ]


def untranslated_measures(
    real: Float32, sources: Float32, distance: float, floor: float
) -> list[Measure]:
    """What is left of the sources' fd-random; features real [N, d], sources [M, d].

    Sources that are the real slices themselves have no distance to be left of, but rounding.
    """
    found = frechet(real, sources)
    before = found.distance
    measures = [
        Measure(
            "fd_random_untranslated",
            "fd-random, before translation",
            before,
            "context",
            "The distance of the source slices as they are: what a translation that changes "
            "nothing would have.",
            over=f"{len(sources):,} source slices, against {len(real):,} real ones",
        )
    ]
    if before > max(NEAR * floor, found.error_bound):
        measures.append(
            Measure(
                "fd_random_over_untranslated",
                "fd-random over untranslated",
                distance / before,
                "lower",
                "How much of the untranslated slices' distance is left.",
                share=True,
            )
        )
    return measures
