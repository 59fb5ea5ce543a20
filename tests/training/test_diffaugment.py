"""DiffAugment against a slice-by-slice reference, and its gradient."""

import pytest
import torch

from fastmrigan.training.diffaugment import POLICIES, DiffAugment, draw, draws_at


def slices_of(count=6, channels=1, size=16):
    generator = torch.Generator().manual_seed(1)
    shape = (count, channels, size, size)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1


def reference(slice_, numbers, policies, fill):
    """One slice [C, H, W], one row of draws: Zhao et al. 2020, in loops."""
    b, c, dy, dx, cy, cx = numbers.tolist()
    height, width = slice_.shape[1:]
    if "colour" in policies:
        slice_ = slice_ + (b - 0.5)
        slice_ = (slice_ - slice_.mean()) * (c + 0.5) + slice_.mean()
    if "translation" in policies:
        moved = torch.full_like(slice_, fill)
        down = int(dy * (2 * (height // 8) + 1)) - height // 8
        right = int(dx * (2 * (width // 8) + 1)) - width // 8
        for y in range(height):
            for x in range(width):
                if 0 <= y - down < height and 0 <= x - right < width:
                    moved[:, y, x] = slice_[:, y - down, x - right]
        slice_ = moved
    if "cutout" in policies:
        slice_ = slice_.clone()
        middle_y, middle_x = int(cy * (height + 1)), int(cx * (width + 1))
        top, left = max(middle_y - height // 4, 0), max(middle_x - width // 4, 0)
        slice_[:, top : middle_y + height // 4, left : middle_x + width // 4] = fill
    return slice_


@pytest.mark.parametrize("policies", [*((name,) for name in POLICIES), POLICIES])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", [-1.0, 0.0])
def test_against_a_reference(policies, channels, fill):
    slices, draws = slices_of(40, channels), draws_at(40, seed=1, step=2)
    found = DiffAugment(policies, fill=fill)(slices, draws)
    expected = [
        reference(slice_, numbers, policies, fill)
        for slice_, numbers in zip(slices, draws, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("policies", [*((name,) for name in POLICIES), POLICIES])
def test_gradients(policies):
    """First and second derivative: WGAN-GP's penalty goes through it twice."""
    apply, draws = DiffAugment(policies), draws_at(2, seed=0, step=3)
    slices = slices_of(2, 1, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: apply(x, draws), slices)
    assert torch.autograd.gradgradcheck(lambda x: apply(x, draws) ** 2, slices)


def test_what_was_moved_out_has_no_gradient():
    slices = slices_of(30).requires_grad_()
    apply = DiffAugment(("translation", "cutout"))
    shown = apply(slices, draws_at(30, seed=4, step=0))
    shown.sum().backward()
    assert set(slices.grad.unique().tolist()) == {0.0, 1.0}
    assert int(slices.grad.sum()) == int((shown != apply.fill).sum())


def test_a_function_of_seed_step_and_stream():
    once = draws_at(4, seed=1, step=2, stream=3)
    assert once.dtype == torch.float32
    assert once.shape == (4, 6)
    assert torch.equal(once, draws_at(4, seed=1, step=2, stream=3))
    for other in ({"seed": 5}, {"step": 5}, {"stream": 5}):
        key = {"seed": 1, "step": 2, "stream": 3} | other
        assert not torch.equal(once, draws_at(4, **key)), other
    parts = [draws_at(2, seed=1, step=2, stream=3, rank=rank, world=2) for rank in (0, 1)]
    assert torch.equal(once, torch.cat(parts))


def test_draws_from_a_generator():
    state = torch.random.get_rng_state()
    first = draw(5, torch.Generator().manual_seed(7))
    assert torch.equal(first, draw(5, torch.Generator().manual_seed(7)))
    assert first.shape == (5, 6)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-24])
def test_the_ends_of_the_draws_stay_in_the_frame(extreme):
    slices = torch.ones(1, 1, 1000, 8)
    shown = DiffAugment(("translation",))(slices, torch.full((1, 6), extreme))
    assert int((shown == -1).any(3).sum()) >= 125
    assert int((shown[..., 4] == 1).sum()) == 875
    assert DiffAugment(("cutout",))(slices, torch.full((1, 6), extreme)).min() == -1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_and_layouts_are_kept(dtype):
    slices = slices_of(3, 3).to(dtype).to(memory_format=torch.channels_last)
    shown = DiffAugment()(slices, draws_at(3, seed=0, step=0))
    assert shown.dtype == dtype
    plain = DiffAugment()(slices.contiguous(), draws_at(3, seed=0, step=0))
    torch.testing.assert_close(shown, plain)


def test_images_of_a_pair_move_alike_and_are_coloured_each_by_its_own_mean():
    apply, draws = DiffAugment(fill=0.0), draws_at(9, seed=2, step=1)
    a, b = slices_of(9, 3), 5 + slices_of(9, 3)
    found = apply(torch.cat([a, b], 1), draws, images=2)
    torch.testing.assert_close(found, torch.cat([apply(a, draws), apply(b, draws)], 1))
    assert not torch.allclose(found, apply(torch.cat([a, b], 1), draws))


def test_errors():
    with pytest.raises(ValueError, match=r"expected policies of .*'cutout'.*, got 'color'"):
        DiffAugment(("color",))
    with pytest.raises(ValueError, match=r"expected draws \[2, 6\], got \[3, 6\]"):
        DiffAugment()(slices_of(2), draws_at(3, seed=0, step=0))
