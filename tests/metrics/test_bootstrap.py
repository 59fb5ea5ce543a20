"""Intervals against SciPy's, and coverage by simulation where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fastmrigan.errors import UsageError
from fastmrigan.metrics.bootstrap import frechet_interval, interval, jackknife, wilson
from fastmrigan.metrics.frechet import frechet_distance


def skewed(count, seed):
    return np.random.default_rng(seed).gamma(1.5, 1.0, count)


@pytest.mark.parametrize(("method", "theirs"), [("percentile", "percentile"), ("bca", "BCa")])
@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(
    ("statistic", "samples"),
    [
        (lambda a: a.mean(), (skewed(60, 0),)),
        (lambda a: a.std(), (skewed(60, 1),)),
        (lambda a, b: a.mean() / b.mean(), (skewed(50, 2), skewed(80, 3))),
    ],
)
def test_equals_scipy(method, theirs, level, statistic, samples):
    expected = stats.bootstrap(
        samples, statistic, n_resamples=6000, confidence_level=level, method=theirs,
        vectorized=False, rng=np.random.default_rng(1),
    )  # fmt: skip
    found = interval(statistic, *samples, draws=6000, level=level, seed=2, method=method)
    np.testing.assert_allclose(
        found, expected.confidence_interval, atol=0.25 * expected.standard_error
    )


def test_rows_stay_whole_and_sets_are_drawn_apart():
    """Pairs in the columns of one array keep their difference; two arrays do not."""
    a = np.random.default_rng(0).normal(0, 10, 100)
    pairs = np.column_stack([a, a + 1])
    low, high = interval(lambda x: (x[:, 1] - x[:, 0]).mean(), pairs)
    assert low == pytest.approx(1)
    assert high == pytest.approx(1)
    low, high = interval(lambda x, y: y.mean() - x.mean(), a, a + 1)
    assert high - low > 2


def test_seeded_and_of_the_asked_level():
    a = skewed(100, 0)
    assert interval(np.mean, a, seed=3) == interval(np.mean, a, seed=3)
    assert interval(np.mean, a, seed=3) != interval(np.mean, a, seed=4)
    narrow, wide = (interval(np.mean, a, level=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def heads(seed, groups=30, each=6):
    """Rows of groups that share most of their value: [180] and their groups."""
    draws = np.random.default_rng(seed)
    shared = draws.normal(0, 1, groups).repeat(each)
    return shared + draws.normal(0, 0.2, groups * each), np.arange(groups).repeat(each)


@pytest.mark.parametrize("tool", ["bootstrap", "jackknife"])
def test_groups_are_drawn_whole(tool):
    """The mean of 30 heads of 6 slices is known as well as 30 slices say, not 180."""
    covered = dict.fromkeys(("grouped", "single"), 0)
    for seed in range(80):
        rows, group = heads(seed)
        for name, groups in (("grouped", [group]), ("single", None)):
            if tool == "bootstrap":
                low, high = interval(np.mean, rows, draws=100, seed=seed, groups=groups)
            else:
                low, high = jackknife(np.mean, rows, groups=groups, blocks=30).interval()
            covered[name] += low <= 0 <= high
    assert covered["grouped"] >= 0.86 * 80
    assert covered["single"] <= 0.75 * 80


def test_jackknife_of_a_mean_is_the_textbook_error():
    a = skewed(50, 0)
    found = jackknife(np.mean, a, blocks=50)
    assert found.value == a.mean()
    assert found.error == pytest.approx(a.std(ddof=1) / 50**0.5)
    assert found.bias == pytest.approx(0, abs=1e-12)
    reach = stats.t.ppf(0.975, 49) * found.error
    np.testing.assert_allclose(found.interval(), (a.mean() - reach, a.mean() + reach))


def test_jackknife_bias_of_the_plain_variance():
    """var with division by n is low by var / n: the jackknife finds exactly that."""
    a = skewed(50, 0)
    found = jackknife(np.var, a, blocks=50)
    assert found.value - found.bias == pytest.approx(a.var(ddof=1))


def gaussians(seed, n, d):
    """Two Gaussian samples, [n, d] each, of a known distance: `known(d)`."""
    draws = np.random.default_rng(seed)
    return draws.normal(0, 1, (n, d)), draws.normal(0.3, 1.3, (n, d))


def known(d):
    return d * (0.3**2 + 0.3**2)


def share_covered(truth, intervals):
    return np.mean([low <= truth <= high for low, high in intervals])


def test_frechet_coverage_of_the_known_distance():
    """300 rows of 8 features: the value is 10 % too high, which is two of its standard errors."""
    sets = [gaussians(seed, 300, 8) for seed in range(100)]
    found = [jackknife(frechet_distance, *pair, blocks=20) for pair in sets]
    assert share_covered(known(8), [one.unbiased_interval() for one in found]) >= 0.9
    assert share_covered(known(8), [one.unbiased_interval(0.8) for one in found]) < 0.92
    unbiased = np.array([one.value - one.bias for one in found])
    noise = unbiased.std() / len(sets) ** 0.5
    assert abs(unbiased.mean() - known(8)) < 3 * noise
    assert np.mean([one.value for one in found]) > known(8) + 5 * noise
    assert np.mean([one.error for one in found]) == pytest.approx(unbiased.std(), rel=0.3)


@pytest.mark.parametrize(("n", "d"), [(300, 8), (60, 100)], ids=["full rank", "rank-deficient"])
def test_frechet_coverage_at_this_sample_size(n, d):
    """The interval that stands beside a printed distance, also where d exceeds n."""
    mean = np.mean([frechet_distance(*gaussians(seed, n, d)) for seed in range(1000, 1150)])
    found = [frechet_interval(*gaussians(seed, n, d)) for seed in range(60)]
    assert share_covered(mean, found) >= 0.85


def test_the_plain_bootstrap_does_not_cover_a_frechet_distance():
    """Why there is a jackknife: with rows drawn twice the distance grows, most where d > n."""
    mean = np.mean([frechet_distance(*gaussians(seed, 60, 100)) for seed in range(1000, 1100)])
    found = [
        interval(frechet_distance, *gaussians(seed, 60, 100), draws=40, seed=seed)
        for seed in range(15)
    ]
    assert share_covered(mean, found) <= 0.2


def test_identical_sets():
    a = gaussians(0, 60, 4)[0]
    low, high = frechet_interval(a, a)
    assert low == 0
    assert 0 <= high < 0.3


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (1, 1), (37, 120), (600, 1000)])
def test_wilson_equals_scipy(right, count, level):
    expected = stats.binomtest(right, count).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(
        wilson(right, count, level), (expected.low, expected.high), atol=1e-12
    )


@pytest.mark.parametrize("count", [7, 445, 2000])
def test_wilson_reaches_both_ends(count):
    assert wilson(0, count)[0] == 0  # not 1e-19, which a table would print
    assert wilson(count, count)[1] == 1


def test_fewer_rows_than_blocks():
    found = jackknife(np.mean, skewed(5, 0))
    assert found.blocks == 5


def different(rows):
    """Less for every row held twice, as no bootstrap sample can avoid."""
    return float(len(np.unique(rows)))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: interval(np.mean), "expected arrays with rows"),
        (lambda: interval(np.mean, np.empty(0)), "expected arrays with rows"),
        (lambda: interval(np.mean, np.ones(3), draws=1), "at least 2 draws, got 1"),
        (lambda: interval(np.mean, np.ones(3), level=95), "level is 95, expected above 0"),
        (lambda: interval(np.mean, np.ones(3), method="basic"), "method is 'basic'"),
        (
            lambda: interval(np.mean, np.ones(3), groups=[np.ones(2)]),
            r"groups, an array \[3\], got float64 \[2\]",
        ),
        (lambda: interval(np.mean, np.ones(3), groups=[]), "1 arrays, but groups for 0"),
        (lambda: interval(different, np.arange(20), method="bca"), "every draw lies on one side"),
        (lambda: jackknife(np.mean, np.ones(1)), "at least 2 blocks"),
        (lambda: jackknife(np.mean, np.ones(9), groups=[np.ones(9)]), "at least 2 blocks"),
        (lambda: wilson(3, 2), "got 3 of 2"),
        (lambda: wilson(0, 0), "got 0 of 0"),
    ],
)
def test_errors(call, text):
    with pytest.raises(UsageError, match=text):
        call()
