"""KID against its definition in a few lines, and against torch-fidelity and clean-fid."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmrigan.errors import UsageError
from fastmrigan.metrics.kid import kid, kid_subsets, u_statistics


def by_definition(a, b):
    """Binkowski et al. 2018, in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    within = [(kernel(x, x).sum() - kernel(x, x).trace()) / (len(x) ** 2 - len(x)) for x in (a, b)]
    return sum(within) - 2 * kernel(a, b).mean()


def sets(n, m, d, seed=0):
    """Two sets like rectified features: mostly positive, of order one, their means apart."""
    draws = np.random.default_rng(seed)
    a = np.abs(draws.normal(0.3, 0.5, (n, d)))
    return a.astype(np.float32), np.abs(draws.normal(0.4, 0.5, (m, d))).astype(np.float32)


@pytest.mark.parametrize(
    ("n", "m", "d", "tolerance"),
    [
        (2, 2, 1, 5e-7),
        (3, 9, 7, 5e-7),
        (200, 150, 64, 1e-8),
        (256, 257, 8, 1e-8),
        (1300, 600, 16, 1e-8),
        (660, 500, 512, 2e-9),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_equals_its_definition(n, m, d, tolerance, dtype):
    a, b = (x.astype(dtype) for x in sets(n, m, d))
    assert kid(a, b) == pytest.approx(by_definition(a, b), abs=tolerance)


def test_features_far_from_the_origin():
    """Where products in float32 alone would lose what the sets differ by."""
    a, b = (x + np.float32(30) for x in sets(300, 300, 32))
    expected = by_definition(a, b)
    assert kid(a, b) == pytest.approx(expected, rel=1e-6)
    scale = ((a.astype(float) @ b.T.astype(float) / 32 + 1) ** 3).mean()
    assert expected < 1e-3 * scale


def test_views_are_as_good_as_copies():
    a, b = sets(60, 50, 12)
    assert kid(a[::2, ::-1], b[:, ::-1]) == kid(a[::2, ::-1].copy(), b[:, ::-1].copy())


def test_unbiased():
    """Zero on average for one source, however few the rows; and well above for two."""
    same = [kid(*(x[:20] for x in np.split(sets(40, 2, 8, seed)[0], 2))) for seed in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    assert min(same) < 0
    one_source = np.split(sets(800, 2, 8)[0], 2)
    assert kid(*sets(400, 400, 8)) > 5 * abs(kid(*one_source))


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 9), m=st.integers(2, 9), d=st.integers(1, 6), seed=st.integers(0, 999))
def test_symmetric_and_blind_to_order(n, m, d, seed):
    a, b = sets(n, m, d, seed)
    order = np.random.default_rng(seed).permutation(n)
    value = kid(a, b)
    assert kid(b, a) == pytest.approx(value, abs=5e-7)
    assert kid(a[order], b) == pytest.approx(value, abs=5e-7)


def test_subsets_are_subsets():
    a, b = sets(700, 530, 16)
    draws = np.random.default_rng(5)
    rows = [[draws.choice(len(x), size, replace=False) for x in (a, b)] for size in (2, 40, 300)]
    in_a, in_b = np.zeros((3, 700), bool), np.zeros((3, 530), bool)
    for subset, (of_a, of_b) in enumerate(rows):
        in_a[subset, of_a] = in_b[subset, of_b] = True
    expected = [by_definition(a[of_a], b[of_b]) for of_a, of_b in rows]
    np.testing.assert_allclose(u_statistics(a, b, in_a, in_b), expected, atol=2e-7)


def test_subsets_scatter_round_the_whole():
    a, b = sets(600, 600, 16)
    mean, spread = kid_subsets(a, b, subsets=50, size=100, seed=3)
    assert (mean, spread) == kid_subsets(a, b, subsets=50, size=100, seed=3)
    assert (mean, spread) != kid_subsets(a, b, subsets=50, size=100, seed=4)
    assert mean == pytest.approx(kid(a, b), abs=3 * spread / np.sqrt(50))
    assert 0 < spread < mean
    assert kid_subsets(a, b, subsets=3, size=600) == (
        pytest.approx(kid(a, b), abs=1e-9),
        pytest.approx(0, abs=1e-12),
    )


def poisoned(value):
    x = np.zeros((5, 3), np.float32)
    x[2, 1] = value
    return x


@pytest.mark.parametrize("measure", [kid, kid_subsets])
@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (np.zeros((1, 3), np.float32), None, "the first set has 1 rows, pairs need at least 2"),
        (None, np.zeros((5, 4), np.float32), "same number of features, got 3 and 4"),
        (poisoned(np.nan), None, "the first set: NaN or infinity in row 2"),
        (None, poisoned(np.inf), "the second set: NaN or infinity in row 2"),
        (np.zeros(5, np.float32), None, r"the first set: expected floats \[N, d\], got .* \[5\]"),
        (np.zeros((5, 3), int), None, "the first set: expected floats"),
    ],
)
def test_errors(measure, a, b, text):
    good = np.zeros((5, 3), np.float32)
    with pytest.raises(UsageError, match=f"^{measure.__name__}: .*{text}"):
        measure(good if a is None else a, good if b is None else b)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"subsets": 0}, "subsets must be a whole number of at least 1, got 0"),
        ({"subsets": 1.5}, "subsets must be a whole number of at least 1, got 1.5"),
        ({"size": 1}, "size must be a whole number of at least 2, got 1"),
        ({"size": 6}, "100 subsets of 6 rows from sets of 5 and 5; take"),
        ({"size": 3, "seed": None}, "seed must be a whole number of at least 0, got None"),
    ],
)
def test_subset_errors(options, text):
    good = np.zeros((5, 3), np.float32)
    with pytest.raises(UsageError, match=f"^kid_subsets: {text}"):
        kid_subsets(good, good, **options)


