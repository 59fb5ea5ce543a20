"""Guards: what they call a collapse and what not, real allocation failures, who rolls back."""

import json
import math
import re

import numpy as np
import pytest
import torch

from fastmrigan.errors import UsageError
from fastmrigan.training.guards import CollapseGuard, Rollback, not_finite, out_of_memory, seed_of
from fastmrigan.training.recipe import Recipe
from fastmrigan.training.recipe_file import load_recipe

WON = {"real_accuracy": 1.0, "fake_accuracy": 1.0, "loss": 1e-5}
HEALTHY = {"real_accuracy": 0.8, "fake_accuracy": 0.7, "loss": 0.9}
ALL_REAL = {"real_accuracy": 1.0, "fake_accuracy": 0.0, "loss": 1.4}
ALL_FAKE = {"real_accuracy": 0.0, "fake_accuracy": 1.0, "loss": 1.4}
SAME_LOGIT = {**HEALTHY, "spread": 0.0}


def said(guard, rows):
    """The step (from 1) of the first word, and the word."""
    for step, row in enumerate(rows, 1):
        word = guard.told(**row)
        if word is not None:
            return step, word
    return None


@pytest.mark.parametrize(
    ("rows", "step", "text"),
    [
        ([WON] * 10, 10, "has won: in each of the last 10 steps .* 99.5 % .* below 0.001"),
        ([WON] * 9 + [HEALTHY] + [WON] * 10, 20, "has won"),
        ([ALL_REAL] * 10, 10, r"has lost: .* \(now 100.0 % of real and 0.0 % of fake right\)"),
        ([ALL_REAL, ALL_FAKE] * 5, 10, "has lost"),
        ([{"real_accuracy": 0.1, "fake_accuracy": 0.2, "loss": 4.0}] * 10, 10, "has lost"),
        ([SAME_LOGIT] * 10, 10, "is constant: in each of the last 10 steps .* the same logit"),
    ],
)
def test_a_collapse_is_named_at_its_tenth_step(rows, step, text):
    guard = CollapseGuard(steps=10, name="discriminator_b")
    found, word = said(guard, rows)
    assert found == step
    assert word.startswith("discriminator_b ")
    assert "\n" not in word
    assert re.search(text, word)


@pytest.mark.parametrize(
    "rows",
    [
        [HEALTHY] * 30,
        [WON] * 9,
        ([WON] * 9 + [HEALTHY]) * 3,
        [{**WON, "loss": 0.02}] * 30,  # wins, but not yet by as much: there are gradients
        [{**WON, "fake_accuracy": 0.99}] * 30,
        [{**ALL_REAL, "fake_accuracy": 0.05}] * 30,  # poor, yet better than one verdict on all
        [{**HEALTHY, "spread": 0.01}] * 30,
    ],
)
def test_what_is_no_collapse(rows):
    assert said(CollapseGuard(steps=10), rows) is None


@pytest.mark.parametrize("batch", [1, 16, 128])
def test_a_discriminator_at_chance_is_no_collapse(batch):
    """The fixed point of Goodfellow et al. 2014, section 4.1: verdicts are coin tosses."""
    draws = np.random.default_rng(batch)
    shares = draws.binomial(batch, 0.5, (20_000, 2)) / batch
    rows = [{"real_accuracy": r, "fake_accuracy": f, "loss": 2 * math.log(2)} for r, f in shares]
    assert said(CollapseGuard(steps=50), rows) is None


def test_the_critic_of_wgan_gp_has_no_verdicts():
    for row in ({**WON, "loss": -40.0}, ALL_REAL):
        assert said(CollapseGuard(steps=5, adversarial="wgan-gp"), [row] * 50) is None
    assert said(CollapseGuard(steps=5, adversarial="wgan-gp"), [SAME_LOGIT] * 5)[0] == 5


