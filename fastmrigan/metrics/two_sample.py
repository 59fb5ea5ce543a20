"""The classifier two-sample test: can a small network tell synthetic slices from real ones?

Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests" (arXiv:1610.06545): a classifier
is trained on half of both sets and asked about the other half. Where the two sets come from one
distribution no classifier does better than chance, 50 %. Being above says that they differ and
that this network sees it; being at 50 % says only that this one, trained on this many slices,
does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fastmrigan.errors import UsageError
from fastmrigan.metrics.bootstrap import wilson
from fastmrigan.metrics.checks import Groups, check_finite, check_groups, check_slices, check_whole
from fastmrigan.metrics.classifier import SliceClassifier, fit

FEWEST = 8  # slices of each set: half of them are held out
STEPS = 300
BATCH = 64

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TwoSample:
    """How often the classifier was right on slices it had not seen."""

    accuracy: float  # 0.5 is chance: the sets cannot be told apart; 1.0 always told apart
    interval: tuple[float, float]  # Wilson's, of the accuracy
    p_value: float  # of an accuracy this high by chance (binomial, one-sided)
    held_out_count: int  # slices asked, half of them real
    effective_count: float  # independent slices that say as much: lower where groups hold together


def real_or_fake(
    real: Float32,
    made: Float32,
    seed: int = 0,
    *,
    real_groups: Groups | None = None,
    made_groups: Groups | None = None,
    level: float = 0.95,
    steps: int = STEPS,
) -> TwoSample:
    """Trains a classifier on half of both sets and judges it on as many slices of the rest of each.

    real: float32 [N, H, W]; made: float32 [M, H, W]; both in [-1, 1], at least 8 slices.
    real_groups [N], made_groups [M]: names of what belongs together (a head, a series); no group
    falls into both halves, and the interval and p-value count correlated slices of a group for
    less. Without them slices of one head stand on both sides and are counted as independent: the
    classifier may know the head, and the interval is too narrow.
    The network sees layout at 64x64 and roughness at full resolution, and brightness as it is.
    Seeded. Raises UsageError for sets too small, of other shapes, or of fewer than two groups.
    """
    check_whole("real_or_fake: seed", seed, 0)
    for name, slices, groups in (("real", real, real_groups), ("synthetic", made, made_groups)):
        _check(f"real_or_fake, {name} set", slices, groups)
    if real.shape[1:] != made.shape[1:]:
        raise UsageError(
            "real_or_fake: slices of both sets must have one size, got "
            f"{list(real.shape[1:])} and {list(made.shape[1:])}"
        )
    draws = np.random.default_rng(seed)
    learnt = [_half(len(real), real_groups, draws), _half(len(made), made_groups, draws)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SliceClassifier(rough=True)
    slices = np.concatenate([real[learnt[0]], made[learnt[1]]])
    is_real = np.arange(len(slices)) < learnt[0].sum()  # [N / 2 + M / 2]
    fit(
        network,
        slices,
        is_real,
        seed=seed,
        steps=steps,
        batch=BATCH,
        label="real or fake",
        regrade=False,
    )
    asked = [np.flatnonzero(~half) for half in learnt]
    each = min(map(len, asked))  # as many of both, so that chance is 50 %
    asked = [np.sort(draws.choice(rows, each, replace=False)) for rows in asked]
    right = np.concatenate(
        [
            network.probability(real[asked[0]]) >= 0.5,
            network.probability(made[asked[1]]) < 0.5,
        ]
    )  # [2 * each]
    together = _names([(asked[0], real_groups), (asked[1], made_groups)])
    return _judged(right, together, level)


def effective_count(right: Bool, groups: npt.NDArray[np.int64]) -> float:
    """How many independent answers say as much about the accuracy as these.

    right: bool [n]; groups: [n], equal where answers belong together. n over the design effect
    (Kish 1965): the variance of the mean by sums over groups, over that of independent answers.
    Where all answers agree nothing shows how they hang together, and each group counts as one.
    """
    share = right.mean()
    sizes = np.bincount(groups)
    if sizes.max() == 1:
        return float(len(right))
    if share in (0, 1):
        effect = float(np.square(sizes).sum()) / len(right)
    else:
        sums = np.bincount(groups, weights=right - share)
        effect = float(np.square(sums).sum() / (len(right) * share * (1 - share)))
    return len(right) / max(1.0, effect)


def p_of_chance(successes: int, count: int) -> float:
    """The probability of at least so many successes of `count` at 1/2 each, exact."""
    return float(sum(math.comb(count, k) for k in range(successes, count + 1)) / 2**count)


def _judged(right: Bool, groups: npt.NDArray[np.int64], level: float) -> TwoSample:
    accuracy = float(right.mean())
    effective = effective_count(right, groups)
    whole = max(1, math.floor(effective + 1e-6))
    return TwoSample(
        accuracy=accuracy,
        interval=wilson(accuracy * effective, effective, level),
        p_value=p_of_chance(math.floor(accuracy * whole + 1e-6), whole),
        held_out_count=len(right),
        effective_count=effective,
    )


def _half(count: int, groups: Groups | None, draws: np.random.Generator) -> Bool:
    """Which slices are learnt from: half of them, or whole groups until it is about half."""
    if groups is None:
        return draws.permutation(count) < count // 2
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = draws.permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]  # slices dealt before each group
    taken = before + sizes[order] / 2 <= count / 2
    taken[0], taken[-1] = True, False  # both halves get a group, however large
    return np.isin(group, order[taken])


def _names(sides: list[tuple[npt.NDArray[np.int64], Groups | None]]) -> npt.NDArray[np.int64]:
    """Numbers of the groups of the slices asked, of one side after the other."""
    numbers, first = [], 0
    for rows, groups in sides:
        of = rows if groups is None else groups[rows]
        number = np.unique(of, return_inverse=True)[1].reshape(-1)
        numbers.append(number + first)
        first += int(number.max()) + 1
    return np.concatenate(numbers)


def _check(what: str, slices: Float32, groups: Groups | None) -> None:
    check_slices(what, slices, fewest=FEWEST)
    check_finite(what, slices)
    if groups is None:
        return
    check_groups(what, groups, len(slices))
    if len(np.unique(groups)) < 2:
        raise UsageError(f"{what}: expected at least two groups, got one")
