"""The optimisation of one slice: what falls, what stays, what is asked on the way."""

from dataclasses import replace

import pytest
import torch

from fastmrigan.errors import CheckFailed, UsageError
from fastmrigan.style.losses import style_loss, style_of
from fastmrigan.style.transfer import (
    STYLE_LAYERS,
    Abandoned,
    Objective,
    StyleSettings,
    start_slice,
    transfer,
)

SETTINGS = StyleSettings(size=32, steps=20)


@pytest.fixture
def pair(contents, styles):
    return torch.from_numpy(contents)[:1, None], torch.from_numpy(styles)[:1, None]


def test_style_falls_and_the_record_is_true(normalised, pair):
    content, style = pair
    made = transfer(normalised, content, style, replace(SETTINGS, style_weight=1e6))
    assert [row["step"] for row in made.rows] == [0, 10, 20]
    totals = [row["total"] for row in made.rows]
    assert totals == sorted(totals, reverse=True)
    assert made.losses["style"] < 0.6 * made.rows[0]["style"]
    assert made.rows[0]["content"] == 0  # begun at the content
    assert made.slice.abs().max() <= 1
    # the losses are those of the slice that comes back
    wanted = style_of(normalised(style, STYLE_LAYERS))
    again = style_loss(normalised(made.slice, STYLE_LAYERS), wanted)
    assert made.losses["style"] == pytest.approx(again.item(), rel=1e-5)
    assert made.losses["total"] == pytest.approx(
        made.losses["content"] + 1e6 * made.losses["style"], rel=1e-5
    )


def test_weights_at_their_extremes(normalised, pair):
    content, style = pair
    kept = transfer(normalised, content, style, replace(SETTINGS, style_weight=0.0))
    assert torch.equal(kept.slice, content)  # begun there, nothing to do
    assert kept.steps == 0
    free = transfer(normalised, content, style, replace(SETTINGS, content_weight=0.0))
    both = transfer(normalised, content, style, SETTINGS)
    firm = transfer(normalised, content, style, replace(SETTINGS, content_weight=1e4))
    assert firm.losses["content"] < both.losses["content"] < free.losses["content"]
    assert firm.losses["style"] > both.losses["style"]


def test_content_alone_comes_back_from_noise(normalised, pair):
    """From noise, features of an early layer give the slice itself back."""
    content, style = pair
    settings = replace(
        SETTINGS,
        steps=150,
        start="noise",
        style_weight=0.0,
        content_layers=("relu1_2",),
        style_layers=("relu1_1",),
    )
    made = transfer(normalised, content, style, settings)
    start = (start_slice(content, settings, 0) - content).square().mean().sqrt()
    end = (made.slice - content).square().mean().sqrt()
    assert start > 0.5
    assert end < 0.02


def test_gradient_of_the_objective(normalised, pair):
    """Against a central difference, in float64, at an inner point."""
    content, style = (x.double() for x in pair)
    network = type(normalised)().double()
    network.load_state_dict(normalised.state_dict())
    objective = Objective(network, content, style, SETTINGS)
    torch.manual_seed(0)
    x = (0.8 * content + 0.05 * torch.randn_like(content)).clamp(-0.95, 0.95).requires_grad_()
    objective(x)[2].backward()
    direction = torch.randn_like(content)
    with torch.no_grad():
        step = 1e-7
        values = [objective(x + sign * step * direction)[2] for sign in (1, -1)]
    numeric = (values[0] - values[1]) / (2 * step)
    assert (x.grad * direction).sum().item() == pytest.approx(numeric.item(), rel=1e-4)


def test_noise_hangs_on_seed_and_index(pair):
    content, _ = pair
    settings = replace(SETTINGS, start="noise")
    first = start_slice(content, settings, 0)
    assert torch.equal(first, start_slice(content, settings, 0))
    assert not torch.equal(first, start_slice(content, settings, 1))
    assert not torch.equal(first, start_slice(content, replace(settings, seed=1), 0))


def test_smoothing_is_applied_to_the_result(normalised, pair):
    from fastmrigan.style.smoothing import smooth_edges

    content, style = pair
    plain = transfer(normalised, content, style, replace(SETTINGS, steps=5))
    smoothed = transfer(normalised, content, style, replace(SETTINGS, steps=5, smooth_edges=1.0))
    torch.testing.assert_close(smoothed.slice, smooth_edges(plain.slice, 1.0))
    assert smoothed.losses != plain.losses


def test_it_stops_when_told(normalised, pair):
    asked = []
    with pytest.raises(Abandoned):
        transfer(normalised, *pair, SETTINGS, go_on=lambda steps: bool(asked.append(steps)))
    assert asked == [10]


def test_a_loss_that_is_not_finite_stops(normalised, pair):
    with pytest.raises(CheckFailed, match="slice 7: a loss is inf at step 0; give a lower"):
        transfer(normalised, *pair, replace(SETTINGS, style_weight=1e39), index=7)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("size", 31, "--size 31: VGG19 needs at least 32"),
        ("steps", 0, "--steps 0"),
        ("seed", -1, "--seed -1"),
        ("content_weight", -1.0, "--content-weight -1.0"),
        ("style_weight", float("nan"), "--style-weight nan"),
        ("smooth_edges", float("inf"), "--smooth-edges inf"),
        ("smooth_edges", 5.0, "at most an eighth of the side, 4"),
        ("start", "style", "--start style: unknown"),
    ],
)
def test_settings_that_cannot_be_meant(field, value, told):
    with pytest.raises(UsageError, match=told):
        replace(SETTINGS, **{field: value}).check()


def test_both_weights_zero():
    with pytest.raises(UsageError, match="nothing to optimise"):
        replace(SETTINGS, content_weight=0.0, style_weight=0.0).check()
