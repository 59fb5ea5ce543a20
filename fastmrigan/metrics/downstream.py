"""Are synthetic tumour slices of use? Train on synthetic, test on real.

The question of Esteban et al. 2017 ("TSTR", arXiv:1706.02633) asked of tumour slices: the same
small classifier is trained on real slices, on synthetic tumour with real normal slices, and on
both, and all three are judged on the same held-out real slices. A no is a result: where the
interval of `both_minus_real` holds 0, no use has been shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.metrics.bootstrap import interval
from fastmrigan.metrics.checks import Groups, check_finite, check_groups, check_slices, check_whole
from fastmrigan.metrics.classifier import check_labelled, train_tumour_classifier

SEEDS = 3  # classifiers of each kind
STEPS = 300
DRAWS = 1000  # of the bootstrap over test slices

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One kind of training, judged on held-out real slices; means over seeds, all in 0..1."""

    accuracy: float
    balanced_accuracy: float  # mean of the next two
    sensitivity: float  # share of tumour slices called tumour
    specificity: float  # share of normal slices called normal
    interval: tuple[float, float]  # of the accuracy, over the choice of test slices
    balanced_interval: tuple[float, float]  # of the balanced accuracy
    seed_spread: float  # standard deviation of the accuracy from seed to seed


@dataclass(frozen=True)
class Difference:
    """Of two accuracies on the same test slices, with its paired interval."""

    value: float  # in -1..1; above 0 the first is better
    interval: tuple[float, float]

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out."""
        return not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Utility:
    """What synthetic tumour slices do to the accuracy of a classifier of real slices."""

    real: Judged  # trained on real slices alone
    synthetic: Judged  # on synthetic tumour and real normal slices
    both: Judged  # on all of them
    both_minus_real: Difference  # what adding synthetic slices brings
    synthetic_minus_real: Difference  # what replacing real tumour slices costs
    tumour: int  # test slices with tumour
    normal: int  # test slices without
    seeds: int


def tumour_utility(
    real_slices: Float32,
    real_tumour: Bool,
    synthetic_tumour: Float32,
    test_slices: Float32,
    test_tumour: Bool,
    seed: int = 0,
    *,
    test_groups: Groups | None = None,
    seeds: int = SEEDS,
    steps: int = STEPS,
    level: float = 0.95,
) -> Utility:
    """Trains 3 x seeds classifiers, equally long, and judges them on the same real slices.

    real_slices: float32 [N, H, W] in [-1, 1] with real_tumour bool [N]; synthetic_tumour: float32
    [M, H, W], M >= 1, all of them meant to show tumours; test_slices [T, H, W] with test_tumour
    bool [T]: real, and of none of the heads that the others come from. test_groups [T]: names of
    the heads, so that the bootstrap draws heads instead of slices.
    Intervals cover the choice of the test slices, not the choice of the training slices.
    Raises UsageError where a class or the synthetic slices are missing, or sizes differ.
    """
    _check(real_slices, real_tumour, synthetic_tumour, test_slices, test_tumour, test_groups)
    check_whole("tumour_utility: seed", seed, 0)
    check_whole("tumour_utility: seeds", seeds, 1)
    normal = real_slices[~real_tumour]
    arms = {
        "real": (real_slices[real_tumour],),
        "synthetic": (synthetic_tumour,),
        "both": (real_slices[real_tumour], synthetic_tumour),
    }
    right = {}  # [seeds, T] each
    for name, tumour in arms.items():
        slices = np.concatenate([*tumour, normal])
        labels = np.arange(len(slices)) < len(slices) - len(normal)
        right[name] = np.stack(
            [
                (
                    train_tumour_classifier(
                        slices, labels, seed=seed + place, steps=steps
                    ).predict_tumour(test_slices)
                    >= 0.5
                )
                == test_tumour
                for place in range(seeds)
            ]
        )

    of_class = [test_tumour, ~test_tumour]  # drawn apart, so that no draw lacks a class
    groups = None if test_groups is None else [test_groups[rows] for rows in of_class]

    def span(measure: Callable[..., float], scores: Scores) -> tuple[float, float]:
        rows = [scores[chosen] for chosen in of_class]
        return interval(measure, *rows, draws=DRAWS, level=level, seed=seed, groups=groups)

    def judged(answers: Bool) -> Judged:
        scores = answers.mean(axis=0)  # [T]
        sensitivity, specificity = (float(scores[chosen].mean()) for chosen in of_class)
        return Judged(
            accuracy=float(scores.mean()),
            balanced_accuracy=(sensitivity + specificity) / 2,
            sensitivity=sensitivity,
            specificity=specificity,
            interval=span(_accuracy, scores),
            balanced_interval=span(_balanced, scores),
            seed_spread=float(answers.mean(axis=1).std(ddof=1)) if seeds > 1 else 0.0,
        )

    def minus_real(name: str) -> Difference:
        scores = right[name].mean(axis=0) - right["real"].mean(axis=0)  # [T]
        return Difference(float(scores.mean()), span(_accuracy, scores))

    return Utility(
        real=judged(right["real"]),
        synthetic=judged(right["synthetic"]),
        both=judged(right["both"]),
        both_minus_real=minus_real("both"),
        synthetic_minus_real=minus_real("synthetic"),
        tumour=int(test_tumour.sum()),
        normal=int((~test_tumour).sum()),
        seeds=seeds,
    )


def _accuracy(tumour: Scores, normal: Scores) -> float:
    """Of the scores of tumour and of normal test slices."""
    return float((tumour.sum() + normal.sum()) / (len(tumour) + len(normal)))


def _balanced(tumour: Scores, normal: Scores) -> float:
    return float((tumour.mean() + normal.mean()) / 2)


def _check(
    real_slices: Float32,
    real_tumour: Bool,
    synthetic_tumour: Float32,
    test_slices: Float32,
    test_tumour: Bool,
    test_groups: Groups | None,
) -> None:
    for name, slices, labels in (
        ("real", real_slices, real_tumour),
        ("test", test_slices, test_tumour),
    ):
        check_labelled(slices, labels, f"tumour_utility, {name} set")
    check_slices("tumour_utility, synthetic slices", synthetic_tumour, fewest=1)
    check_finite("tumour_utility, synthetic slices", synthetic_tumour)
    sizes = [list(x.shape[1:]) for x in (real_slices, synthetic_tumour, test_slices)]
    if sizes != [sizes[0]] * 3:
        raise UsageError(
            "tumour_utility: expected slices of one size, got {} (real), {} (synthetic) and {} "
            "(test)".format(*sizes)
        )
    if test_groups is not None:
        check_groups("tumour_utility, test set", test_groups, len(test_slices))