def test_a_real_discriminator_that_wins_and_one_that_is_dead():
    """Trained on slices any network can part, then with its weights set to zero."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    optimiser = torch.optim.Adam(network.parameters(), 0.05)
    bce = torch.nn.functional.binary_cross_entropy_with_logits

    def step(guard):
        real, fake = torch.full((4, 1, 8, 8), 0.9), torch.full((4, 1, 8, 8), -0.9)
        on_real, on_fake = network(real), network(fake)
        loss = bce(on_real, torch.ones(4, 1)) + bce(on_fake, torch.zeros(4, 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        logits = torch.cat([on_real, on_fake]).detach()
        return guard.told(
            real_accuracy=float((on_real > 0).float().mean()),
            fake_accuracy=float((on_fake < 0).float().mean()),
            loss=float(loss.detach()),
            spread=float(logits.std() / max(1.0, float(logits.abs().mean()))),
        )

    won = CollapseGuard(steps=20)
    words = [step(won) for _ in range(200)]
    assert words[19] is None
    assert "has won" in words[-1]
    optimiser.param_groups[0]["lr"] = 0.0
    for parameter in network.parameters():
        parameter.data.zero_()
    dead = CollapseGuard(steps=20)
    words = [step(dead) for _ in range(20)]
    assert words[18] is None
    assert "is constant" in words[19]


def test_a_resumed_guard_goes_on_counting_and_forgets_when_told():
    first, second = CollapseGuard(steps=10), CollapseGuard(steps=10)
    assert said(first, [WON] * 6) is None
    second.load(json.loads(json.dumps(first.state())))
    assert said(second, [WON] * 6)[0] == 4
    second.forget()
    assert said(second, [WON] * 9) is None


@pytest.mark.parametrize("options", [{"steps": 0}, {"adversarial": "hinge"}])
def test_a_guard_refuses(options):
    with pytest.raises(UsageError, match="CollapseGuard: expected"):
        CollapseGuard(**options)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"step": 7, "loss_d": 0.1, "loss_g": 2}, None),
        ({"step": 1234, "loss_d": math.nan, "loss_g": math.inf}, "loss_d is nan at step 1,234"),
        ({"step": 3, "loss_d": 0.1, "loss_g": -math.inf}, "loss_g is -inf at step 3"),
        ({"loss": math.inf}, "loss is inf"),
        ({"step": 3, "note": "nan", "loss": None}, None),
    ],
)
def test_not_finite(row, text):
    assert not_finite(row) == text


def failure(make):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        make()
    return caught.value


REAL_FAILURES = {
    "torch's CPU allocator": lambda: torch.empty(1 << 60, dtype=torch.uint8),
    "a kernel's output": lambda: torch.zeros(1).expand(1 << 50) + 1,
    "numpy": lambda: np.empty(1 << 60, np.uint8),
}


@pytest.mark.parametrize("name", REAL_FAILURES)
def test_real_allocation_failures_name_the_batch(name):
    error = failure(REAL_FAILURES[name])
    word = out_of_memory(error, {"batch": 24})
    assert isinstance(word, UsageError)
    assert str(word) == "out of memory at batch 24; try --set batch=12"


@pytest.mark.parametrize(
    ("error", "batch", "size", "text"),
    [
        (torch.OutOfMemoryError("x"), 3, None, "out of GPU memory at batch 3; try --set batch=1"),
        (torch.OutOfMemoryError("x"), 1, 256, "precision=bf16, or --set size=128"),
        (MemoryError(), 1, None, "try --set precision=bf16, or a smaller --set size"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"), 2, None, "batch=1"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), 2, None, "batch=1"),
    ],
)
def test_out_of_memory_advice(error, batch, size, text):
    assert text in str(out_of_memory(error, {"batch": batch}, size=size))


def test_the_larger_batch_is_to_be_halved():
    recipe = load_recipe("t2-tumour-cyclegan-improved")
    assert str(out_of_memory(MemoryError(), recipe.batches)) == (
        "out of memory at batch 4 and losses.transport_batch 16; try --set losses.transport_batch=8"
    )
    assert load_recipe("t2-tumour-cyclegan", ["batch=3"]).batches == {"batch": 3}


@pytest.mark.parametrize(
    ("batch", "advice"), [(8, "--set batch=4"), (1, "--set precision=bf16, or --set size=32")]
)
def test_a_run_with_a_checkpoint_cannot_follow_the_advice_where_it_is(batch, advice):
    """Neither batch nor precision nor size is free on resume."""
    assert {"batch", "precision", "size"}.isdisjoint(Recipe.free_on_resume)
    assert str(out_of_memory(MemoryError(), {"batch": batch}, size=64, resumable=True)) == (
        f"out of memory at batch {batch}; try {advice}, with another --out: the run that this one "
        "holds keeps its settings"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, 3) @ torch.zeros(2, 3),
        lambda: torch.zeros(2).view(3),
        lambda: torch.nn.Conv2d(1, 1, 3)(torch.zeros(1, 2, 8, 8)),
    ],
)
def test_other_errors_are_not_about_memory(make):
    assert out_of_memory(failure(make), {"batch": 4}) is None


def test_rollback_goes_back_with_new_streams_up_to_its_limit():
    policy = Rollback("rollback", limit=2)
    decisions = [policy.decide("loss_g is nan at step 70", 60) for _ in range(3)]
    assert [d.action for d in decisions] == ["roll back", "roll back", "stop"]
    assert [d.stream for d in decisions[:2]] == [1, 2]
    assert decisions[1].reason == (
        "loss_g is nan at step 70; going back to step 60 with random stream 2 (2 of 2)"
    )
    assert "already taken back 2 times (the limit)" in decisions[2].reason


@pytest.mark.parametrize(
    ("policy", "checkpoint_step", "reason"),
    [
        (Rollback(), 60, "fault"),
        (Rollback("rollback"), None, "fault; no checkpoint to go back to"),
        (Rollback("rollback", limit=0), 60, "fault; already taken back 0 times (the limit)"),
    ],
)
def test_rollback_stops(policy, checkpoint_step, reason):
    decision = policy.decide("fault", checkpoint_step)
    assert (decision.action, decision.reason, policy.taken) == ("stop", reason, 0)


def test_the_checkpoint_gone_back_to_does_not_reset_the_limit():
    policy = Rollback("rollback", limit=3)
    at_the_checkpoint = json.loads(json.dumps(policy.state()))
    policy.decide("fault", 60)
    policy.load(at_the_checkpoint)
    assert policy.decide("fault", 60).stream == 2
    resumed = Rollback("rollback", limit=3)
    resumed.load(policy.state())
    assert resumed.decide("fault", 60).stream == 3


def test_rollback_refuses():
    for options in ({"mode": "retry"}, {"limit": -1}):
        with pytest.raises(UsageError, match="Rollback: expected mode stop or rollback"):
            Rollback(**options)


def test_streams_have_seeds_of_their_own():
    assert seed_of(5, 0) == 5
    seeds = {seed_of(seed, stream) for seed in range(50) for stream in range(20)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(seed_of(2**63 - 1, 1))
