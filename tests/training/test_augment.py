"""Augmentation of real slices, against PIL, integer crops and a rotation done by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fastmrigan.training.augment import Augmentation, Draws, augment, draw, resampled
from fastmrigan.training.order import SOURCE, TARGET

ALL = Augmentation(resize=1.12, shift=3, horizontal_flip=True, rotation=10.0, zoom=1.2)
AS_IS = torch.ones(1, dtype=torch.float64)  # the zoom of one slice


def noise(count=4, channels=1, height=32, width=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, channels, height, width, generator=generator) - 1


def smooth(count=4, size=32):
    """Slices without detail finer than a few pixels: any good resampling agrees on them."""
    return F.interpolate(noise(count, 1, 5, 5), (size, size), mode="bicubic").clamp(-1, 1)


def test_nothing_asked_for_is_nothing_done():
    slices = noise()
    assert augment(slices, Augmentation(), seed=1, step=2) is slices


@pytest.mark.parametrize(
    "options",
    [
        Augmentation(resize=1.12),
        Augmentation(shift=4),
        Augmentation(horizontal_flip=True),
        Augmentation(rotation=15.0),
        ALL,
    ],
    ids=lambda options: "-".join(
        name for name, value in vars(options).items() if value > 1 or value is True
    ),
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_function_of_seed_step_and_side(options, channels):
    slices = noise(8, channels)
    once = augment(slices, options, seed=1, step=2)
    assert once.shape == slices.shape
    assert once.dtype == slices.dtype
    assert once.abs().max() <= 1
    assert torch.equal(once, augment(slices, options, seed=1, step=2))
    for other in ({"seed": 2}, {"step": 3}, {"side": SOURCE}):
        key = {"seed": 1, "step": 2} | other
        assert not torch.equal(once, augment(slices, options, **key)), other


def test_the_ranks_see_what_one_would():
    slices = noise(6)
    whole = augment(slices, ALL, seed=3, step=4)
    parts = [
        augment(part, ALL, seed=3, step=4, rank=rank, world=3)
        for rank, part in enumerate(slices.split(2))
    ]
    assert torch.equal(whole, torch.cat(parts))


def test_twins_stay_registered():
    target = noise(5)
    sources = -0.5 * target  # a linear change of contrast goes through every linear resampling
    options = Augmentation(resize=1.12, horizontal_flip=True)
    same = augment(sources, options, seed=1, step=0, side=TARGET)
    expected = -0.5 * augment(target, options, seed=1, step=0, side=TARGET)
    inside = same.abs() < 0.49  # where the target's overshoot was not clamped
    assert inside.float().mean() > 0.9
    torch.testing.assert_close(same[inside], expected[inside], atol=1e-5, rtol=0)


def test_one_option_does_not_change_what_another_draws():
    frame, grown = (32, 32), (35, 35)
    plain = draw(9, frame, grown, Augmentation(1.12), 1, 2, TARGET, 0, 1)
    more = draw(9, frame, grown, Augmentation(1.12, 0, True, 5.0), 1, 2, TARGET, 0, 1)
    assert torch.equal(plain.top, more.top)
    assert torch.equal(plain.left, more.left)


def test_resize_and_crop_against_pil():
    """CycleGAN's own preprocessing: PIL's bicubic to int(1.12 * size), then a crop of it."""
    slices = noise(64)
    options = Augmentation(resize=1.12)
    found = augment(slices, options, seed=0, step=0)
    draws = draw(64, (32, 32), (35, 35), options, 0, 0, TARGET, 0, 1)
    places = set()
    for slice_, got, top, left in zip(slices, found, draws.top, draws.left, strict=True):
        enlarged = Image.fromarray(slice_[0].numpy()).resize((35, 35), Image.Resampling.BICUBIC)
        y, x = int(top), int(left)
        expected = np.asarray(enlarged)[y : y + 32, x : x + 32].clip(-1, 1)
        np.testing.assert_allclose(got[0].numpy(), expected, atol=1e-5)
        places.add((y, x))
    assert {y for y, _ in places} == {x for _, x in places} == {0, 1, 2, 3}  # all there are


def test_shift_and_flip_by_hand():
    slices = noise(60, 2, 12, 10)
    options = Augmentation(shift=3, horizontal_flip=True)
    found = augment(slices, options, seed=5, step=6)
    draws = draw(60, (12, 10), (12, 10), options, 5, 6, TARGET, 0, 1)
    padded = F.pad(slices, (3, 3, 3, 3), value=-1.0)
    for i in range(60):
        top, left = int(draws.top[i]), int(draws.left[i])
        expected = padded[i, :, 3 + top : 15 + top, 3 + left : 13 + left]
        assert torch.equal(found[i], expected.flip(-1) if draws.mirrored[i] else expected)
    assert set(draws.top.tolist()) == set(range(-3, 4))
    assert 18 < int(draws.mirrored.sum()) < 42


@pytest.mark.parametrize("quarter", [-1, 1, 2])
def test_quarter_turns(quarter):
    slices = noise(1, 2, 16, 16)
    still = torch.zeros(1, dtype=torch.long)
    angle = torch.tensor([quarter * torch.pi / 2], dtype=torch.float64)
    turned = resampled(slices, (16, 16), Draws(still, still, torch.tensor([False]), angle, AS_IS))
    torch.testing.assert_close(turned, slices.rot90(quarter, (2, 3)), atol=1e-5, rtol=0)


def test_half_a_turn_of_a_frame_that_is_not_square():
    slices = noise(1, 1, 10, 16)
    still = torch.zeros(1, dtype=torch.long)
    angle = torch.tensor([torch.pi], dtype=torch.float64)
    turned = resampled(slices, (10, 16), Draws(still, still, torch.tensor([False]), angle, AS_IS))
    torch.testing.assert_close(turned, slices.flip(2, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_zoom_is_torchs_own_about_the_middle(factor):
    slices = noise(1, 2, 16, 12)
    still = torch.zeros(1, dtype=torch.long)
    zoom = torch.tensor([factor], dtype=torch.float64)
    draws = Draws(still, still, torch.tensor([False]), torch.zeros(1, dtype=torch.float64), zoom)
    zoomed = resampled(slices, (16, 12), draws)
    scaled = F.interpolate(slices + 1, scale_factor=factor, mode="bicubic") - 1
    if factor > 1:
        torch.testing.assert_close(zoomed, scaled[..., 8:24, 6:18], atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(zoomed[..., 5:11, 4:8], scaled[..., 1:7, 1:5], atol=1e-5, rtol=0)
        assert (zoomed[..., :3, :] == -1).all()  # air around it


def test_zoom_is_as_often_larger_as_smaller_and_changes_no_other_draw():
    shape = ((32, 32), (35, 35))
    plain = draw(400, *shape, Augmentation(1.12, 3, True, 10.0), 1, 2, TARGET, 0, 1)
    zoomed = draw(400, *shape, Augmentation(1.12, 3, True, 10.0, 1.5), 1, 2, TARGET, 0, 1)
    for field in ("top", "left", "mirrored", "angle"):
        assert torch.equal(getattr(plain, field), getattr(zoomed, field))
    assert (plain.zoom == 1).all()
    assert zoomed.zoom.min() >= 1 / 1.5
    assert zoomed.zoom.max() <= 1.5
    assert 150 < int((zoomed.zoom > 1).sum()) < 250
    assert zoomed.zoom.min() < 0.75
    assert zoomed.zoom.max() > 1.4


@pytest.mark.parametrize("options", [Augmentation(1.0, 3, True, 0.0), Augmentation(1.25, 2, True)])
def test_one_resampling_agrees_with_crops_where_the_angle_is_0(options):
    """The resampling's corners, mirror and enlargement are those of the crop."""
    slices = smooth(12)
    by_crop = augment(slices, options, seed=7, step=8)
    grown = (int(32 * options.resize),) * 2
    draws = draw(12, (32, 32), grown, options, 7, 8, TARGET, 0, 1)
    by_grid = resampled(slices, grown, draws).clamp(-1, 1)
    inside = (..., slice(8, -8), slice(8, -8))  # beyond the borders the two take other values
    tolerance = 1e-5 if options.resize == 1 else 0.03  # two kernels; a pixel off: above 0.1
    torch.testing.assert_close(by_grid[inside], by_crop[inside], atol=tolerance, rtol=0)
    assert (by_grid[inside] - slices[inside]).abs().max() > 0.3  # something happened


def test_background_comes_in_at_the_corners():
    bright = torch.ones(16, 1, 32, 32)
    options = Augmentation(rotation=45.0)
    angle = draw(16, (32, 32), (32, 32), options, 0, 0, TARGET, 0, 1).angle
    turned = augment(bright, options, seed=0, step=0)
    far = angle.abs() > 0.3
    assert far.any()
    assert (turned[far][:, 0, 0, 0] == -1).all()
    torch.testing.assert_close(turned[:, :, 8:24, 8:24], bright[:, :, 8:24, 8:24])
    assert angle.abs().max() <= torch.pi / 4
    assert angle.min() < 0 < angle.max()


@pytest.mark.parametrize(
    "options",
    [
        {"resize": 0.9},
        {"shift": -1},
        {"rotation": -1.0},
        {"rotation": float("nan")},
        {"zoom": 0.5},
    ],
)
def test_faulty_options(options):
    with pytest.raises(ValueError, match="expected resize and zoom >= 1, shift >= 0 and rotation"):
        Augmentation(**options)
