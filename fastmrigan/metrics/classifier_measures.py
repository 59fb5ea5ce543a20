"""What small classifiers say: real or synthetic, tumour or not, and what they learn from slices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.metrics.bootstrap import wilson
from fastmrigan.metrics.classifier import TumourClassifier, train_tumour_classifier
from fastmrigan.metrics.downstream import tumour_utility
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.metrics.sources import Sources
from fastmrigan.metrics.two_sample import real_or_fake

Labels = npt.NDArray[np.bool_]


def two_sample_measures(
    real: SliceSet, made: SliceSet, seed: int, made_groups: npt.NDArray[np.int64] | None = None
) -> list[Measure]:
    """How well a classifier tells held-out real from synthetic slices.

    made_groups [M]: the patients that translated slices were made of, of `real.groups`.
    """
    found = real_or_fake(
        real.slices, made.slices, seed, real_groups=real.groups, made_groups=made_groups
    )
    alike = (
        ""
        if real.groups is not None
        else " Slices of one head stand on both sides of training and test, so it may know the "
        "head, and the interval takes them for independent."
    )
    return [
        Measure(
            "real_or_fake",
            "told apart from real by a classifier",
            found.accuracy,
            "near reference",
            f"On {found.held_out_count:,} slices that it was not trained on, half of them real. "
            "50 % is chance: this network cannot tell them apart. 100 %: always told apart, be it "
            f"by a detail nobody sees.{alike}",
            0.5,
            share=True,
            interval=found.interval,
            over=f"{found.held_out_count:,} slices kept from its training, half of them real",
        )
    ]


def tumour_measures(
    labelled: SliceSet,
    tumour: Labels,
    made: SliceSet,
    seed: int,
    variety: str,
    sources: Sources | None = None,
    *,
    known: bool = False,
) -> list[Measure]:
    """The share of synthetic slices that a classifier of labelled ones [N, H, W] calls tumour.

    variety: how unlike each other they are, which stands beside it: one slice made over and over
    may be called tumour every time. sources: what was translated, of which the share is told too;
    known: they are of the labelled dataset, so that the classifier has not seen the held-out ones
    alone.
    """
    train, test = ~labelled.held_out, labelled.held_out
    need_test(labelled)
    network = train_tumour_classifier(labelled.slices[train], tumour[train], seed=seed)
    score = network.held_out(labelled.slices[test], tumour[test])
    called = int((network.predict_tumour(made.slices) >= 0.5).sum())
    asked = score.tumour + score.normal
    before = [] if sources is None else untranslated_calls(network, sources, known=known)
    return [
        Measure(
            "called_tumour",
            "synthetic slices called tumour",
            called / len(made.slices),
            "near reference",
            "By a small classifier trained on labelled slices; the reference is the share of "
            "held-out real tumour slices that it calls tumour. For a generator of tumour slices, "
            "and only where fd-random is low: shapeless slices may be called tumour too.",
            score.sensitivity,
            share=True,
            interval=wilson(called, len(made.slices)),
            section="tumours",
            remark=variety,
        ),
        *before,
        Measure(
            "classifier_accuracy",
            "the classifier's own accuracy",
            score.accuracy,
            "context",
            f"On {score.tumour} tumour and {score.normal} normal held-out slices (sensitivity "
            f"{100 * score.sensitivity:.0f} %, specificity {100 * score.specificity:.0f} %). "
            "Near 50 % the figure above says nothing.",
            share=True,
            interval=wilson(score.accuracy * asked, asked),
            section="tumours",
            over=f"{asked:,} held-out real slices",
        ),
    ]


def untranslated_calls(
    network: TumourClassifier, sources: Sources, *, known: bool
) -> list[Measure]:
    """The share of sources called tumour; known: the classifier was trained on all but held-out."""
    slices = sources.slices[sources.held_out] if known else sources.slices
    if len(slices) == 0:
        return []
    calls = int((network.predict_tumour(slices) >= 0.5).sum())
    kind = "held-out source slices, kept from its training" if known else "source slices"
    return [
        Measure(
            "called_tumour_untranslated",
            "their sources called tumour",
            calls / len(slices),
            "context",
            "What the same classifier calls the slices before they were translated"
            + (", of those that it was not trained on." if known else "."),
            share=True,
            interval=wilson(calls, len(slices)),
            section="tumours",
            over=f"{len(slices):,} {kind}",
        )
    ]


def utility_measures(
    labelled: SliceSet, tumour: Labels, made: SliceSet, seed: int
) -> list[Measure]:
    """The accuracy of a tumour classifier trained on real, on synthetic and on both.

    The synthetic slices are taken for tumour slices, beside real normal ones.
    """
    train, test = ~labelled.held_out, labelled.held_out
    need_test(labelled)
    found = tumour_utility(
        labelled.slices[train],
        tumour[train],
        made.slices,
        labelled.slices[test],
        tumour[test],
        seed,
        test_groups=None if labelled.groups is None else labelled.groups[test],
    )
    arms = (
        (
            "real",
            found.real,
            "real",
            "A tumour classifier trained on real tumour and real normal slices.",
        ),
        (
            "synthetic",
            found.synthetic,
            "synthetic",
            "Trained on synthetic tumour and real normal slices. Near the one trained on real "
            "slices (the reference), what the synthetic ones teach is true of real ones.",
        ),
        (
            "both",
            found.both,
            "both",
            "Trained on all of them. Above the reference, the synthetic slices add something.",
        ),
    )
    tested = (
        f"All are tested on the same {found.tumour} tumour and {found.normal} normal held-out real "
        f"slices; means of {found.seeds} networks."
    )
    over = f"{found.tumour + found.normal:,} held-out real slices"
    measures = [
        Measure(
            f"utility_{key}",
            f"trained on {name}: balanced accuracy",
            arm.balanced_accuracy,
            "context" if key == "real" else "higher",
            f"{text} {tested} Accuracy {100 * arm.accuracy:.1f} %, sensitivity "
            f"{100 * arm.sensitivity:.1f} %, specificity {100 * arm.specificity:.1f} %.",
            None if key == "real" else found.real.balanced_accuracy,
            share=True,
            interval=arm.balanced_interval,
            section="tumours",
            over=over,
        )
        for key, arm, name, text in arms
    ]
    gain = found.both_minus_real
    verdict = "leaves 0 out" if gain.shown else "holds 0: no use has been shown"
    measures.append(
        Measure(
            "utility_gain",
            "accuracy gained by synthetic slices",
            gain.value,
            "higher",
            "Of the tumour classifier trained on both, less that of the one trained on real slices "
            "alone, on the same test slices, of which every one counts the same (it is not "
            f"balanced). The interval {verdict}.",
            0.0,
            share=True,
            interval=gain.interval,
            section="tumours",
            over=over,
        )
    )
    return measures


def need_test(labelled: SliceSet) -> None:
    if not labelled.held_out.any():
        raise UsageError(f"{labelled.path}: no test slices to judge the classifier on")
