"""What lies between two sets without a network: the curves, the moves and the draws themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
import results_limits as limits
import results_patients
from prepare_inputs import folder, in_process
from skimage.exposure import match_histograms

from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.frechet import frechet
from fastmrigan.metrics.slice_sets import SliceSet


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
    inner = np.hypot(*(places - (29.5, 33.5)).T) < 0.3 * 20
    assert 0.08 < inner.mean() < 0.45  # a quarter of the disc
    brightest = change.max((1, 2))
    assert brightest.min() < 0.35
    assert brightest.max() == pytest.approx(0.5)  # as bright as can be
    areas = (change > brightest[:, None, None] / 2).sum((1, 2))
    assert areas.max() > 3 * areas.min()


def test_a_nudge_moves_whole_pixels():
    before = np.stack([disc(16, 32, 32)] * 400)
    after = limits.nudged(before, np.arange(400), np.random.default_rng(0))
    heads = np.array([limits.head(x)[:2] for x in after])
    np.testing.assert_array_equal(np.sort(after, None), np.sort(before, None))
    np.testing.assert_allclose(heads.mean(0), 32, atol=0.3)
    np.testing.assert_allclose(heads.std(0), 2, atol=0.2)
    assert abs(np.corrcoef(heads.T)[0, 1]) < 0.1  # down by another step than across


def test_slices_of_a_head_are_nudged_alike():
    groups = np.tile([5, 3, 9, 9], 10)
    after = limits.nudged(np.stack([disc(16, 32, 32)] * 40), groups, np.random.default_rng(0))
    assert len({x.tobytes() for x in after}) == 3
    for name in (3, 5, 9):
        assert len({x.tobytes() for x in after[groups == name]}) == 1


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


def slice_set(slices, held_out=0):
    count = len(slices)
    return SliceSet(
        Path(), slices, np.arange(count) >= count - held_out, groups=np.arange(count) // 4
    )


def tissue(count, seed):
    """Discs whose greys rise to the right."""
    draws = np.random.default_rng(seed)
    discs = [disc(*draws.uniform((10, 24, 30), (18, 30, 38))) for _ in range(count)]
    return np.stack([np.where(x > 0, np.linspace(0, 0.7, 64, dtype=np.float32), x) for x in discs])


def distance(slices, others):
    return frechet(*(random_features(x, shown=False) for x in (slices, others))).distance


def test_rows_against_the_same_by_hand():
    normals, tumours, made = tissue(40, 0) * 0.8 - 0.1, tissue(60, 1), tissue(50, 2)
    rows = dict(limits.rows_of(slice_set(normals, 4), slice_set(tumours, 20), made, 2))
    train, train_tumours = normals[:-4], tumours[:-20]
    curved = limits.on_quantiles(train, train, train_tumours)
    by_hand = {"untranslated": [train], "one curve": [curved], "translated": [made]}
    by_seed = {
        "a curve each": lambda by: limits.a_curve_each(train, train_tumours, by),
        "and moved": lambda by: limits.of_size_and_place(curved, train_tumours, by),
        "and nudged": lambda by: limits.nudged(curved, np.arange(36), by),
        "heads nudged": lambda by: limits.nudged(curved, np.arange(36) // 4, by),
    }
    for name, slices in by_seed.items():
        by_hand[name] = [slices(np.random.default_rng(seed)) for seed in range(2)]
    spots = [limits.with_spots(train, np.random.default_rng(seed)) for seed in range(2)]
    by_hand["and spots"] = [limits.on_quantiles(x, x, train_tumours) for x in spots]
    assert rows.keys() == by_hand.keys()
    for name, slices in by_hand.items():
        expected = [distance(x, tumours) for x in slices]
        assert [one.distance for one in rows[name]] == pytest.approx(expected), name
        assert len(set(expected)) == len(expected)
        for one in rows[name]:
            assert one.distance == pytest.approx(one.means + one.covariances)


def test_both_commands_on_a_prepared_set(tmp_path, capsys, monkeypatch):
    """From pictures to figures: which slices count, whose they are, and the median of draws."""
    in_process(monkeypatch)
    options = PrepareOptions(size=32, group_pattern=r"head\d*(\d)_", test_fraction=0.25)
    prepare(folder(tmp_path / "src", 96), tmp_path / "set", options)
    for script in (limits, results_patients):
        given = ["x", str(tmp_path / "set"), "--draws", "3", "--json", str(tmp_path / "told.json")]
        monkeypatch.setattr("sys.argv", given)
        assert script.main() == 0
        told = json.loads((tmp_path / "told.json").read_text())
        printed = capsys.readouterr().out
        for name in told["rows"]:
            assert f"\n{name} " in printed
        if script is limits:
            normals, tumours = limits.two_classes(tmp_path / "set")
            made = dict(limits.rows_of(normals, tumours, None, 3))
            for name, one in told["rows"].items():
                distances = [parts.distance for parts in made[name]]
                assert one["distance"] == pytest.approx(np.median(distances))
                assert (one["least"], one["most"]) == pytest.approx(
                    (min(distances), max(distances))
                )
        else:
            classes = results_patients.classes_of(tmp_path / "set")
            assert told["normals"]["slices"] == len(normals.train) < len(normals.slices)
            assert told["tumours"]["slices"] == len(tumours.slices) == 64
            curved = limits.on_quantiles(normals.train, normals.train, tumours.train)
            np.testing.assert_array_equal(
                classes["curved"].features, random_features(curved, shown=False)
            )
            middle = np.median(told["rows"]["patients, drawn"])
            assert f"{'patients, drawn':24}{middle:.4f}" in printed


def test_sets_that_say_nothing_are_refused_in_one_line(tmp_path, capsys, monkeypatch):
    in_process(monkeypatch)
    source = folder(tmp_path / "src", 12)
    prepare(source, tmp_path / "none", PrepareOptions(size=32))
    each = PrepareOptions(size=32, group_pattern=r"(slice\d+)")
    prepare(source, tmp_path / "each", each)
    for script, path, told in (
        (limits, "none", "patients are unknown; prepare it with --groups"),
        (results_patients, "each", "each patient has one slice, which says nothing of patients"),
        (limits, "absent", "not a prepared data set"),
    ):
        monkeypatch.setattr("sys.argv", ["x", str(tmp_path / path)])
        capsys.readouterr()
        assert script.main() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{tmp_path / path}: {told}")
