"""Distances between two sets of slices in a space of features: what is measured, under which name.

A space is a network's features and what a report calls the distances on them; nothing is called
FID or KID unless it is taken on the published Inception features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastmrigan.metrics.bootstrap import BLOCKS, Jackknife, frechet_interval, wilson
from fastmrigan.metrics.frechet import HALVES, frechet_distance, split_half_floor
from fastmrigan.metrics.kid import kid, kid_subsets, u_statistics
from fastmrigan.metrics.manifold import precision_recall_density_coverage
from fastmrigan.metrics.measure import Measure

Float32 = npt.NDArray[np.float32]

SUBSETS, SUBSET_SIZE = 100, 1000  # of the kernel distance, as Binkowski et al. 2018
NEIGHBOURS = 5  # k of precision, recall, density and coverage
FEWEST = 8  # slices of a side that an interval is worth something of


@dataclass(frozen=True)
class Space:
    """A network's features of both sides."""

    key: str  # of its Frechet distance in report.json
    name: str  # of its Frechet distance on the page
    kernel_key: str
    kernel_name: str
    features: str  # what the features are, for a sentence: "on …"
    real: Float32  # [N, d]
    made: Float32  # [M, d]
    groups: npt.NDArray[np.int64] | None = None  # [N], the patients of the real slices
    remark: str = ""  # what else has to be known of this distance

    @property
    def fewest(self) -> int:
        """Slices, or patients, of the smaller side."""
        units = len(self.real) if self.groups is None else len(np.unique(self.groups))
        return min(units, len(self.made))


def frechet_measures(space: Space, seed: int) -> list[Measure]:
    """The Frechet distance, its split-half floor and their ratio."""
    distance = frechet_distance(space.real, space.made)
    floor = split_half_floor(space.real, seed)
    interval = None
    if space.fewest >= FEWEST:
        interval = frechet_interval(space.real, space.made, seed=seed, groups=[space.groups, None])
    measures = [
        Measure(
            space.key,
            space.name,
            distance,
            "lower",
            f"Frechet distance between all real and all synthetic slices on {space.features}. "
            f"{space.remark}".strip(),
            floor,
            interval=interval,
        ),
        Measure(
            f"{space.key}_floor",
            f"{space.name} floor, real against real",
            floor,
            "context",
            floor_text(space),
            over=f"{len(space.real):,} real slices, in halves",
        ),
    ]
    if floor > 0:
        measures.append(
            Measure(
                f"{space.key}_over_floor",
                f"{space.name} over floor",
                distance / floor,
                "lower",
                "1 means as close to the real slices as their own halves are to each other.",
                1.0,
            )
        )
    return measures


def floor_text(space: Space) -> str:
    text = (
        f"The same distance between two random halves of the real slices, mean of {HALVES} "
        "halvings."
    )
    if space.key != "fd_random":  # said once
        return text
    return (
        f"{text} Halves are smaller than the whole, so this overstates the lowest value reachable; "
        "slices of one head fall into both halves, which understates it."
    )


def kernel_measures(space: Space, seed: int) -> list[Measure]:
    """The kernel distance over all slices, and its mean and spread over subsets of two or more."""
    value = kid(space.real, space.made)
    interval = None
    if space.fewest >= FEWEST:
        interval = kid_jackknife(space, value, seed).interval()
    size = min(SUBSET_SIZE, len(space.real) // 2, len(space.made) // 2)  # not all of a side
    whole = Measure(
        space.kernel_key,
        space.kernel_name,
        value,
        "lower",
        f"Squared maximum mean discrepancy (cubic polynomial kernel) on {space.features}, over "
        "all slices, unbiased: the same distribution on both sides gives 0 at any sample size, "
        "and a little less by chance.",
        0.0,
        interval=interval,
    )
    if size < 2:  # two or three slices on a side
        return [whole]
    mean, spread = kid_subsets(space.real, space.made, subsets=SUBSETS, size=size, seed=seed)
    return [
        whole,
        Measure(
            f"{space.kernel_key}_subsets",
            f"{space.kernel_name}, mean of subsets",
            mean,
            "lower",
            f"The same, as papers report it: the mean over {SUBSETS} random subsets of {size:,} "
            "slices a side.",
            0.0,
        ),
        Measure(
            f"{space.kernel_key}_subsets_sd",
            f"{space.kernel_name}, spread of subsets",
            spread,
            "context",
            "The standard deviation over those subsets, as papers report it. How sure the value "
            "over all slices is, its own interval says.",
        ),
    ]


def kid_jackknife(space: Space, value: float, seed: int) -> Jackknife:
    """`bootstrap.jackknife` of KID, which takes all its subsets in one pass over the kernel."""
    blocks = min(BLOCKS, space.fewest)
    draws = np.random.default_rng(seed)
    kept = []  # [blocks, N], [blocks, M]: the k-th subset is all but the k-th block
    for rows, groups in ((space.real, space.groups), (space.made, None)):
        unit = np.arange(len(rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
        block = draws.permutation(unit.max() + 1) % blocks  # of each unit
        kept.append(block[unit] != np.arange(blocks)[:, None])
    without = u_statistics(space.real, space.made, *kept)  # [blocks]
    mean = float(without.mean())
    error = float(np.sqrt((blocks - 1) / blocks * np.square(without - mean).sum()))
    return Jackknife(value, error, (blocks - 1) * (mean - value), blocks)


def manifold_measures(space: Space, seed: int) -> list[Measure]:
    """Precision, recall, density and coverage, each beside real halves against each other."""
    found = precision_recall_density_coverage(space.real, space.made, k=NEIGHBOURS)
    halves = np.random.default_rng(seed).permutation(len(space.real))
    first, second = np.array_split(halves, 2)
    usual = None
    if len(second) > NEIGHBOURS:
        usual = precision_recall_density_coverage(
            space.real[first], space.real[second], k=NEIGHBOURS
        )
    texts = {
        "precision": "Share of synthetic slices that lie in the neighbourhood of a real one. Low: "
        "they do not look real. A neighbourhood reaches to a slice's neighbour no. "
        f"{NEIGHBOURS} of its own kind, by {space.features}.",
        "recall": "Share of real slices that lie in the neighbourhood of a synthetic one. Low: "
        "kinds of real slices are never made.",
        "density": "In how many real neighbourhoods a synthetic slice lies on average, over "
        f"{NEIGHBOURS}. Like precision, but a single odd real slice counts for little; may "
        "exceed 1.",
        "coverage": "Share of real slices whose neighbourhood holds a synthetic one. Like recall, "
        "but odd synthetic slices cannot raise it.",
    }
    counts = {"precision": len(space.made), "recall": len(space.real), "coverage": len(space.real)}
    measures = []
    for name, text in texts.items():
        value = float(getattr(found, name))
        count = counts.get(name)
        measures.append(
            Measure(
                name,
                name,
                value,
                "higher",
                f"{text} The reference is one half of the real slices against the other.",
                None if usual is None else float(getattr(usual, name)),
                share=count is not None,
                interval=None if count is None else wilson(value * count, count),
            )
        )
    return measures