@pytest.fixture
def peer(monkeypatch):
    """peer("clean_fid") is that peer's module, or the test skips."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    peers = importlib.import_module("peers")

    def find(name):
        try:
            return getattr(peers, name)()
        except ImportError as absent:
            pytest.skip(str(absent))

    return find


@pytest.mark.slow
def test_equals_torch_fidelity_on_its_own_subsets(peer):
    theirs = peer("torch_fidelity_kid")
    a, b = sets(400, 350, 64)
    options = {"kid_subsets": 6, "kid_subset_size": 120, "rng_seed": 11, "verbose": False}
    options |= {"kid_degree": 3, "kid_gamma": None, "kid_coef0": 1}
    found = theirs.kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), **options)

    stream = np.random.RandomState(11)  # it draws from its two sets in turn
    in_a, in_b = np.zeros((6, 400), bool), np.zeros((6, 350), bool)
    for subset in range(6):
        in_a[subset, stream.choice(400, 120, replace=False)] = True
        in_b[subset, stream.choice(350, 120, replace=False)] = True
    ours = u_statistics(a, b, in_a, in_b)
    assert found[theirs.KEY_METRIC_KID_MEAN] == pytest.approx(ours.mean(), rel=1e-4)
    assert found[theirs.KEY_METRIC_KID_STD] == pytest.approx(ours.std(), rel=1e-4)


@pytest.mark.slow
def test_equals_clean_fid_where_a_subset_is_everything(peer):
    a, b = sets(300, 300, 64)
    theirs = peer("clean_fid").kernel_distance
    assert theirs(a, b, num_subsets=2) == pytest.approx(kid(a, b), rel=1e-4)


def test_what_float32_products_cannot_hold_is_refused():
    huge = np.full((4, 8), 1e30, np.float32)
    with pytest.raises(UsageError, match="the first set has values above 1e15; scale both"):
        kid(huge, huge)
