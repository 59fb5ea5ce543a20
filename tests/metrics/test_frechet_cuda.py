"""The Frechet distance of CUDA tensors equals that of arrays. Needs torch and pytest alone."""

import numpy as np
import pytest
import torch

from fastmrigan.errors import UsageError
from fastmrigan.metrics import frechet, frechet_distance, overlap
from fastmrigan.metrics.moments import Moments

pytestmark = pytest.mark.gpu


def sets(n1, n2, d):
    draws = np.random.default_rng(0)
    mix = draws.standard_normal((d, d)) / np.sqrt(d)
    a = draws.standard_normal((n1, d))
    b = draws.standard_normal((n2, d)) @ mix + 0.3
    return a.astype(np.float32), b.astype(np.float32)


@pytest.mark.parametrize("polar", [False, True])
@pytest.mark.parametrize("shape", [(40, 50, 300), (40, 900, 300), (800, 900, 300)])
def test_cuda_tensors_equal_arrays(shape, polar, monkeypatch):
    monkeypatch.setattr(overlap, "POLAR_ON_CUDA", polar)
    a, b = sets(*shape)
    on_gpu = [torch.from_numpy(x).cuda() for x in (a, b)]
    expected = frechet(a, b)
    result = frechet(*on_gpu)
    assert abs(result.distance - expected.distance) <= result.error_bound + expected.error_bound
    assert abs(result.distance - expected.distance) <= 1e-8
    moments = [Moments().update(x[:7]).update(x[7:]) for x in on_gpu]
    from_moments = frechet(*moments)
    assert abs(from_moments.distance - expected.distance) <= from_moments.error_bound + 1e-8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d"), [(2, 1), (33, 5), (1000, 64), (517, 131), (9000, 300)])
def test_moments_on_the_device_equal_those_on_the_cpu(n, d, dtype):
    x = (np.random.default_rng(n).standard_normal((n, d)) + 5).astype(dtype)
    on_gpu = torch.from_numpy(x).cuda()
    found = Moments().update(on_gpu[: n // 2]).update(on_gpu[n // 2 :])
    expected = Moments().update(x)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.covariance_tensor().cpu(), found.covariance, atol=1e-13)
    again = Moments().update(on_gpu[: n // 2]).update(on_gpu[n // 2 :])
    assert np.array_equal(found.covariance, again.covariance)


def test_one_place_for_all_rows():
    x = torch.ones(5, 3)
    with pytest.raises(UsageError, match="the rows before came on cuda:0, these on the CPU"):
        Moments().update(x.cuda()).update(x)
    with pytest.raises(UsageError, match="the rows before came on the CPU, these on cuda:0"):
        Moments().update(x).update(x.cuda())
    with pytest.raises(UsageError, match="must be on one device, got cuda:0 and cpu"):
        frechet_distance(x.cuda(), x)
    bad = x.clone()
    bad[2, 1] = torch.nan
    with pytest.raises(UsageError, match="the first set: NaN or infinity in row 2"):
        frechet_distance(bad.cuda(), x.cuda())
