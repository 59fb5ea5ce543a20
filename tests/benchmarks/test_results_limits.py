"""What lies between two sets without a network: the curves, the moves and the draws themselves."""

import numpy as np
import pytest
import results_limits as limits
from skimage.exposure import match_histograms


def disc(radius, row, column, size=64):
    y, x = np.mgrid[:size, :size] + 0.5
    return np.where((y - row) ** 2 + (x - column) ** 2 < radius**2, 0.5, -1).astype(np.float32)


def test_a_curve_puts_quantiles_on_quantiles():
    draws = np.random.default_rng(0)
    source, target = draws.normal(-0.2, 0.1, (4, 64, 64)), draws.uniform(-1, 1, (3, 64, 64))
    curved = limits.on_quantiles(source, source, target)
    expected = match_histograms(source, target)
    np.testing.assert_allclose(curved, expected, atol=0.02)
    each = limits.a_curve_each(source, target, draws)
    np.testing.assert_allclose(np.quantile(each, 0.3, (1, 2)), -0.4, atol=0.05)


@pytest.mark.parametrize("like", [disc(20, 32, 32), disc(12, 24, 40)])
def test_a_head_takes_the_size_and_place_of_another(like):
    moved = limits.of_size_and_place(disc(16, 30, 28)[None], like[None], np.random.default_rng(0))
    assert np.abs(moved[0] - like).mean() < 0.02  # the rim alone, by interpolation
    np.testing.assert_allclose(limits.head(moved[0]), limits.head(like), atol=2)


def test_a_slice_of_air_has_a_head_of_the_frame():
    assert limits.head(np.full((64, 64), -1, np.float32)) == (32, 32, 64, 64)


def test_the_count_is_drawn_from_the_features_own_distribution():
    draws = np.random.default_rng(0)
    features = draws.normal(0, 1, (5000, 3)) @ np.array([[1, 2, 0], [0, 1, 1], [0, 0, 0.5]]) + 4
    rows = limits.of_the_count(20_000, features, draws)
    np.testing.assert_allclose(rows.mean(0), features.mean(0), atol=0.06)
    np.testing.assert_allclose(np.cov(rows.T), np.cov(features.T), atol=0.2)
