"""The order of slices on one side and on two, on one rank and on several."""

import numpy as np
import pytest
import torch

from fastmrigan.training.order import SOURCE, SliceOrder, TwoSidedOrder, draws_of


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (4, 4), (7, 5), (3, 8)])
def test_every_epoch_sees_every_slice_once(count, batch):
    order = SliceOrder(count, batch, seed=5)
    seen = torch.cat([order.batch_of(step) for step in range(3 * count)])
    epochs = seen.reshape(-1, count)
    assert (epochs.sort(1).values == torch.arange(count)).all()
    assert count < 4 or not torch.equal(epochs[0], epochs[1])
    again = SliceOrder(count, batch, seed=5)
    assert torch.equal(again.batch_of(7), seen[7 * batch : 8 * batch])  # from anywhere
    other = SliceOrder(1000, batch, seed=6).batch_of(0)
    assert not torch.equal(SliceOrder(1000, batch, seed=5).batch_of(0), other)


@pytest.mark.parametrize(
    ("targets", "sources", "paired"), [(11, None, False), (11, 11, True), (11, 7, False)]
)
def test_the_ranks_see_what_one_would(targets, sources, paired):
    whole = TwoSidedOrder(targets, sources, 6, seed=2, paired=paired)
    parts = [
        TwoSidedOrder(targets, sources, 2, seed=2, paired=paired, rank=rank, world=3)
        for rank in range(3)
    ]
    for step in range(9):
        expected, got = whole.batch_of(step), [part.batch_of(step) for part in parts]
        assert torch.equal(expected.target, torch.cat([part.target for part in got]))
        if sources is None:
            assert expected.source is None
        else:
            assert torch.equal(expected.source, torch.cat([part.source for part in got]))


def test_pairs_stay_pairs():
    order = TwoSidedOrder(9, 9, 4, seed=1, paired=True)
    for step in range(5):
        target, source = order.batch_of(step)
        assert torch.equal(target, source)
    with pytest.raises(ValueError, match="9 targets cannot pair 8 sources"):
        TwoSidedOrder(9, 8, 4, seed=1, paired=True)


@pytest.mark.parametrize(("targets", "sources"), [(12, 5), (5, 12), (12, 12)])
def test_unpaired_sides_have_orders_of_their_own(targets, sources):
    """Over epochs of the larger side every slice of either is seen as often as its fellows."""
    order = TwoSidedOrder(targets, sources, 3, seed=4)
    assert order.epoch_slices == 12
    steps = [order.batch_of(step) for step in range(20)]  # 60 slices a side: whole epochs of both
    for side, count in ((0, targets), (1, sources)):
        seen = torch.cat([step[side] for step in steps])
        assert torch.bincount(seen, minlength=count).tolist() == [60 // count] * count
        epochs = seen.reshape(-1, count)
        assert (epochs.sort(1).values == torch.arange(count)).all()
        assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(steps[0].target, steps[0].source)


def test_the_target_order_is_that_of_one_side():
    order = TwoSidedOrder(12, 5, 3, seed=4)
    assert torch.equal(order.batch_of(6).target, SliceOrder(12, 3, seed=4).batch_of(6))
    source = SliceOrder(5, 3, seed=4, side=SOURCE)
    assert torch.equal(order.batch_of(6).source, source.batch_of(6))


def test_draws_depend_on_each_part_of_their_key():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 255), (2**63 - 1, 2**40, 7)]
    drawn = np.array([draws_of(*key).random(1000) for key in keys])
    np.testing.assert_array_equal(drawn, [draws_of(*key).random(1000) for key in keys])
    correlation = np.corrcoef(drawn) - np.eye(len(keys))
    assert np.abs(correlation).max() < 0.15  # five deviations of 1 / sqrt(1000)
    np.testing.assert_allclose(drawn.mean(1), 0.5, atol=0.05)
