"""What so few patients cost: how near new tumour slices would lie, of as many heads as the normals.

    python benchmarks/results_patients.py SET [--json FILE]

SET: the prepared set of `results_of.py t2-tumour-cyclegan-improved`. Slices of one patient are
alike, so that 37 of one tell less than 37 of as many. All distances are fd-random; `drawn` are rows
of the normal distribution with the tumour features' moments, in groups of given sizes that have one
intraclass correlation, on both sides of a distance:

    independent    as many rows as there are normals, and as there are tumour slices, no groups
    patients       groups as large as the normals' patients with the normals' correlation, against
                   groups as large as the tumours' patients with the tumours'
    half           half the patients of a class against the other half: real, and drawn by the
                   class's own moments; how far the draws are to be believed
    evened         normals whose greys went through one curve, at most 5 of a patient, against the
                   tumours: real, and drawn as for `patients`
    uneven         as many normals as are evened, at random

Of random rows the median of `--draws` and their range. Nothing here is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from results_limits import Rows, on_quantiles
from timing import write_json

from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.frechet import frechet
from fastmrigan.metrics.slice_sets import read_slice_set
from fastmrigan.runtime.machine import machine

Integers = npt.NDArray[np.int64]
EVEN = 5  # slices of a patient, as many as a patient with a tumour has at most
Draw = Callable[[np.random.Generator], float]


class Class(NamedTuple):
    """Features of slices [N, d], and whose they are [N]."""

    features: Rows
    patients: Integers

    def of(self, chosen: npt.NDArray[np.bool_] | Integers) -> Class:
        return Class(self.features[chosen], self.patients[chosen])

    @property
    def sizes(self) -> Integers:
        """Slices of each patient: [patients]."""
        return np.unique(self.patients, return_counts=True)[1]

    @property
    def correlation(self) -> float:
        return intraclass_correlation(self.features, self.patients)

    def facts(self) -> dict[str, float]:
        """Among them of how many patients of one size each the slices would tell as much."""
        return {
            "slices": len(self.features),
            "patients": len(self.sizes),
            "patients_of_one_size": float(self.sizes.sum() ** 2 / (self.sizes**2).sum()),
            "correlation": self.correlation,
        }


def intraclass_correlation(features: Rows, groups: Integers) -> float:
    """The share of all variance that rows of one group have in common, of a one-way layout.

    Shrout and Fleiss, Intraclass correlations (1979), case 1, with the mean size of groups that
    differ in size as Donner has it; the variances of all features are summed.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    count = len(features)
    means = np.zeros((len(sizes), features.shape[1]))
    np.add.at(means, group, features)
    means /= sizes[:, None]
    within = ((features - means[group]) ** 2).sum() / (count - len(sizes))
    of_means = (sizes * ((means - features.mean(0)) ** 2).sum(1)).sum() / (len(sizes) - 1)
    size = (count - (sizes**2).sum() / count) / (len(sizes) - 1)
    between = max(0.0, float(of_means - within) / float(size))
    return between / (between + float(within))


def in_groups(sizes: Integers, correlation: float, like: Rows, by: np.random.Generator) -> Rows:
    """Rows of the normal distribution with `like`'s moments, in groups of one correlation."""
    nothing, covariance = np.zeros(like.shape[1]), np.cov(like, rowvar=False)

    def normal(count: int) -> npt.NDArray[np.float64]:
        return by.multivariate_normal(nothing, covariance, count, method="eigh")

    shared, own = np.repeat(normal(len(sizes)), sizes, axis=0), normal(int(sizes.sum()))
    rows = like.mean(0) + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    return rows.astype(np.float32)


def drawn(one: Class, other: Class, like: Rows, by: np.random.Generator) -> float:
    """The distance of two draws of `like`'s moments, grouped as `one` and as `other` are."""
    sides = (in_groups(side.sizes, side.correlation, like, by) for side in (one, other))
    return frechet(*sides).distance


