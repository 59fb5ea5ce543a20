"""The classifier two-sample test on sets that are the same, and on sets that are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fastmrigan.errors import UsageError
from fastmrigan.metrics.two_sample import effective_count, p_of_chance, real_or_fake


def test_one_distribution_cannot_be_told_apart(make):
    slices = make.discs(240, 0, tumour=True)
    found = real_or_fake(slices[:120], slices[120:], seed=1, steps=25)
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.p_value > 0.01
    assert found.held_out_count == 120
    assert found.effective_count == 120


def checkered(slices):
    """The trace a transposed convolution leaves: every other pixel a little brighter."""
    y, x = np.indices(slices.shape[1:])
    return (slices + 0.06 * ((x + y) % 2 * 2 - 1)).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "steps", "change"),
    [
        (64, 60, lambda x: (0.9 * x - 0.1).astype(np.float32)),  # brightness is not hidden
        (64, 30, lambda x: np.roll(x, 8, axis=1)),
        (128, 40, checkered),  # gone at 64x64, still there in the roughness
    ],
    ids=["darker", "lower", "checkered"],
)
def test_another_distribution_is_told_apart(make, size, steps, change):
    slices = make.discs(160, 0, tumour=True, size=size)
    found = real_or_fake(slices[:80], change(slices[80:]), seed=0, steps=steps)
    assert found.accuracy >= 0.9
    assert found.interval[0] > 0.5
    assert found.p_value < 1e-6


def test_unequal_sets_are_asked_equally(make):
    slices = make.discs(100, 0, tumour=True)
    found = real_or_fake(slices[:80], slices[80:], steps=2)
    assert found.held_out_count == 20  # 10 of each


def test_groups_stay_on_one_side(make, monkeypatch):
    """Ten heads, each repeated 12 times: who has seen a head must not be asked about it."""
    heads = np.arange(10).repeat(12)
    slices = make.discs(10, 0, tumour=True)[heads]
    slices[:, 0, 0] = heads / 10 - 0.5  # the head's number, legible
    learnt, asked = [], []

    class Watched:
        def __init__(self, **_):
            pass

        def probability(self, slices):
            asked.append(slices[:, 0, 0])
            return np.full(len(slices), 0.7, np.float32)

    def fit(network, slices, labels, **_):
        learnt.extend([slices[labels, 0, 0], slices[~labels, 0, 0]])

    monkeypatch.setattr("fastmrigan.metrics.two_sample.SliceClassifier", Watched)
    monkeypatch.setattr("fastmrigan.metrics.two_sample.fit", fit)
    found = real_or_fake(slices, slices, real_groups=heads, made_groups=heads)
    for seen, unseen in zip(learnt, asked, strict=True):
        assert len(seen) == len(unseen) == 60
        assert not set(seen) & set(unseen)
    assert found.accuracy == 0.5
    assert found.effective_count == pytest.approx(10)  # 10 groups, of one answer each
    assert found.interval == pytest.approx(
        tuple(stats.binomtest(5, 10).proportion_ci(method="wilson"))
    )
    found = real_or_fake(slices, slices)
    assert found.effective_count == 120


def test_effective_count():
    draws = np.random.default_rng(0)
    alone = draws.random(1000) < 0.7
    assert effective_count(alone, np.arange(1000)) == pytest.approx(1000)
    repeated = alone[:100].repeat(10)
    assert effective_count(repeated, np.arange(100).repeat(10)) == pytest.approx(100)
    assert effective_count(np.ones(60, bool), np.arange(10).repeat(6)) == pytest.approx(10)
    assert effective_count(np.zeros(60, bool), np.arange(60)) == pytest.approx(60)


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (60, 100), (600, 1000), (4000, 4000)])
def test_p_equals_scipy(right, count):
    expected = stats.binomtest(right, count, 0.5, alternative="greater").pvalue
    assert p_of_chance(right, count) == pytest.approx(expected, rel=1e-9)


def test_seeded(make):
    slices = make.discs(40, 0, tumour=True)
    one, two, other = (
        real_or_fake(slices[:20], slices[20:], seed=seed, steps=3) for seed in (1, 1, 2)
    )
    assert one == two
    assert one.held_out_count == other.held_out_count == 20


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda x: dict(real=x[:7]),
            r"real set: expected float32 \[N, H, W\] with N >= 8, got .*\[7, 64",
        ),
        (lambda x: dict(made=x.astype(float)), "synthetic set: expected float32 .* got float64"),
        (lambda x: dict(made=x[:, :32]), r"one size, got \[64, 64\] and \[32, 64\]"),
        (
            lambda x: dict(real_groups=np.zeros(3)),
            r"real set: expected names of groups, an array \[20\], got float64 \[3\]",
        ),
        (
            lambda x: dict(real_groups=np.zeros(20)),
            "real set: expected at least two groups, got one",
        ),
    ],
)
def test_errors(make, change, text):
    slices = make.discs(20, 0, tumour=True)
    with pytest.raises(UsageError, match=text):
        real_or_fake(**dict(real=slices, made=slices) | change(slices))


def test_nan_is_refused():
    slices = np.zeros((16, 32, 32), np.float32)
    spoilt = slices.copy()
    spoilt[3, 4, 5] = np.nan
    with pytest.raises(UsageError, match="real_or_fake, real set: NaN"):
        real_or_fake(spoilt, slices)
