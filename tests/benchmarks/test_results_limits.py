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


def test_what_is_there_and_where_it_is():
    """Quadrants that change places leave what is there as it is."""
    draws = np.random.default_rng(0)
    features = draws.normal(0, 1, (7, 464)).astype(np.float32)
    what, where = limits.what_and_where(features)
    np.testing.assert_allclose(
        (what**2).sum(1) + (where**2).sum(1), (features**2).sum(1), rtol=1e-4
    )
    turned = features.copy()
    turned[:, 208:] = turned[:, 208:].reshape(7, 64, 4)[:, :, [1, 3, 0, 2]].reshape(7, 256)
    np.testing.assert_allclose(limits.what_and_where(turned)[0], what, atol=1e-5)
    assert not np.allclose(limits.what_and_where(turned)[1], where)


def test_rows_of_slices_that_are_the_tumours_themselves():
    slices = np.stack([disc(10 + i % 9, 24 + i % 5, 30 + i % 7) for i in range(60)])
    rows = dict(limits.rows_of(slices, slices, slices, slices[::-1].copy(), 3))
    assert list(rows) == [
        "untranslated",
        "one curve",
        "a curve each",
        "and moved",
        "the count",
        "translated",
    ]
    assert rows["untranslated"][0].distance == pytest.approx(0, abs=1e-6)
    assert rows["translated"][0].distance == pytest.approx(0, abs=1e-6)
    assert len(rows["and moved"]) == len(rows["the count"]) == 3
    assert min(rows["the count"]).distance > 1e-5
    for one in rows["and moved"]:
        assert one.distance == pytest.approx(one.means + one.covariances)