def half_and_half(found: Class, by: np.random.Generator) -> tuple[Class, Class]:
    names = by.permutation(np.unique(found.patients))
    first = np.isin(found.patients, names[: len(names) // 2])
    return found.of(first), found.of(~first)


def evened(found: Class, by: np.random.Generator) -> Integers:
    """At most EVEN slices of each patient, which ones at random: their places, in order."""
    order = by.permutation(len(found.patients))
    taken = [
        order[found.patients[order] == patient][:EVEN] for patient in np.unique(found.patients)
    ]
    return np.sort(np.concatenate(taken))


def rows_of(normals: Class, curved: Class, tumours: Class) -> dict[str, Draw]:
    """What to draw, by name; `curved`: the normals after the curve."""
    like = tumours.features

    def independent(by: np.random.Generator) -> float:
        each = (np.ones(len(side.features), np.int64) for side in (normals, tumours))
        return frechet(*(in_groups(sizes, 0, like, by) for sizes in each)).distance

    def half(found: Class, by: np.random.Generator, real: bool) -> float:
        one, other = half_and_half(found, by)
        if real:
            return frechet(one.features, other.features).distance
        both = (in_groups(x.sizes, found.correlation, found.features, by) for x in (one, other))
        return frechet(*both).distance

    def some(by: np.random.Generator, even: bool) -> Integers:
        chosen = evened(curved, by)
        return chosen if even else by.permutation(len(curved.patients))[: len(chosen)]

    def real(by: np.random.Generator, even: bool) -> float:
        return frechet(curved.features[some(by, even)], like).distance

    def fewer(by: np.random.Generator, even: bool) -> float:
        sizes = curved.of(some(by, even)).sizes
        rows = in_groups(sizes, curved.correlation, like, by)
        return frechet(rows, in_groups(tumours.sizes, tumours.correlation, like, by)).distance

    return {
        "independent, drawn": independent,
        "patients, drawn": lambda by: drawn(normals, tumours, like, by),
        "half the tumours, real": lambda by: half(tumours, by, True),
        "half the tumours, drawn": lambda by: half(tumours, by, False),
        "half the normals, real": lambda by: half(normals, by, True),
        "half the normals, drawn": lambda by: half(normals, by, False),
        "evened, real": lambda by: real(by, True),
        "evened, drawn": lambda by: fewer(by, True),
        "uneven, real": lambda by: real(by, False),
        "uneven, drawn": lambda by: fewer(by, False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("set", type=Path, help="prepared with --groups, tumour and one other label")
    parser.add_argument("--draws", type=int, default=15, help="of each row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    tumour = read_slice_set(options.set, label="tumour")
    normal = read_slice_set(options.set, label="nontumour")
    if normal.groups is None or tumour.groups is None:
        raise SystemExit(f"{options.set}: patients are unknown; prepare it with --groups")
    patients = normal.groups[~normal.held_out]
    greys = on_quantiles(normal.train, normal.train, tumour.train)
    normals, curved, tumours = (
        Class(random_features(slices, shown=False), whose)
        for slices, whose in (
            (normal.train, patients),
            (greys, patients),
            (tumour.slices, tumour.groups),
        )
    )
    document = {
        "benchmark": "results_patients",
        "machine": machine(),
        "draws": options.draws,
        "normals": normals.facts(),
        "curved": curved.facts(),
        "tumours": tumours.facts(),
        "rows": {},
    }
    for name in ("normals", "curved", "tumours"):
        print(f"{name:8}" + ", ".join(f"{what} {x:.3g}" for what, x in document[name].items()))
    for name, draw in rows_of(normals, curved, tumours).items():
        found = sorted(draw(np.random.default_rng(seed)) for seed in range(options.draws))
        document["rows"][name] = found
        print(f"{name:24}{found[len(found) // 2]:.4f} ({found[0]:.4f} to {found[-1]:.4f})")
        write_json(options.json, document)


if __name__ == "__main__":
    main()
