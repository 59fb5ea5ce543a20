from __future__ import annotations

import numpy as np
import pytest

from fastmrigan.imaging.geometry import background, fit_square, resize, unfit_square


def bicubic(x: np.ndarray, size: int) -> np.ndarray:
    """Reference: Keys' kernel (a = -0.5), widened when it shrinks, along the rows of [H, W]."""
    scale = max(1.0, x.shape[0] / size)
    centre = (np.arange(size)[:, None] + 0.5) * x.shape[0] / size
    t = np.abs(np.arange(x.shape[0]) + 0.5 - centre) / scale
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True) @ x


@pytest.mark.parametrize("shape", [(256, 256), (100, 37), (20, 64), (31, 17)])
@pytest.mark.parametrize("size", [16, 64, 65])
def test_resize_is_antialiased_bicubic(shape: tuple[int, int], size: int) -> None:
    x = np.random.default_rng(1).random(shape).astype(np.float32)
    expected = bicubic(bicubic(x, size).T, size + 3).T
    np.testing.assert_allclose(resize(x, size, size + 3), expected, atol=2e-6)


def test_same_size_is_a_copy() -> None:
    x = np.eye(16, dtype=np.float32)
    y = resize(x, 16, 16)
    np.testing.assert_array_equal(x, y)
    assert not np.shares_memory(x, y)


@pytest.mark.parametrize("shape", [(64, 64), (300, 200), (33, 90), (16, 17)])
def test_square_keeps_aspect_and_pads_with_the_background(shape: tuple[int, int]) -> None:
    x = np.full(shape, -0.8, np.float32)
    y, w = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(y - (shape[0] - 1) / 2, w - (shape[1] - 1) / 2)
    x[radius < min(shape) * 0.4] = 0.9
    square = fit_square(x, 48)
    assert square.shape == (48, 48)
    assert square.dtype == np.float32
    assert np.abs(square).max() <= 1
    assert square[0, 0] == pytest.approx(-0.8, abs=1e-5)
    rows, columns = (square > 0).any(1).sum(), (square > 0).any(0).sum()
    assert abs(int(rows) - int(columns)) <= 1  # a disc stays a disc


@pytest.mark.parametrize("shape", [(64, 64), (60, 41), (41, 60)])
def test_the_way_back(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    x = np.clip(resize(rng.uniform(-1, 1, (9, 9)).astype(np.float32), *shape), -1, 1)
    back = unfit_square(fit_square(x, 96), *shape)
    assert back.shape == shape
    inner = (slice(4, -4), slice(4, -4))
    assert np.abs(back - x)[inner].max() < 0.02


def test_background_is_the_median_of_the_frame() -> None:
    x = np.full((20, 20), 0.5, np.float32)
    x[0], x[-1], x[:, 0], x[:, -1] = -1, -1, -1, -1
    x[0, :5] = 1  # a letter in the corner
    assert background(x) == -1.0
