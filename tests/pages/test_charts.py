"""The axes of the charts."""

import numpy as np
import pytest

from fastmrigan.pages.charts import Frame, round_ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 4, [0, 1, 2, 3, 4]),
        (0, 567, [0, 160, 320, 480]),
        (-1, 1, [-0.6, 0, 0.6]),
        (-4, 4, [-4, -2, 0, 2, 4]),
        (0.3, 4, [1, 2, 3, 4]),
    ],
)
def test_ticks_are_multiples_of_a_round_number(low, high, ticks):
    np.testing.assert_allclose(round_ticks(low, high), ticks, atol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.0, 10.0), (0.0, 567.0), (-1.0, 1.0), (-3.0, 1e-12)])
def test_no_tick_is_a_negative_zero(low, high):
    ticks = round_ticks(low, high)
    assert not np.signbit(ticks[ticks == 0]).any()
    assert (ticks == 0).sum() == 1
    assert ">-0<" not in Frame((low, high), (0.0, 1.0)).svg([], [], "step", "loss")
