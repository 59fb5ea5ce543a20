"""Grey levels of one contrast to another's, found without pairs, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fastmrigan.training import tone
from fastmrigan.training.tone import KNOTS, SLICES, Tones, comparable, fit_tones, toned

SIZE = 32
T1 = (-1.0, -0.6, 0.1, 0.6)  # air, fluid, grey and white matter
T2 = (-1.0, 0.8, 0.1, -0.4)


def heads(levels: tuple[float, ...], seeds: range) -> torch.Tensor:
    """[N, 1, 32, 32]: a disc of white matter, a folded rim of grey matter, fluid around it and
    in the middle; each head folded in its own way."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
    found = []
    for seed in seeds:
        draws = np.random.default_rng(seed)
        folds = gaussian_filter(draws.normal(0, 1, (SIZE, SIZE)), 1.5) * 8
        radius = np.hypot(y, x)
        tissue = np.select(
            [radius > 14, radius < 3, radius + folds > 12, radius + folds > 9], [0, 1, 1, 2], 3
        )
        noise = draws.normal(0, 0.02, (SIZE, SIZE)) * (tissue > 0)
        found.append((np.array(levels)[tissue] + noise).clip(-1, 1))
    return torch.from_numpy(np.stack(found)[:, None].astype(np.float32))


@pytest.mark.parametrize(
    ("source", "target"), [(T1, T2), (T2, T1), (T1, T1)], ids=["forth", "back", "same"]
)
def test_tissues_find_their_grey_level(source, target):
    sides = heads(source, range(10)), heads(target, range(10, 22))
    tones = fit_tones(*sides, np.random.default_rng(0))
    assert tones.distance < tones.runner_up
    for knots, given, wanted in (
        (tones.to_target, source, target),
        (tones.to_source, target, source),
    ):
        assert knots.shape == (KNOTS,)
        made = toned(torch.tensor(given), knots)
        assert (made - torch.tensor(wanted)).abs().max() < 0.25, made


def test_both_curves_are_of_the_start_that_serves_both(monkeypatch):
    """By itself the way there would take the levels as they are: 0.30 to 0.32."""
    left = iter([0.30, 0.32, 0.40, 0.20])  # there, back; of each as they are, and turned round
    monkeypatch.setattr(tone, "patch_distance", lambda *slices: next(left))
    monkeypatch.setattr(tone, "fitted", lambda start, *sides: start)
    sides = heads(T1, range(2)), heads(T2, range(2))
    tones = fit_tones(*sides, np.random.default_rng(0))
    assert (tones.distance, tones.runner_up) == pytest.approx((0.52, 0.70))
    for knots in tones[:2]:
        assert toned(torch.tensor(0.5), knots) == -0.5


def test_the_curves_are_a_matter_of_the_seed():
    sides = heads(T1, range(4)), heads(T2, range(4, 8))
    first, again, other = (
        fit_tones(*sides, np.random.default_rng(seed)).to_target for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_straight_lines_between_knots():
    draws = np.random.default_rng(4)
    knots = draws.uniform(-1, 1, KNOTS)
    levels = np.concatenate([draws.uniform(-1, 1, 50), [-1, 1, 0]])
    found = toned(torch.from_numpy(levels), torch.from_numpy(knots).float())
    np.testing.assert_allclose(
        found, np.interp(levels, np.linspace(-1, 1, KNOTS), knots), atol=1e-6
    )


def test_as_many_slices_of_both_small_enough():
    source, target = torch.rand(90, 1, 128, 128), torch.rand(70, 1, 128, 128)
    draws = np.random.default_rng(0)
    assert [side.shape for side in comparable(source, target, draws)] == [(SLICES, 1, 64, 64)] * 2
    assert [len(side) for side in comparable(source[:3], target, draws)] == [3, 3]
    assert comparable(source[:1, :, :16, :16], target, draws)[0].shape == (1, 1, 16, 16)


def test_of_a_paired_set_no_twins_are_sought_out():
    slices = torch.arange(99.0).view(-1, 1, 1, 1).repeat(1, 1, 16, 16)
    found = comparable(slices, slices, np.random.default_rng(0))
    source, target = ([int(each[0, 0, 0]) for each in side] for side in found)
    assert len(set(source)) == len(set(target)) == SLICES  # each once
    assert set(source) != set(target)


def test_doubt_where_two_curves_are_as_near():
    knots = torch.zeros(KNOTS)
    assert Tones(knots, knots, 0.4, 0.45).doubtful
    assert not Tones(knots, knots, 0.4, 0.48).doubtful
