"""Square pixels: against images whose values anywhere are known, and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fastmrigan.errors import UsageError
from fastmrigan.imaging.position import SlicePosition
from fastmrigan.imaging.resample import resample_in_plane, resampled_position


def waves(size: tuple[int, int], spacing: tuple[float, float], period: float) -> np.ndarray:
    """cos(2 pi x / period) + cos(2 pi y / period) at pixel centres; y, x in mm. [1, H, W]"""
    y, x = (np.arange(n) * mm for n, mm in zip(size, spacing, strict=True))
    image = np.cos(2 * np.pi * y / period)[:, None] + np.cos(2 * np.pi * x / period)
    return image[None].astype(np.float32)


def waves_at(position: SlicePosition, size: tuple[int, int], period: float) -> np.ndarray:
    """The same image at the pixels of a slice at `position`, worked out anew."""
    y = position.origin[1] + np.arange(size[0]) * position.spacing[0]
    x = position.origin[0] + np.arange(size[1]) * position.spacing[1]
    return np.cos(2 * np.pi * y / period)[:, None] + np.cos(2 * np.pi * x / period)


@pytest.mark.parametrize(
    ("spacing", "target", "expected"),
    [
        ((1.0, 0.7), None, 0.7),
        ((0.7, 1.0), None, 0.7),
        ((1.0, 1.0), 0.6, 0.6),
        ((0.8, 0.8), 1.0, 1.0),
        ((0.9, 0.5), 1.3, 1.3),
        ((0.47, 0.47), 1.0, 1.0),
        ((1.0, 1.0), 1.0, None),
        ((0.9375, 0.9375), None, None),
        ((0.50001, 0.5), None, None),
    ],
)
def test_values_and_places_of_an_image_known_everywhere(spacing, target, expected):
    size, period = (96, 117), 24.0
    image = waves(size, spacing, period)
    position = SlicePosition((0, 0, 0), (1, 0, 0), (0, 1, 0), spacing, thickness=5.0)
    made, new_spacing = resample_in_plane(image, spacing, target)
    placed = resampled_position(position, size, target)
    if expected is None:
        assert made is image
        assert (new_spacing, placed) == (spacing, position)
        return
    assert new_spacing == placed.spacing == (expected, expected)
    assert placed.thickness == 5.0
    for axis in (0, 1):
        lost = size[axis] * spacing[axis] - made.shape[axis + 1] * expected
        assert -1e-3 <= lost < expected  # mm
    error = made[0] - waves_at(placed, made.shape[1:], period)
    assert np.abs(error[4:-4, 4:-4]).max() < 0.02  # of a range of 4
    assert made.dtype == np.float32


def test_what_new_pixels_cannot_show_is_filtered_out():
    fine = waves((128, 128), (1.0, 1.0), 2.5)  # 1.25 pixels of 2 mm a period: would alias
    coarse = waves((128, 128), (1.0, 1.0), 20.0)
    made, _ = resample_in_plane(np.concatenate([fine, coarse]), (1.0, 1.0), 2.0)
    aliased = fine[0, ::2, ::2]
    assert np.abs(aliased).max() > 1.5
    assert np.abs(made[0, 4:-4, 4:-4]).max() < 0.15
    assert made[1, 4:-4, 4:-4].max() > 1.9


def test_a_smooth_image_agrees_with_scipy():
    noise = np.random.default_rng(0).normal(0, 1, (64, 64))
    image = ndimage.gaussian_filter(noise, 3)[None].astype(np.float32)
    made, _ = resample_in_plane(image, (1.0, 1.0), 0.5)
    expected = ndimage.zoom(image[0].astype(np.float64), 2, order=3, mode="nearest", grid_mode=True)
    assert made.shape == (1, 128, 128)
    difference = (made[0] - expected)[4:-4, 4:-4]
    assert np.abs(difference).max() < 0.01 * np.ptp(image)


def test_a_ramp_keeps_its_place_in_the_patient():
    """The value of each pixel is its own x + 2 y + 3 z in LPS, before and after."""
    row, column = np.array([0.8, 0.6, 0]), np.array([0, 0, -1.0])
    position = SlicePosition((12, -7, 30), tuple(row), tuple(column), (1.5, 0.8))

    def ramp(where: SlicePosition, size: tuple[int, int]) -> np.ndarray:
        r, c = np.mgrid[: size[0], : size[1]][..., None]  # each [H, W, 1]
        down, across = where.spacing
        points = where.origin + c * across * np.array(where.row) + r * down * np.array(where.column)
        return points @ [1, 2, 3]

    image = ramp(position, (50, 60))[None].astype(np.float32)
    for target in (None, 0.5, 1.7):
        made, _ = resample_in_plane(image, position.spacing, target)
        placed = resampled_position(position, (50, 60), target)
        error = made[0] - ramp(placed, made.shape[1:])
        assert np.abs(error[5:-5, 5:-5]).max() < 0.02 * 4.5  # 0.02 old pixels, 4.5 apart in value
        np.testing.assert_allclose(placed.along_normal, position.along_normal)


def test_labels_take_the_nearest_pixel_and_stay_with_their_image():
    dice = np.random.default_rng(0)
    labels = dice.integers(0, 5, (3, 24, 30)).astype(np.uint8)
    twice, spacing = resample_in_plane(labels, (1.0, 1.0), 0.5, labels=True)
    np.testing.assert_array_equal(twice, labels.repeat(2, axis=1).repeat(2, axis=2))
    assert (twice.dtype, spacing) == (np.uint8, (0.5, 0.5))
    disc = np.hypot(*np.mgrid[-40:40, -40:40]) < 22
    both = [
        resample_in_plane(disc[None].astype(kind), (0.9, 0.6), 1.1, labels=kind is np.uint8)[0]
        for kind in (np.uint8, np.float32)
    ]
    assert both[0].shape == both[1].shape
    assert ((both[1] > 0.5) != both[0].astype(bool)).mean() < 0.01


def test_the_range_of_each_slice_is_kept():
    edges = np.zeros((2, 40, 40), np.float32)
    edges[0, 20:], edges[1, :, 20:] = 100, -3
    made, _ = resample_in_plane(edges, (1.0, 1.0), 0.4)
    assert (made[0].min(), made[0].max()) == (0, 100)
    assert (made[1].min(), made[1].max()) == (-3, 0)


@pytest.mark.parametrize(
    ("size", "spacing", "target", "error", "reason"),
    [
        ((40, 40), (1.0, 1.0), 0.0, UsageError, "pixels of 0 mm: expected a length above 0"),
        ((40, 40), (1.0, 1.0), -1.0, UsageError, "pixels of -1 mm"),
        ((40, 40), (1.0, 1.0), np.nan, UsageError, "pixels of nan mm"),
        ((40, 40), (0.0, 1.0), 1.0, ValueError, "its pixels are 0 x 1 mm; they cannot be scaled"),
        ((40, 40), (np.nan, 1.0), None, ValueError, "its pixels are nan x 1 mm"),
        ((40, 40), (1.0, np.inf), None, ValueError, "its pixels are 1 x inf mm"),
        ((40, 40), (1.0, 1.0), 9.0, ValueError, "4x4 pixels; at least 16x16"),
        ((40, 40), (1e30, 1e-9), None, ValueError, "pixels; at most"),
        ((40, 40), (1.0, 1.0), 1e-4, ValueError, "claims 400.*pixels; at most"),
        ((40, 40), (1.0, 1.0), 0.01, ValueError, "would hold 4000x4000x99 voxels of 0.01 mm"),
    ],
)
def test_refused(size, spacing, target, error, reason):
    slices = np.broadcast_to(np.float32(0), (99, *size))
    with pytest.raises(error, match=reason):
        resample_in_plane(slices, spacing, target)
