"""The distance of patches against SciPy's Wasserstein distance, projection by projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.stats import wasserstein_distance

from fastmrigan.training.patches import (
    FILTERS,
    PATCHES,
    SIDE,
    draw_filters,
    patch_distance,
    profiles,
    scales,
)


def drawn(count: int, size: int, seed: int) -> torch.Tensor:
    draws = np.random.default_rng(seed)
    return torch.from_numpy(draws.uniform(-1, 1, (count, 1, size, size)).astype(np.float32))


def filters_for(size: int, seed: int = 5) -> torch.Tensor:
    return draw_filters(size, np.random.default_rng(seed))


def halved(slices: np.ndarray) -> np.ndarray:
    count, height, width = slices.shape
    return slices.reshape(count, height // 2, 2, width // 2, 2).mean((2, 4))


@pytest.mark.parametrize("size", [8, 32])
def test_the_distance_is_its_definition(size):
    made, real, filters = drawn(3, size, 1), drawn(3, size, 2) * 0.5, filters_for(size)
    sides = [slices[:, 0].double().numpy() for slices in (made, real)]
    wanted = 0.0
    for directions in filters.double().numpy():
        projections = [
            [
                (sliding_window_view(slices, (SIDE, SIDE), axis=(1, 2)) * direction[0]).sum((3, 4))
                for direction in directions
            ]
            for slices in sides
        ]
        wanted += np.mean(
            [wasserstein_distance(a.ravel(), b.ravel()) for a, b in zip(*projections, strict=True)]
        )
        sides = [halved(slices) for slices in sides]
    assert float(patch_distance(made, real, filters)) == pytest.approx(wanted, rel=1e-4)


def test_directions_have_length_1_and_are_the_seeds():
    filters = filters_for(64)
    assert filters.shape == (4, FILTERS, 1, SIDE, SIDE)
    torch.testing.assert_close(filters.square().sum((2, 3, 4)), torch.ones(4, FILTERS))
    assert torch.equal(filters, filters_for(64))
    assert not torch.equal(filters, filters_for(64, seed=6))


@pytest.mark.parametrize(("size", "count"), [(8, 1), (16, 2), (64, 4), (256, 6), (1024, 8)])
def test_the_coarsest_scale_is_8_pixels(size, count):
    assert scales(size) == count
    assert size >> (count - 1) == 8


def test_the_order_of_slices_does_not_matter():
    slices = drawn(4, 16, 3)
    filters = filters_for(16)
    assert patch_distance(slices[[2, 0, 3, 1]], slices, filters) == pytest.approx(0, abs=1e-6)
    assert patch_distance(slices.flip(1, 2), slices, filters) > 0.01


def test_channels_count_as_slices():
    slices, others, filters = drawn(3, 16, 3), drawn(3, 16, 4), filters_for(16)
    found = patch_distance(slices.transpose(0, 1), others.transpose(0, 1), filters)
    assert float(found) == pytest.approx(float(patch_distance(slices, others, filters)))


@pytest.mark.parametrize(
    ("count", "size", "sides"),
    [(1, 256, (125, 122, 58)), (4, 128, (61, 58, 26)), (9, 64, (29, 26)), (2, 128, (122, 58))],
)
def test_of_many_patches_some_are_looked_at(count, size, sides):
    found = profiles(drawn(count, size, 1), filters_for(size))
    assert tuple(rows.shape[1] for rows in found)[: len(sides)] == tuple(
        count * side**2 for side in sides
    )
    assert PATCHES / 2.5 < found[0].shape[1] < 2.25 * PATCHES


def test_going_down_it_brings_slices_to_the_others():
    """Slices that are grey at first take on two levels, where they are drawn to nothing else."""
    real = torch.ones(4, 1, 16, 16)
    real[2:] = -1
    real.requires_grad_()
    made = drawn(4, 16, 1).mul(0.1).requires_grad_()
    adam = torch.optim.Adam([made], 0.05)
    draws = np.random.default_rng(0)
    before = float(patch_distance(made.detach(), real, filters_for(16)))
    for _ in range(150):
        adam.zero_grad()
        patch_distance(made, real, draw_filters(16, draws)).backward()
        adam.step()
    assert float(patch_distance(made.detach(), real, filters_for(16))) < before / 5
    assert real.grad is None


def test_in_half_precision_it_is_computed_whole():
    made, real, filters = drawn(2, 16, 1), drawn(2, 16, 2), filters_for(16)
    with torch.autocast("cpu", torch.bfloat16):
        found = patch_distance(made, real, filters)
    assert found.dtype == torch.float32
    assert torch.equal(found, patch_distance(made, real, filters))
