"""The search for NaN and infinity, held against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from fastmrigan import _core

LARGEST = np.finfo(np.float32).max
FINITE = [0.0, -0.0, 1e-45, -1.0, LARGEST, -LARGEST]
OTHERS = [np.inf, -np.inf, np.nan, -np.nan]


@pytest.mark.parametrize("count", [0, 1, 7, 16, 63, 64, 1000])
@pytest.mark.parametrize("value", FINITE + OTHERS)
def test_wherever_it_stands(count, value):
    x = np.linspace(-1, 1, count, dtype=np.float32) * LARGEST
    assert _core.all_finite(x)
    for place in range(0, count, max(1, count // 50)):
        y = x.copy()
        y[place] = value
        assert _core.all_finite(y) is bool(np.isfinite(y).all())


def test_any_bits():
    bits = np.random.default_rng(0).integers(0, 2**32, (4000, 8), dtype=np.uint32)
    for row in bits.view(np.float32):
        assert _core.all_finite(row) is bool(np.isfinite(row).all())


def test_any_shape_and_order():
    x = np.zeros((3, 4, 5), np.float32)
    assert _core.all_finite(x)
    x[2, 1, 3] = np.nan
    assert not _core.all_finite(x)
    assert not _core.all_finite(x.T)
    assert _core.all_finite(x[:2])
