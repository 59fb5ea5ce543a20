"""Distances in a space of features: their intervals and what stands beside them."""

import numpy as np
import pytest

from fastmrigan.metrics import spaces
from fastmrigan.metrics.bootstrap import jackknife
from fastmrigan.metrics.kid import kid
from fastmrigan.metrics.spaces import Space


def space(real, made, groups=None):
    return Space("fid", "FID", "kid", "KID", "features", real, made, groups)


def drawn(seed, count=120, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (count, 6)).astype(np.float32)


@pytest.mark.parametrize("groups", [None, np.arange(120) // 3])
def test_kid_leaves_out_a_block_at_a_time(groups):
    real, made = drawn(0), drawn(1, 90, 0.4)
    found = spaces.kid_jackknife(space(real, made, groups), kid(real, made), seed=5)
    slow = jackknife(kid, real, made, seed=5, groups=[groups, None])
    assert found.blocks == slow.blocks == 40
    # The blocks are dealt otherwise, so errors agree as far as 40 blocks tell them.
    assert found.error == pytest.approx(slow.error, rel=0.5)
    assert found.bias == pytest.approx(0, abs=0.3 * found.error)  # KID is unbiased
    one_row_a_block = spaces.kid_jackknife(space(real[:9], made[:9]), kid(real[:9], made[:9]), 5)
    exact = jackknife(kid, real[:9], made[:9], blocks=9)
    assert one_row_a_block.blocks == exact.blocks == 9


def test_intervals_cover_what_is_true():
    """Of 40 draws of the same two sources the interval holds the mean value nearly always."""
    found = []
    for seed in range(40):
        pair = space(drawn(seed), drawn(1000 + seed, shift=0.3))
        kernel = spaces.kernel_measures(pair, seed)[0]
        frechet = spaces.frechet_measures(pair, seed)[0]
        found.append((kernel, frechet))
    for measures in zip(*found, strict=True):
        truth = np.mean([m.value for m in measures])
        held = [m.interval[0] <= truth <= m.interval[1] for m in measures]
        assert sum(held) >= 33


def test_what_stands_beside_the_distances():
    real = drawn(0)
    near, far = (
        {
            m.key: m
            for take in (spaces.frechet_measures, spaces.kernel_measures, spaces.manifold_measures)
            for m in take(space(real, made), 0)
        }
        for made in (drawn(1), drawn(2, shift=3.0))
    )
    assert near["fid"].reference == near["fid_floor"].value
    assert near["fid_over_floor"].value == pytest.approx(
        near["fid"].value / near["fid_floor"].value
    )
    assert near["kid"].interval[0] < 0 < near["kid"].interval[1]
    assert far["kid"].interval[0] > 0
    assert far["kid"].value > near["kid"].value
    assert far["precision"].value < 0.1 < 0.6 < near["precision"].value
    for found in (near, far):
        for name in ("precision", "recall", "density", "coverage"):
            assert found[name].reference == near[name].reference > 0.5


def test_few_slices_have_no_interval():
    few = space(drawn(0, 7), drawn(1, 60))
    assert spaces.frechet_measures(few, 0)[0].interval is None
    assert spaces.kernel_measures(few, 0)[0].interval is None


def test_two_slices_have_a_kernel_distance_and_no_subsets():
    draws = np.random.default_rng(0)
    real, made = (draws.normal(size=(n, 8)).astype(np.float32) for n in (12, 3))
    found = spaces.kernel_measures(Space("fd", "fd", "kd", "kd", "features", real, made), 0)
    assert [measure.key for measure in found] == ["kd"]
