"""The output quantiser against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from fastmrigan.imaging.quantise import to_float, to_uint8, to_uint16

CASES = [(to_uint8, np.uint8), (to_uint16, np.uint16)]


def reference(x, dtype):
    top = np.iinfo(dtype).max
    y = np.rint(np.clip((x + np.float32(1)) * np.float32(top / 2), 0, top))
    return np.nan_to_num(y, nan=0).astype(dtype)


@pytest.mark.parametrize(("quantise", "dtype"), CASES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (17,), (3, 5, 7), (100_003,)])
def test_equals_numpy(quantise, dtype, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    y = quantise(x)
    assert y.dtype == dtype
    assert y.shape == shape
    np.testing.assert_array_equal(y, reference(x, dtype))


@pytest.mark.parametrize(("quantise", "dtype"), CASES)
def test_special_values(quantise, dtype):
    top = np.iinfo(dtype).max
    x = np.array([np.nan, np.inf, -np.inf, -1, 1, -1.5, 1.5], np.float32)
    assert quantise(x).tolist() == [0, top, 0, 0, top, 0, top]


def test_a_tie_goes_to_the_even_number():
    zero = np.zeros(1, np.float32)  # halfway between 127 and 128, and between 32767 and 32768
    assert to_uint8(zero) == 128
    assert to_uint16(zero) == 32768


@pytest.mark.parametrize(("quantise", "dtype"), CASES)
def test_every_level_survives_the_round_trip(quantise, dtype):
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    np.testing.assert_array_equal(quantise(to_float(levels)), levels)


def test_another_order_or_type_is_converted_by_value():
    x = np.random.default_rng(1).uniform(-1, 1, (6, 8))
    expected = reference(x.astype(np.float32), np.uint8)
    np.testing.assert_array_equal(to_uint8(np.asfortranarray(x)), expected)
    np.testing.assert_array_equal(to_uint8(x[:, ::2]), expected[:, ::2])
