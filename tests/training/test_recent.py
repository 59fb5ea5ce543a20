"""The slices of the last batches, against a list of all that were given."""

import pytest
import torch

from fastmrigan.training.recent import RecentSlices, places


def numbered(first, count):
    """Slices [count, 1, 2, 2], each filled with its number."""
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1).repeat(1, 1, 2, 2)


def numbers(slices):
    return sorted(slices[:, 0, 0, 0].int().tolist())


def given(recent, step, slices):
    return recent.beside(slices, places(recent.size, step, len(slices)))


@pytest.mark.parametrize(("size", "batch"), [(6, 2), (7, 3), (4, 4)])
def test_the_last_slices_are_there(size, batch):
    recent = RecentSlices(size)
    for step in range(10):
        found = given(recent, step, numbered(step * batch, batch))
        assert found.shape == (size, 1, 2, 2)
        end = (step + 1) * batch
        if end >= size:
            assert numbers(found) == list(range(end - size, end))
        else:
            assert set(numbers(found)) == set(range(end))  # some of them several times


def test_the_batch_alone_has_a_gradient():
    recent = RecentSlices(6)
    earlier = numbered(0, 2).requires_grad_()
    given(recent, 0, earlier)
    batch = numbered(2, 2).requires_grad_()
    given(recent, 1, batch).sum().backward()
    assert earlier.grad is None
    assert torch.equal(batch.grad, torch.ones_like(batch))


def test_half_precision_is_kept_whole():
    found = given(RecentSlices(2), 0, numbered(0, 2).bfloat16())
    assert found.dtype == torch.float32


def test_state_goes_on_where_it_was():
    recent = RecentSlices(5)
    for step in range(3):
        given(recent, step, numbered(2 * step, 2))
    state = {name: slices.clone() for name, slices in recent.state_dict().items()}
    wanted = given(recent, 3, numbered(6, 2))
    resumed = RecentSlices(5)
    resumed.load_state_dict(state)
    assert torch.equal(given(resumed, 3, numbered(6, 2)), wanted)
    with pytest.raises(ValueError, match="expected 4 slices, got 5"):
        RecentSlices(4).load_state_dict(state)


def test_none_yet_is_a_state_too():
    recent = RecentSlices(3)
    recent.load_state_dict(RecentSlices(3).state_dict())
    assert numbers(given(recent, 0, numbered(0, 3))) == [0, 1, 2]
