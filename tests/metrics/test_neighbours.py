import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fastmrigan.errors import UsageError
from fastmrigan.metrics.neighbours import nearest_real


def smooth(count, seed, size=64):
    field = np.random.default_rng(seed).standard_normal((count, size, size))
    return np.tanh(8 * gaussian_filter(field, (0, 4, 4))).astype(np.float32)


def test_equals_numpy_corrcoef_whatever_the_block():
    real, made = smooth(37, 0), smooth(11, 1)
    small = [x.reshape(-1, 32, 2, 32, 2).mean((2, 4)).reshape(len(x), -1) for x in (made, real)]
    expected = np.corrcoef(*small)[:11, 11:]  # [11, 37]
    for block in (4, 11, 1024):
        found = nearest_real(made, real, block=block)
        np.testing.assert_array_equal(found.index, expected.argmax(1))
        np.testing.assert_allclose(found.correlation, expected.max(1), atol=1e-5)


def test_copies_are_found_even_regraded():
    real = smooth(50, 0)
    order = np.random.default_rng(2).permutation(50)[:16]
    found = nearest_real(0.6 * real[order] - 0.2, real)
    np.testing.assert_array_equal(found.index, order)
    assert (found.correlation > 0.9999).all()


def test_a_constant_slice_is_like_nothing():
    found = nearest_real(np.full((1, 64, 64), 0.3, np.float32), smooth(5, 0))
    assert found.correlation[0] == 0


def test_no_real_slices():
    with pytest.raises(UsageError, match="no real slices"):
        nearest_real(smooth(2, 0), smooth(0, 0))
