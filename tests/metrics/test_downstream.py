"""Train on synthetic, test on real: with useful, useless and harmful synthetic slices."""

from __future__ import annotations

import numpy as np
import pytest

from fastmrigan.errors import UsageError
from fastmrigan.metrics import downstream
from fastmrigan.metrics.downstream import tumour_utility


def world(make, tumour, normal, test=60):
    """Few real slices to learn from, and 2 x test to be judged on."""

    def both(counts, seed):
        slices = np.concatenate(
            [
                make.discs(counts[0], seed, tumour=True),
                make.discs(counts[1], seed + 1, tumour=False),
            ]
        )
        return slices, np.arange(len(slices)) < counts[0]

    return (*both((tumour, normal), 10), *both((test, test), 20))


@pytest.fixture(scope="module")
def useful(make):
    real, labels, test, truth = world(make, 40, 40)
    made = make.discs(40, 30, tumour=True)
    return tumour_utility(real, labels, made, test, truth, seed=0, seeds=1, steps=25)


def test_good_synthetic_slices_replace_real_ones(useful):
    assert useful.real.accuracy >= 0.85
    assert useful.synthetic.accuracy >= 0.85
    assert useful.both.accuracy >= 0.85
    assert (useful.tumour, useful.normal, useful.seeds) == (60, 60, 1)


def test_the_figures_belong_together(useful):
    for judged in (useful.real, useful.synthetic, useful.both):
        assert judged.interval[0] <= judged.accuracy <= judged.interval[1]
        half = (judged.sensitivity + judged.specificity) / 2
        assert judged.balanced_accuracy == pytest.approx(half)
        assert judged.accuracy == pytest.approx(half)  # as many of both
        assert judged.balanced_interval == pytest.approx(judged.interval)
    for name, difference in (
        ("both", useful.both_minus_real),
        ("synthetic", useful.synthetic_minus_real),
    ):
        gap = getattr(useful, name).accuracy - useful.real.accuracy
        assert difference.value == pytest.approx(gap)
        assert difference.interval[0] <= gap <= difference.interval[1]


@pytest.mark.slow
def test_synthetic_slices_without_tumours_are_no_substitute(make):
    real, labels, test, truth = world(make, 40, 40)
    made = make.discs(40, 30, tumour=False)
    found = tumour_utility(real, labels, made, test, truth, seed=0, seeds=1, steps=25)
    assert found.synthetic.accuracy < 0.7 < found.real.accuracy
    assert found.synthetic_minus_real.value < -0.15
    assert found.synthetic_minus_real.shown
    assert found.real.seed_spread == 0


class Fixed:
    """A classifier that gives what it was told, whatever it learned from."""

    def __init__(self, answers):
        self.answers = answers

    def predict_tumour(self, slices):
        return self.answers[: len(slices)].astype(np.float32)


def test_intervals_by_hand(make, monkeypatch):
    """The interval of a difference is paired: slices that all kinds get wrong cancel out."""
    draws = np.random.default_rng(0)
    count = 400
    truth = np.arange(count) < 200
    hard = draws.random(count) < 0.4
    real_right, both_right = ~hard, ~hard | (np.arange(count) % 20 == 0)
    calls = []

    def train(slices, labels, *, seed, steps):
        calls.append((len(slices), int(labels.sum()), seed))
        right = both_right if len(slices) == 25 else real_right
        return Fixed(np.where(right, truth, ~truth))

    monkeypatch.setattr(downstream, "train_tumour_classifier", train)
    real, labels = np.zeros((15, 16, 16), np.float32), np.arange(15) < 5
    made, test = np.zeros((10, 16, 16), np.float32), np.zeros((count, 16, 16), np.float32)
    found = tumour_utility(real, labels, made, test, truth, seed=3, seeds=2)
    assert calls == [
        (15, 5, 3), (15, 5, 4),  # real tumour, real normal
        (20, 10, 3), (20, 10, 4),  # synthetic tumour, real normal
        (25, 15, 3), (25, 15, 4),  # both
    ]  # fmt: skip
    gain = both_right.astype(float) - real_right
    assert found.both_minus_real.value == pytest.approx(gain.mean())
    reach = 1.96 * gain.std() / count**0.5
    low, high = found.both_minus_real.interval
    np.testing.assert_allclose((low, high), (gain.mean() - reach, gain.mean() + reach), atol=0.004)
    assert found.both_minus_real.shown
    reach = 1.96 * (0.6 * 0.4 / count) ** 0.5
    assert found.real.interval[1] - found.real.interval[0] == pytest.approx(2 * reach, rel=0.15)
    assert not found.synthetic_minus_real.shown  # the same answers: exactly 0
    assert found.synthetic_minus_real.interval == (0, 0)

    heads = np.arange(count) // 20 + 20 * hard  # right or wrong as a head
    grouped = tumour_utility(real, labels, made, test, truth, seed=3, seeds=2, test_groups=heads)
    assert grouped.real.accuracy == found.real.accuracy
    assert grouped.real.interval[1] - grouped.real.interval[0] > 1.5 * (
        found.real.interval[1] - found.real.interval[0]
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda w: dict(real_tumour=w["real_tumour"] | True),
            "real set: .* 8 tumour and 0 norm",
        ),
        (
            lambda w: dict(test_tumour=w["test_tumour"] & False),
            "test set: .* 0 tumour and 8 nor",
        ),
        (lambda w: dict(test_tumour=w["test_tumour"][:3]), r"test set: expected .*bool \[3\]"),
        (
            lambda w: dict(synthetic_tumour=w["test_slices"][:0]),
            r"synthetic slices: .* N >= 1, got .* \[0, 64",
        ),
        (
            lambda w: dict(synthetic_tumour=w["test_slices"][:, :32]),
            r"\[64, 64\] \(real\), \[32, 64\] \(synthetic\)",
        ),
        (
            lambda w: dict(test_groups=np.zeros(3)),
            r"test set: .* an array \[8\], got float64 \[3\]",
        ),
    ],
)
def test_errors(make, change, text):
    real, labels, test, truth = world(make, 4, 4, 4)
    given = dict(
        real_slices=real, real_tumour=labels, synthetic_tumour=test[:4], test_slices=test,
        test_tumour=truth,
    )  # fmt: skip
    with pytest.raises(UsageError, match=text):
        tumour_utility(**given | change(given))
