"""What lies between two sets without a network: the curves, the moves and the draws themselves."""

import numpy as np
import pytest
import results_limits as limits
from skimage.exposure import match_histograms

from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.frechet import frechet


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


def test_a_spot_lies_within_its_head_and_is_brighter():
    before = np.stack([disc(20, 30, 34)] * 40)
    after = limits.with_spots(before, np.random.default_rng(0))
    change = after - before
    assert (change[before < 0] == 0).all()
    assert (change.max((1, 2)) > 0.19).all()
    assert change.min() >= 0
    assert after.max() <= 1
    places = np.array([np.argwhere(x == x.max()).mean(0) for x in change])
    assert (np.hypot(*(places - (29.5, 33.5)).T) < 0.6 * 20 + 1.5).all()
    assert (places.std(0) > 3).all()  # all over the head


def test_a_nudge_moves_whole_pixels():
    before = np.stack([disc(16, 32, 32)] * 400)
    after = limits.nudged(before, np.random.default_rng(0))
    heads = np.array([limits.head(x)[:2] for x in after])
    np.testing.assert_array_equal(np.sort(after, None), np.sort(before, None))
    np.testing.assert_allclose(heads.mean(0), 32, atol=0.3)
    np.testing.assert_allclose(heads.std(0), 2, atol=0.2)


def test_a_slice_of_air_has_a_head_of_the_frame():
    assert limits.head(np.full((64, 64), -1, np.float32)) == (32, 32, 64, 64)


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
    slices = np.where(slices > 0, np.linspace(0, 0.7, 64, dtype=np.float32), slices)  # tissue
    rows = dict(limits.rows_of(slices, slices, slices, slices[::-1].copy(), 3))
    assert list(rows) == [
        "untranslated",
        "one curve",
        "a curve each",
        "and moved",
        "and nudged",
        "and spots",
        "translated",
    ]
    assert rows["untranslated"][0].distance == pytest.approx(0, abs=1e-6)
    assert rows["translated"][0].distance == pytest.approx(0, abs=1e-6)
    for name in ("and moved", "and nudged", "and spots"):
        assert len(rows[name]) == 3
        for one in rows[name]:
            assert one.distance > 1e-5
            assert one.distance == pytest.approx(one.means + one.covariances)
    painted = limits.with_spots(slices, np.random.default_rng(0))
    spots = frechet(*(random_features(x, shown=False) for x in (painted, slices)))
    assert rows["and spots"][0].distance < spots.distance  # the curve takes the brightness back
