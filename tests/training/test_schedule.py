"""Schedules against torch's LambdaLR, driven in the order of calls of the published code."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from fastmrigan.errors import UsageError
from fastmrigan.training.schedule import constant, linear_decay


def driven(lengths, lead, *, first_epoch=1, step_first):
    """{epoch: factor it trains at} of a LambdaLR stepped at the start or the end of each epoch.

    `lead` is what the rule adds to the scheduler's own count of epochs.
    """
    n, d = lengths
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = LambdaLR(optimiser, lambda count: 1 - max(0, count + lead - n) / (d + 1))
    factors = {}
    for epoch in range(first_epoch, n + d + 1):
        if step_first:
            optimiser.step()  # torch warns where a scheduler is stepped before its optimiser
            scheduler.step()
        factors[epoch] = optimiser.param_groups[0]["lr"]
        optimiser.step()
        if not step_first:
            scheduler.step()
    return factors


LENGTHS = [(100, 100), (100, 0), (0, 4), (3, 5), (1, 1)]


def ours(lengths, fidelity, first_epoch=1):
    n, d = lengths
    return {
        epoch: linear_decay(epoch, constant_epochs=n, decay_epochs=d, fidelity=fidelity)
        for epoch in range(first_epoch, n + d + 1)
    }


@pytest.mark.parametrize("lengths", LENGTHS)
def test_reference_is_the_published_order_of_calls(lengths):
    # As it stands: epoch_count (1) in the rule, stepped before each epoch.
    assert driven(lengths, 1, step_first=True) == ours(lengths, "reference")
    # An older form of it: epoch_count + 1 in the rule, stepped after each epoch. The same factors.
    assert driven(lengths, 2, step_first=False) == ours(lengths, "reference")


@pytest.mark.parametrize("first", [2, 101, 150, 200])
def test_reference_resumed_with_epoch_count_gives_the_same(first):
    resumed = driven((100, 100), first, first_epoch=first, step_first=True)
    assert resumed == ours((100, 100), "reference", first)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_corrected_is_the_same_rule_without_the_early_step(lengths):
    assert driven(lengths, 1, step_first=False) == ours(lengths, "corrected")


@pytest.mark.parametrize(
    ("fidelity", "epoch", "factor"),
    [
        ("reference", 1, 1.0),
        ("reference", 99, 1.0),
        ("reference", 100, 100 / 101),
        ("reference", 150, 50 / 101),
        ("reference", 199, 1 / 101),
        ("reference", 200, 0.0),
        ("corrected", 100, 1.0),
        ("corrected", 101, 100 / 101),
        ("corrected", 199, 2 / 101),
        ("corrected", 200, 1 / 101),
    ],
)
def test_two_hundred_epochs_by_hand(fidelity, epoch, factor):
    found = linear_decay(epoch, constant_epochs=100, decay_epochs=100, fidelity=fidelity)
    assert found == pytest.approx(factor, abs=1e-15)


def test_the_last_reference_epoch_is_exactly_zero():
    for _, d in LENGTHS:
        assert linear_decay(3 + d, constant_epochs=3, decay_epochs=d) == 0.0


@pytest.mark.parametrize("epoch", [1, 20_000])
def test_constant(epoch):
    assert constant(epoch) == 1.0


@pytest.mark.parametrize(
    ("epoch", "options", "text"),
    [
        (0, {}, "epoch 0 lies outside the epochs 1 to 5"),
        (6, {}, "lengthen constant_epochs or decay_epochs"),
        (1, {"decay_epochs": -1}, "expected lengths of 0 epochs or more, got .* decay_epochs -1"),
        (1, {"fidelity": "exact"}, "fidelity 'exact': expected reference or corrected"),
    ],
)
def test_what_it_refuses(epoch, options, text):
    with pytest.raises(UsageError, match=text):
        linear_decay(epoch, **{"constant_epochs": 2, "decay_epochs": 3, **options})
