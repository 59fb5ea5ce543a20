"""The CUDA kernel through the Python face, on a real GPU. tests/cpp/ssim_tests.cpp runs the same
kernel emulated on the host; this file imports no more than a GPU machine has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastmrigan.errors import UsageError
from fastmrigan.metrics.similarity import Similarity, compare, mae, ms_ssim, psnr

pytestmark = pytest.mark.gpu


def pair(shape):
    draws = np.random.default_rng(0)
    a = draws.uniform(-1, 1, shape).astype(np.float32)
    return a, (a + 0.1 * draws.standard_normal(shape)).astype(np.float32)


def on_gpu(*arrays):
    return (torch.from_numpy(x).cuda() for x in arrays)


@pytest.mark.parametrize("mask", ["none", "one", "each"])
@pytest.mark.parametrize("shape", [(1, 11, 11), (3, 37, 53), (2, 45, 300), (64, 256, 256)])
def test_equals_the_cpu(shape, mask):
    a, b = pair(shape)
    x, y = on_gpu(a, b)
    inside = {"none": None, "one": a[0] > -0.5, "each": a > -0.5}[mask]
    inside_there = None if inside is None else torch.from_numpy(inside).cuda()
    found = compare(x, y, mask=inside_there)
    assert isinstance(found, Similarity)
    np.testing.assert_allclose(found, compare(a, b, mask=inside), rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(found, compare(x, y, mask=inside_there))


def test_the_other_faces():
    a, b = pair((2, 180, 200))
    x, y = on_gpu(a, b)
    np.testing.assert_allclose(mae(x, y), mae(a, b), rtol=1e-6)
    np.testing.assert_allclose(psnr(x, y, data_range=2), psnr(a, b, data_range=2), rtol=1e-6)
    np.testing.assert_allclose(ms_ssim(x, y, data_range=2), ms_ssim(a, b, data_range=2), rtol=1e-5)
    assert mae(x[0], y[0]) == mae(x, y)[0]
    turned = (s.swapaxes(1, 2) for s in (x, y))
    np.testing.assert_allclose(compare(*turned), compare(x, y), rtol=1e-6)
    assert compare(x[:0], y[:0]).ssim.shape == (0,)


def test_nan_where_it_counts():
    a, b = pair((3, 40, 40))
    b[1, 0, 0] = np.nan
    found = compare(*on_gpu(a, b))
    for scores in found:
        assert np.isnan(scores).tolist() == [False, True, False]


def test_refusals():
    a, b = pair((2, 30, 30))
    x, y = on_gpu(a, b)
    for others in ((x, b), (a, y), (x, torch.from_numpy(b))):
        with pytest.raises(
            UsageError, match="compare: expected everything on the CPU or on one CUDA"
        ):
            compare(*others)
    with pytest.raises(UsageError, match="got cuda:0, cuda:0, cpu; move it to one"):
        compare(x, y, mask=b > 0)
    with pytest.raises(UsageError, match="expected float32 tensors on CUDA, got"):
        compare(x, y.double())
