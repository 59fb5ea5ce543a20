"""Smoothing of edges: against SciPy's Gaussian, and what it leaves alone."""

import numpy as np
import pytest
import torch

from fastmrigan.style.smoothing import gaussian_blur, gradient, smooth_edges


@pytest.fixture
def step():
    """Dark left half, bright right half, [1, 1, 32, 32]."""
    x = torch.full((1, 1, 32, 32), -1.0)
    x[..., 16:] = 1.0
    return x


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_blur_is_scipys(sigma):
    ndimage = pytest.importorskip("scipy.ndimage")
    torch.manual_seed(0)
    slices = torch.rand(2, 3, 20, 33)
    expected = [
        [ndimage.gaussian_filter(c.numpy(), sigma, mode="nearest") for c in s] for s in slices
    ]
    np.testing.assert_allclose(gaussian_blur(slices, sigma).numpy(), expected, atol=1e-5)


def test_gradient_is_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    torch.manual_seed(0)
    x = torch.rand(1, 1, 12, 9)
    rows, columns = (ndimage.sobel(x[0, 0].numpy(), axis, mode="nearest") for axis in (0, 1))
    np.testing.assert_allclose(gradient(x)[0, 0].numpy(), np.hypot(rows, columns), atol=1e-5)


def test_edges_are_blurred_and_flat_regions_stay(step):
    smooth = smooth_edges(step, 1.0)
    blurred = gaussian_blur(step, 1.0)
    torch.testing.assert_close(smooth[..., 15:17], blurred[..., 15:17])  # the steepest pixels
    assert torch.equal(smooth[..., :15], step[..., :15])
    assert torch.equal(smooth[..., 17:], step[..., 17:])
    assert smooth[0, 0, 5, 16] < 0.7


def test_a_flat_slice_stays():
    flat = torch.full((2, 1, 16, 16), 0.25)
    assert torch.equal(smooth_edges(flat, 1.0), flat)


def test_a_single_steep_pixel_is_an_edge():
    """Fewer steep pixels than the quantile counts."""
    x = torch.zeros(1, 1, 32, 32)
    x[..., 16, 16] = 1.0
    assert (smooth_edges(x, 1.0)[..., 16, 17] > 0.01).all()


def test_sigma_must_be_positive(step):
    with pytest.raises(ValueError, match="more than 0 pixels, got 0"):
        smooth_edges(step, 0)
