"""What so few patients cost: how near new tumour slices would lie, of as many heads as the normals.

    python benchmarks/results_patients.py SET [--json FILE]

SET: the prepared set of `results_of.py t2-tumour-cyclegan-improved`. Slices of one patient are
alike, so that 37 of one tell less than 37 of as many. All distances are fd-random; `drawn` are rows
of the normal distribution with the tumour features' moments, in groups of given sizes that have one
intraclass correlation, on both sides of a distance:

    independent    as many rows as there are normals, and as there are tumour slices, no groups
    patients       groups as large as the normals' patients with the normals' correlation, against
                   groups as large as the tumours' patients with the tumours'
    alike          the same, with the tumours' correlation on both sides
    to the slices  the groups of `patients` against the tumour slices, which gave the moments
    half           half the patients of a class against the other half: real, and drawn by the
                   class's own moments; how far the draws are to be believed
    evened         normals whose greys went through one curve, at most 5 of a patient, against the
                   tumours: real, and drawn as for `patients`
    uneven         as many of these normals as are evened, at random

Of random rows the median of `--draws` and their range. Nothing here is trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from arguments import in_one_line
from json_file import write_json
from results_limits import Integers, Rows, arguments, on_quantiles, two_classes

from fastmrigan.errors import UsageError
from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.frechet import frechet
from fastmrigan.runtime.machine import machine

EVEN = 5  # slices of a patient, as many as a patient with a tumour has at most
Draw = Callable[[np.random.Generator], float]


@dataclass(frozen=True)
class Class:
    """Features of slices [N, d], and whose they are [N]."""

    features: Rows
    patients: Integers

    def of(self, chosen: npt.NDArray[np.bool_] | Integers) -> Class:
        return Class(self.features[chosen], self.patients[chosen])

    @property
    def sizes(self) -> Integers:
        """Slices of each patient: [patients]."""
        return np.unique(self.patients, return_counts=True)[1]

    @cached_property
    def correlation(self) -> float:
        return intraclass_correlation(self.features, self.patients)

    @cached_property
    def moments(self) -> Moments:
        return moments_of(self.features)

    def facts(self) -> dict[str, float]:
        """Also how many patients of one size each would tell as much as these of many sizes."""
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


class Moments(NamedTuple):
    """Of a normal distribution."""

    mean: npt.NDArray[np.float64]  # [d]
    root: npt.NDArray[np.float64]  # [d, d], whose product with its transpose is the covariance


def moments_of(features: Rows) -> Moments:
    values, vectors = np.linalg.eigh(np.cov(features, rowvar=False))
    return Moments(features.mean(0), vectors * np.sqrt(values.clip(0)))


def in_groups(sizes: Integers, correlation: float, like: Moments, by: np.random.Generator) -> Rows:
    """Rows of a normal distribution, in groups of one correlation."""

    def normal(count: int) -> npt.NDArray[np.float64]:
        return by.standard_normal((count, len(like.mean))) @ like.root.T

    shared, own = np.repeat(normal(len(sizes)), sizes, axis=0), normal(int(sizes.sum()))
    rows = like.mean + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    return rows.astype(np.float32)


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
    like, slices = tumours.moments, tumours.features

    def independent(by: np.random.Generator) -> float:
        each = (np.ones(len(side.features), np.int64) for side in (normals, tumours))
        return frechet(*(in_groups(sizes, 0, like, by) for sizes in each)).distance

    def patients(sizes: Integers, correlation: float, by: np.random.Generator) -> float:
        """Of two draws, grouped as given and as the tumours are."""
        rows = in_groups(sizes, correlation, like, by)
        return frechet(rows, in_groups(tumours.sizes, tumours.correlation, like, by)).distance

    def to_the_slices(by: np.random.Generator) -> float:
        return frechet(in_groups(normals.sizes, normals.correlation, like, by), slices).distance

    def half(found: Class, by: np.random.Generator, real: bool) -> float:
        one, other = half_and_half(found, by)
        if real:
            return frechet(one.features, other.features).distance
        both = (in_groups(x.sizes, found.correlation, found.moments, by) for x in (one, other))
        return frechet(*both).distance

    def some(by: np.random.Generator, even: bool, real: bool) -> float:
        chosen = evened(curved, by)
        if not even:
            chosen = by.permutation(len(curved.patients))[: len(chosen)]
        fewer = curved.of(chosen)
        if real:
            return frechet(fewer.features, slices).distance
        return patients(fewer.sizes, curved.correlation, by)

    return {
        "independent, drawn": independent,
        "patients, drawn": lambda by: patients(normals.sizes, normals.correlation, by),
        "alike, drawn": lambda by: patients(normals.sizes, tumours.correlation, by),
        "to the slices, drawn": to_the_slices,
        "half the tumours, real": lambda by: half(tumours, by, True),
        "half the tumours, drawn": lambda by: half(tumours, by, False),
        "half the normals, real": lambda by: half(normals, by, True),
        "half the normals, drawn": lambda by: half(normals, by, False),
        "evened, real": lambda by: some(by, True, True),
        "evened, drawn": lambda by: some(by, True, False),
        "uneven, real": lambda by: some(by, False, True),
        "uneven, drawn": lambda by: some(by, False, False),
    }


def classes_of(path: Path) -> dict[str, Class]:
    """Of a prepared set: the normals to train on, the same by one curve, and all tumours."""
    normal, tumour = two_classes(path)
    patients = normal.groups[~normal.held_out]
    for whose in (patients, tumour.groups):
        if len(np.unique(whose)) == len(whose):
            raise UsageError(f"{path}: each patient has one slice, which says nothing of patients")
    greys = on_quantiles(normal.train, normal.train, tumour.train)
    return {
        "normals": Class(random_features(normal.train, shown=False), patients),
        "curved": Class(random_features(greys, shown=False), patients),
        "tumours": Class(random_features(tumour.slices, shown=False), tumour.groups),
    }


def run(options: argparse.Namespace) -> None:
    classes = classes_of(options.set)
    facts = {name: found.facts() for name, found in classes.items()}
    document = {
        "benchmark": "results_patients",
        "machine": machine(),
        "draws": options.draws,
        **facts,
        "rows": {},
    }
    for name, told in facts.items():
        print(f"{name:8}" + ", ".join(f"{what} {x:.3g}" for what, x in told.items()))
    for name, draw in rows_of(**classes).items():
        found = sorted(draw(np.random.default_rng(seed)) for seed in range(options.draws))
        document["rows"][name] = found
        print(f"{name:24}{found[len(found) // 2]:.4f} ({found[0]:.4f} to {found[-1]:.4f})")
        write_json(options.json, document)


def main() -> int:
    return in_one_line(run, arguments(__doc__).parse_args())


if __name__ == "__main__":
    sys.exit(main())
