"""The pool of generated slices against CycleGAN's, and its resume."""

import io

import pytest
import torch

from fastmrigan.training.image_pool import ImagePool


class Reference:
    """The image pool as Zhu et al. 2017 describe it, on a list, with the draws of `ImagePool`."""

    def __init__(self, size, seed):
        self.size, self.stored, self.draws = size, [], torch.Generator().manual_seed(seed)

    def query(self, slices):
        shown = []
        for one in slices:
            if len(self.stored) < self.size:
                self.stored.append(one)
            else:
                p, which = torch.rand(2, generator=self.draws, dtype=torch.float64).tolist()
                if p > 0.5:
                    index = int(which * self.size)
                    one, self.stored[index] = self.stored[index], one
            shown.append(one)
        return torch.stack(shown)


def made(step, count=3, **options):
    return (
        torch.full((count, 1, 2, 2), float(step), **options)
        + torch.arange(count).reshape(-1, 1, 1, 1).to(options.get("dtype", torch.float32)) / 4
    )


@pytest.mark.parametrize("size", [1, 5, 50])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_against_a_reference(size, count):
    pool, reference = ImagePool(size, seed=3), Reference(size, seed=3)
    older = 0
    for step in range(120):
        slices = made(step, count)
        shown = pool.query(slices)
        assert torch.equal(shown, reference.query(slices))
        older += int((shown != slices).flatten(1).any(1).sum())
    queried = 120 * count - size
    assert abs(older / queried - 0.5) < 0.2  # of those after the pool was full


def test_until_it_is_full_it_stores_and_hands_back():
    pool = ImagePool(6)
    rng = pool.state_dict()["rng"]
    for step in range(2):
        assert torch.equal(pool.query(made(step)), made(step))
    state = pool.state_dict()
    assert state["count"] == 6
    assert torch.equal(state["slices"], torch.cat([made(0), made(1)]))
    assert torch.equal(state["rng"], rng)  # not one draw yet


def test_size_0_passes_through():
    pool = ImagePool(0)
    slices = made(0).requires_grad_()
    for _ in range(3):
        shown = pool.query(slices)
        assert torch.equal(shown, slices)
        assert not shown.requires_grad
    state = pool.state_dict()
    assert state["slices"] is None
    ImagePool(0).load_state_dict(state)


def test_what_it_shows_is_its_own_and_has_no_gradient():
    pool = ImagePool(1)
    slices = made(1, 1).requires_grad_()
    shown = pool.query(slices)
    assert not shown.requires_grad
    with torch.no_grad():
        slices.zero_()
        shown.zero_()
    assert torch.equal(pool.state_dict()["slices"], made(1, 1))


@pytest.mark.parametrize("steps", [0, 1, 40])
def test_resume_is_exact(steps):
    """Saved, loaded as a checkpoint is, and gone on with: the bits of a pool never stopped."""
    whole, part = ImagePool(7, seed=1), ImagePool(7, seed=1)
    for step in range(steps):
        whole.query(made(step))
        part.query(made(step))
    file = io.BytesIO()
    torch.save(part.state_dict(), file)
    file.seek(0)
    resumed = ImagePool(7, seed=99)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    saved = part.state_dict()
    for step in range(steps, steps + 40):
        assert torch.equal(whole.query(made(step)), resumed.query(made(step)))
    part.load_state_dict(saved)  # and back again: a state is a copy
    assert torch.equal(part.state_dict()["rng"], saved["rng"])


def test_layout_and_type_are_kept():
    slices = torch.rand(4, 3, 8, 8).to(memory_format=torch.channels_last).bfloat16()
    shown = ImagePool(2).query(slices)
    assert shown.dtype == torch.bfloat16
    assert shown.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
def test_a_loaded_pool_moves_to_the_device():
    pool = ImagePool(3, seed=1)
    pool.query(made(0).cuda())
    state = pool.state_dict()
    assert state["slices"].device.type == "cpu"
    resumed = ImagePool(3)
    resumed.load_state_dict(state)
    assert torch.equal(pool.query(made(1).cuda()), resumed.query(made(1).cuda()))


def test_errors():
    with pytest.raises(ValueError, match="expected a size of 0 or more, got -1"):
        ImagePool(-1)
    pool = ImagePool(3)
    pool.query(made(0))
    with pytest.raises(ValueError, match="expected a pool of 4, got 3"):
        ImagePool(4).load_state_dict(pool.state_dict())
    with pytest.raises(
        ValueError, match=r"float32 slices \[1, 2, 2\], got .*float32 .*\[1, 4, 4\]"
    ):
        pool.query(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"float32 slices .*, got torch\.bfloat16"):
        pool.query(made(0).bfloat16())


def test_another_stream_draws_otherwise_and_keeps_what_is_stored():
    pools = [ImagePool(4, seed=1) for _ in range(3)]
    for pool in pools:
        pool.query(made(0, 4))
    pools[1].reseed(2)
    pools[2].reseed(1)
    plans = [[pool.plan(8).tolist() for _ in range(3)] for pool in pools]
    assert plans[0] != plans[1]
    assert plans[0] == plans[2]  # the first four were stored without a draw
