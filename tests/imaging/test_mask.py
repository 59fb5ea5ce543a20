from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu

from fastmrigan.imaging.components import components, label
from fastmrigan.imaging.mask import brain_mask, fill_holes, largest_component, otsu_threshold

SHAPES = [(1, 1), (1, 9), (9, 1), (17, 23), (64, 64), (40, 101)]


def noise(shape: tuple[int, int], share: float) -> np.ndarray:
    return np.random.default_rng(shape[0]).random(shape) < share


@pytest.mark.parametrize("seed", range(4))
def test_otsu_is_scikit_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(20, 9, 3000), rng.normal(150, 30, 1000)]).astype(np.float32)
    assert otsu_threshold(x.reshape(50, 80)) == pytest.approx(threshold_otsu(x.reshape(50, 80)))


def test_otsu_of_a_constant() -> None:
    assert otsu_threshold(np.full((5, 5), 3.0, np.float32)) == 3.0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_components_and_holes_are_scipys(shape: tuple[int, int], share: float) -> None:
    mask = noise(shape, share)
    expected, count = ndimage.label(mask)
    got = label(mask)
    assert got.max() == count
    assert len(np.unique(np.stack([got, expected], -1).reshape(-1, 2), axis=0)) == len(
        np.unique(expected)
    )
    np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))
    sizes = np.bincount(expected[mask], minlength=1)
    assert largest_component(mask).sum() == (sizes.max() if count else 0)


def test_spiral_takes_many_rounds() -> None:
    """A component whose ends are far apart along the rows."""
    mask = np.zeros((41, 41), dtype=bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    assert label(mask).max() == 1


def test_components_of_a_graph() -> None:
    root = components(7, np.array([5, 3, 0]), np.array([3, 6, 1]))
    assert root.tolist() == [0, 0, 2, 3, 4, 3, 3]


def test_brain_mask_is_the_filled_head() -> None:
    y, x = np.mgrid[-40:40, -40:40]
    radius = np.hypot(x, y * 1.2)
    head = np.random.default_rng(0).normal(10, 3, (80, 80)).astype(np.float32)
    head[radius < 30] += 150
    head[radius < 8] -= 140  # dark ventricles
    head[2:6, 2:6] += 200  # a burned-in letter
    np.testing.assert_array_equal(brain_mask(head), radius < 30)
    assert brain_mask(head).dtype == np.bool_
