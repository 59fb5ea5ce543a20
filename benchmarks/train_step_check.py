"""The check of train_step.py: every side takes the same step as the baseline.

From one set of weights, on the same slices, before any pool has an effect. A convolution without
the bias of its counterpart has an instance norm behind it, which removes that bias.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from train_step_baseline import RATE
from train_step_sides import SIDES, Setting, Side


class Tolerance(NamedTuple):
    loss: float  # of the baseline's value
    gradient: float  # norm of the difference over the norm, of each convolution
    turned: float  # share of the generators' weights that Adam moved elsewhere


# In fp32 gradients agree to 1e-5 unless a rounding takes one unit over the kink of a ReLU or of the
# L1 loss; one such unit was seen to turn them by 2 % in small networks, by 0.4 % in the canonical
# ones. Under autocast the baseline's own gradients turn as far (0.42), most of it at such kinks.
TOLERANCES = {"fp32": Tolerance(1e-4, 3e-2, 1e-2), "bf16": Tolerance(2e-2, 0.6, 0.2)}


class Outcome(NamedTuple):
    losses: dict[str, float]
    gradients: dict[str, Tensor]  # by "<network> <number of the convolution>": float32, flat
    moves: dict[str, Tensor]  # of each convolution's weight by the step, likewise


def convolutions(side: Side) -> dict[str, nn.Module]:
    """In the order of their making, which all sides share."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return {
        f"{name} {number}": layer
        for name, network in side.networks.items()
        for number, layer in enumerate(m for m in network.modules() if isinstance(m, kinds))
    }


@torch.no_grad()
def draw_weights(side: Side, seed: int = 0) -> None:
    """N(0, 0.02) for weights and, so that a lost bias is found, for biases: alike for all sides."""
    generator = torch.Generator().manual_seed(seed)
    for layer in convolutions(side).values():
        layer.weight.copy_(0.02 * torch.randn(layer.weight.shape, generator=generator))
        width = layer.out_channels
        bias = 0.02 * torch.randn(width, generator=generator)  # drawn for a missing one, too
        if layer.bias is not None:
            layer.bias.copy_(bias)


def one_step(side: Side, setting: Setting) -> Outcome:
    """From the drawn weights, on the setting's slices."""
    draw_weights(side)
    layers = convolutions(side)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    losses = side.step(setting.slices(0), setting.slices(1))
    return Outcome(
        {name: float(loss) for name, loss in losses.items()},
        {name: gradient(layer) for name, layer in layers.items()},
        {name: flat(layer.weight.detach() - before[name]) for name, layer in layers.items()},
    )


def gradient(layer: Any) -> Tensor:
    """Of weight and bias as one vector; of a bias that is left out it is 0, as it would be."""
    bias = layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias.grad
    return torch.cat([flat(layer.weight.grad), flat(bias)])


def flat(t: Tensor) -> Tensor:
    return t.contiguous().flatten().cpu()


def disagreements(found: Outcome, wanted: Outcome, tolerance: Tolerance) -> dict[str, float]:
    """The worst of each kind; AssertionError with all that go beyond the tolerance.

    Adam's first step moves a weight by the learning rate times the sign of its gradient, however
    small that is: where a rounding turns the sign of a gradient near 0, the weight goes the whole
    way in the other direction. The gradients are therefore what is compared closely, and of the
    weights the share that moved elsewhere by more than 1 % of the learning rate.
    """
    losses = {
        name: abs(found.losses[name] - value) / max(abs(value), 1e-12)
        for name, value in wanted.losses.items()
    }
    gradients = {
        name: float((found.gradients[name] - value).norm() / value.norm())
        for name, value in wanted.gradients.items()
    }
    pairs = [
        (found.moves[name], value)
        for name, value in wanted.moves.items()
        if name.startswith("generator")
    ]
    elsewhere = sum(int(((a - b).abs() > 0.01 * RATE).sum()) for a, b in pairs)
    turned = {"of the generators": elsewhere / sum(b.numel() for _, b in pairs)}
    worst, wrong = {}, []
    for kind, values, allowed in (
        ("loss", losses, tolerance.loss),
        ("gradient", gradients, tolerance.gradient),
        ("weights moved elsewhere", turned, tolerance.turned),
    ):
        worst[kind] = max(values.values())
        wrong += [
            f"{kind} {name} is off by {value:.2g}, allowed {allowed:g}"
            for name, value in values.items()
            if not value <= allowed
        ]
    assert not wrong, "; ".join(wrong[:6])
    return worst


def check(setting: Setting, names: list[str]) -> dict[str, dict[str, float] | str]:
    """What each side is off by, or, of one that is wrong, how."""
    wanted = one_step(SIDES["baseline"].make(setting), setting)
    found: dict[str, dict[str, float] | str] = {}
    for name in names:
        entry = SIDES[name]
        try:
            outcome = one_step(entry.make(setting), setting)
            found[name] = disagreements(outcome, wanted, TOLERANCES[entry.tolerance])
        except AssertionError as wrong:
            found[name] = str(wrong)
    return found
