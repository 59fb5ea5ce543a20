"""Precision, recall, density and coverage against their definitions and against prdc."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmrigan.errors import UsageError
from fastmrigan.metrics import manifold
from fastmrigan.metrics.manifold import precision_recall_density_coverage


def by_definition(real, made, k):
    """Kynkäänniemi et al. 2019 and Naeem et al. 2020, point by point."""
    x, y = real.astype(np.float64), made.astype(np.float64)

    def distances(p, q):
        return np.sqrt(((p[:, None] - q[None]) ** 2).sum(2))

    radius_x, radius_y = (np.sort(distances(p, p), axis=1)[:, k] for p in (x, y))
    apart = distances(x, y)  # [N, M]
    inside = apart < radius_x[:, None]
    recall = (apart < radius_y[None]).any(1).mean()
    return inside.any(0).mean(), recall, inside.sum(0).mean() / k, inside.any(1).mean()


def sets(n, m, d, seed=0, spread=0.7):
    draws = np.random.default_rng(seed)
    real = draws.normal(0, 1, (n, d)).astype(np.float32)
    return real, draws.normal(0.3, spread, (m, d)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m", "d"), [(6, 7, 1), (60, 45, 3), (40, 90, 64)])
@pytest.mark.parametrize("block", [4_000_000, 100, 1])
def test_equals_its_definition(monkeypatch, n, m, d, k, block):
    monkeypatch.setattr(manifold, "BLOCK_ENTRIES", block)
    real, made = sets(n, m, d)
    found = precision_recall_density_coverage(real, made, k=k)
    np.testing.assert_allclose(found, by_definition(real, made, k), rtol=1e-12)
    assert all(isinstance(value, float) for value in found)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(6, 20), m=st.integers(6, 20), d=st.integers(1, 5), seed=st.integers(0, 999))
def test_blind_to_order_and_to_where_the_origin_lies(n, m, d, seed):
    real, made = (x.astype(np.float64) for x in sets(n, m, d, seed))
    found = precision_recall_density_coverage(real, made)
    order = np.random.default_rng(seed).permutation(n)
    moved = precision_recall_density_coverage(real[order] + 4096, made + 4096)
    np.testing.assert_allclose(moved, found, rtol=1e-12)
    swapped = precision_recall_density_coverage(made, real)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


@pytest.mark.parametrize("scale", [1e-200, 1e-80, 1e80, 1e200, 1e307])
def test_blind_to_the_scale(scale):
    real, made = (x.astype(np.float64) for x in sets(40, 30, 5))
    found = precision_recall_density_coverage(scale * real, scale * made)
    assert found == precision_recall_density_coverage(real, made)
    assert 0 < found.recall < 1


def test_what_they_tell_apart():
    real, alike = sets(400, 400, 8, spread=1)
    alike = alike - np.float32(0.3)
    good = precision_recall_density_coverage(real, alike)
    assert min(good) > 0.7
    assert good.density == pytest.approx(1, abs=0.2)
    far = precision_recall_density_coverage(real, alike + 50)
    assert far == (0, 0, 0, 0)
    copies = precision_recall_density_coverage(real, real)
    assert (copies.precision, copies.recall, copies.coverage) == (1, 1, 1)
    one = np.random.default_rng(1).normal(0, 1e-3, (400, 8)).astype(np.float32)
    collapsed = precision_recall_density_coverage(real, one)
    assert collapsed.precision > 0.9
    assert collapsed.recall == 0
    assert collapsed.coverage < 0.5


def test_one_outlier_lifts_recall_and_not_coverage():
    real, made = sets(300, 300, 4, spread=0.05)
    before = precision_recall_density_coverage(real, made)
    made[:6] = 40 * np.random.default_rng(0).normal(0, 1, (6, 4))  # balls as wide as everything
    after = precision_recall_density_coverage(real, made)
    assert after.recall > before.recall + 0.5
    assert abs(after.coverage - before.coverage) < 0.05


@pytest.mark.parametrize(
    ("real", "made", "k", "text"),
    [
        (np.zeros((5, 2)), None, 5, "the real set has 5 rows, 5 neighbours need at least 6"),
        (None, np.zeros((3, 2)), 3, "the made set has 3 rows, 3 neighbours need at least 4"),
        (None, np.zeros((9, 3)), 5, "same number of features, got 2 and 3"),
        (np.full((9, 2), np.nan), None, 5, "the real set: NaN or infinity in row 0"),
        (np.zeros(9), None, 5, r"the real set: expected floats \[N, d\], got float64 \[9\]"),
        (None, np.zeros((9, 2), int), 5, "the made set: expected floats"),
        (None, None, 0, "k must be a whole number of at least 1, got 0"),
    ],
)
def test_errors(real, made, k, text):
    good = np.zeros((9, 2))
    with pytest.raises(UsageError, match=f"^precision_recall_density_coverage: .*{text}"):
        precision_recall_density_coverage(
            good if real is None else real, good if made is None else made, k=k
        )


@pytest.mark.slow
@pytest.mark.parametrize("k", [3, 5])
def test_equals_prdc(monkeypatch, k):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    try:
        prdc = importlib.import_module("peers").prdc()
    except ImportError as absent:
        pytest.skip(str(absent))
    real, made = (x.astype(np.float64) for x in sets(500, 400, 32))
    theirs = prdc.compute_prdc(real, made, nearest_k=k)
    found = precision_recall_density_coverage(real, made, k=k)
    for name, value in theirs.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12)
