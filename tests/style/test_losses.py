"""Content, style and cycle losses against the paper's formulas, written out."""

import pytest
import torch

from fastmrigan.style.losses import (
    content_loss,
    cycle_loss,
    gram,
    style_cycle_loss,
    style_loss,
    style_of,
)


def reference_gram(features):
    """G_ij = sum over k of F_ik F_jk, one slice."""
    channels = [channel.reshape(-1).tolist() for channel in features]
    return torch.tensor(
        [[sum(a * b for a, b in zip(i, j, strict=True)) for j in channels] for i in channels]
    )


def reference_style(found, wanted):
    """Equation 4 for one slice at equal sizes."""
    channels, positions = found.shape[0], found.shape[1] * found.shape[2]
    difference = reference_gram(found) - reference_gram(wanted)
    return (difference**2).sum() / (4 * channels**2 * positions**2)


@pytest.fixture
def features():
    torch.manual_seed(0)
    shapes = {"relu1_1": (2, 3, 4, 5), "relu2_1": (2, 6, 2, 2)}
    return tuple({name: torch.rand(shape) for name, shape in shapes.items()} for _ in range(2))


def test_gram_against_the_sum(features):
    found = features[0]["relu1_1"]
    for i in range(2):
        torch.testing.assert_close(gram(found)[i], reference_gram(found[i]))


def test_style_loss_against_the_formula(features):
    found, wanted = features
    expected = sum(
        reference_style(found[name][i], wanted[name][i]) for name in found for i in range(2)
    )
    torch.testing.assert_close(style_loss(found, wanted), expected / 4)  # 2 layers, 2 slices
    torch.testing.assert_close(style_loss(found, style_of(wanted)), expected / 4)


def test_style_loss_knows_no_positions_and_no_size(features):
    found = features[0]
    moved = {name: x.flatten(2).flip(2).reshape(x.shape) for name, x in found.items()}
    assert style_loss(moved, found).item() == pytest.approx(0, abs=1e-12)
    tiled = {name: x.repeat(1, 1, 2, 3) for name, x in found.items()}
    assert style_loss(tiled, found).item() == pytest.approx(0, abs=1e-12)
    assert content_loss(moved, found).item() > 0.1


def test_content_loss_against_the_formula(features):
    found, wanted = features
    expected = sum(0.5 * ((found[name] - wanted[name]) ** 2).sum() for name in found) / 2
    torch.testing.assert_close(content_loss(found, wanted), expected)


@pytest.mark.parametrize("loss", [cycle_loss, style_cycle_loss])
def test_cycle_losses_are_mean_absolute_differences(loss):
    assert loss(torch.tensor([[[[1.0, -1.0]]]]), torch.tensor([[[[0.5, 0.5]]]])).item() == 1.0


@pytest.mark.parametrize("loss", [content_loss, style_loss])
def test_gradients(loss, features):
    """Against a central difference, in float64."""
    found, wanted = ({name: x.double() for name, x in side.items()} for side in features)
    x = found["relu2_1"].clone().requires_grad_()
    rest, target = found["relu1_1"], wanted

    def value(y):
        return loss({"relu1_1": rest, "relu2_1": y}, target)

    value(x).backward()
    direction = torch.randn_like(x)
    with torch.no_grad():
        numeric = (value(x + 1e-5 * direction) - value(x - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((x.grad * direction).sum(), numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", [content_loss, style_loss])
def test_losses_of_half_precision_are_float32(loss, features):
    found, wanted = ({n: 100 * x.bfloat16() for n, x in side.items()} for side in features)
    assert loss(found, wanted).dtype == torch.float32


@pytest.mark.parametrize("loss", [content_loss, style_loss])
def test_layers_must_be_the_same(loss, features):
    found, wanted = features
    with pytest.raises(ValueError, match=r"same layers on both sides.*\['relu1_1'\]"):
        loss({"relu1_1": found["relu1_1"]}, wanted)
    with pytest.raises(ValueError, match="at least one"):
        loss({}, {})
