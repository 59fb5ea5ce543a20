"""What the run's own discriminator is asked."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from fastmrigan.errors import ModelRefused
from fastmrigan.metrics import run_measures
from fastmrigan.metrics.needs import lacking
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.models.progan import ProganDiscriminator


class Brightness(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(1, 2, 3))


def loaded(module=None, system="gan", **options):
    recipe = SimpleNamespace(batch=16, system=system)
    return SimpleNamespace(
        module=module or Brightness(), recipe=recipe, options=options, path=Path("step_1.pt")
    )


def slices_of(brightness, held_out, groups=None):
    slices = np.broadcast_to(np.float32(brightness)[:, None, None], (len(brightness), 8, 8)).copy()
    return SliceSet(Path("real"), slices, np.array(held_out), groups=groups)


def test_the_discriminator_judges_by_the_batch_as_in_training():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.AvgPool2d(8)).eval()
    network[0].running_mean.fill_(100)  # far from any slice: every logit would be below 0
    slices = np.random.default_rng(0).normal(0, 1, (40, 8, 8)).astype(np.float32)
    logits = run_measures.discriminator_logits(loaded(network), slices, seed=0)
    assert logits.shape == (40,)
    assert logits.mean() == pytest.approx(0, abs=1e-5)
    assert (logits > 0).any()


def test_logits_are_in_the_order_of_the_slices():
    brightness = np.random.default_rng(0).uniform(-1, 1, 40).astype(np.float32)
    real = slices_of(brightness, [False] * 40)
    found = run_measures.discriminator_logits(loaded(), real.slices, seed=3)
    np.testing.assert_allclose(found, brightness, rtol=1e-6)


@pytest.mark.parametrize("decimals", [0, 1, 6])  # few decimals: many ties
def test_ranks_agree_with_scipys_u_statistic(decimals):
    dice = np.random.default_rng(decimals)
    first, second = dice.normal(0.3, 1, 50).round(decimals), dice.normal(0, 1, 31).round(decimals)
    expected = mannwhitneyu(first, second).statistic / (50 * 31)
    assert run_measures.ranked_above(first, second) == pytest.approx(expected, abs=1e-12)


def test_memory_is_whole_where_every_training_slice_is_above():
    real = slices_of(np.linspace(-1, 1, 30), [True] * 10 + [False] * 20)
    found = run_measures.memory(loaded(), real, seed=0)
    assert (found.value, found.interval) == (1.0, (1.0, 1.0))
    assert found.over == "20 training and 10 held-out slices"


def test_batches_of_both_kinds_leave_batch_norm_no_side_to_take_away():
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(1), Brightness()).eval()
    dice = np.random.default_rng(0)
    brightness = dice.normal(0, 0.05, 200) + np.repeat([0.5, -0.5], 100)
    real = slices_of(brightness, [False] * 100 + [True] * 100)
    assert run_measures.memory(loaded(norm), real, seed=0).value > 0.99


def test_heads_are_drawn_whole_for_the_interval():
    dice = np.random.default_rng(0)
    brightness = np.repeat(dice.normal(0, 1, 20), 10)  # ten slices alike of each head
    held_out = [False] * 100 + [True] * 100
    alone = run_measures.memory(loaded(), slices_of(brightness, held_out), seed=0)
    heads = np.repeat(np.arange(20), 10)
    grouped = run_measures.memory(loaded(), slices_of(brightness, held_out, heads), seed=0)
    assert grouped.value == alone.value
    assert np.ptp(grouped.interval) > 2 * np.ptp(alone.interval)
    one = np.repeat([0, 1], 100)  # a head each: nothing to draw
    assert run_measures.memory(loaded(), slices_of(brightness, held_out, one), 0).interval is None


@pytest.mark.parametrize(
    ("system", "held_out", "keys"),
    [
        ("gan", 10, ["train", "test", "synthetic", "memory"]),
        ("gan", 0, ["train", "synthetic"]),
        ("progan", 10, ["memory"]),  # a critic's scores have no zero
        ("progan", 0, []),
    ],
)
def test_what_is_asked_of_a_discriminator_and_of_a_critic(monkeypatch, system, held_out, keys):
    monkeypatch.setattr(run_measures, "load_discriminator", lambda run: loaded(system=system))
    real = slices_of(np.linspace(-1, 1, 30), np.arange(30) < held_out)
    found = run_measures.discriminator_measures(Path("run"), real, real, seed=0)
    assert [measure.key for measure in found] == [f"discriminator_{key}" for key in keys]


def test_one_held_out_slice_has_no_interval():
    real = slices_of(np.linspace(-1, 1, 30), np.arange(30) < 1)
    found = run_measures.memory(loaded(), real, seed=0)
    assert (found.value, found.interval) == (1.0, None)


def test_scores_that_are_not_finite_are_refused():
    real = slices_of([0.1, np.nan, 0.3], [False] * 3)
    with pytest.raises(ModelRefused, match="discriminator gives scores that are not finite"):
        run_measures.discriminator_logits(loaded(), real.slices, seed=0)


@pytest.mark.parametrize("count", [5, 21, 48])
def test_a_critic_is_asked_in_whole_batches_as_far_as_it_has_faded_in(count):
    torch.manual_seed(0)
    critic = ProganDiscriminator(size=8, width=8).eval()
    critic.initialise()
    seen = []

    def record(module, arguments, options):
        seen.append((len(arguments[0]), options))

    critic.register_forward_pre_hook(record, with_kwargs=True)
    slices = np.random.default_rng(0).normal(0, 0.5, (count, 8, 8)).astype(np.float32)
    found = run_measures.discriminator_logits(loaded(critic, "progan", alpha=0.25), slices, seed=1)
    assert seen == [(16, {"alpha": 0.25})] * -(-count // 16)
    assert found.shape == (count,)
    if count == 48:  # no slice twice: the logits of the order that the seed draws
        order = np.random.default_rng(1).permutation(48)
        with torch.no_grad():
            expected = [
                critic(torch.from_numpy(slices[rows])[:, None], alpha=0.25)
                for rows in np.split(order, 3)
            ]
        np.testing.assert_array_equal(found[order], torch.cat(expected).numpy())


@pytest.mark.parametrize(
    ("task", "system", "held_out", "facts", "reason"),
    [
        ("sample", "gan", 0, ("a", "tumour"), ""),
        ("sample", "progan", 10, ("a", "tumour"), ""),
        ("sample", "progan", 0, ("a", "tumour"), "of a critic needs held-out real slices"),
        ("sample", "gan", 10, ("b", "tumour"), "needs --real and --label to be what the run was"),
        ("sample", "gan", 10, ("a", None), "needs --real and --label to be what the run was"),
        ("translate", "cyclegan", 10, ("a", "tumour"), "needs the --run of a GAN that makes slice"),
    ],
)
def test_what_the_measure_needs(task, system, held_out, facts, reason):
    real = slices_of(np.linspace(-1, 1, 30), np.arange(30) < held_out)
    real.facts["fingerprint"], label = facts
    recipe = SimpleNamespace(task=task, system=system)
    trained = SimpleNamespace(recipe=recipe, dataset={"fingerprint": "a", "label": "tumour"})
    inputs = SimpleNamespace(real=real, made=real, trained=trained, label=label)
    assert lacking("discriminator", inputs).startswith(reason)
    assert bool(lacking("discriminator", inputs)) == bool(reason)
