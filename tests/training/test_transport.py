"""Where translations are to go: against the closed form of the transport, the Frechet distance as
the metrics take it, and a list of which sources a pass shows."""

import copy

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

import fastmrigan.training.transport as transport_module
from fastmrigan.metrics.features import DIMENSION, frozen_weights, random_features
from fastmrigan.metrics.frechet import frechet, frechet_distance
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.transport import (
    NETWORKS,
    Transport,
    network_of,
    slice_features,
    transport_loss,
    transported,
)

CPU = torch.device("cpu")


def rows(count, seed, columns=6):
    draws = np.random.default_rng(seed)
    mixed = draws.standard_normal((count, columns)) @ draws.standard_normal((columns, columns))
    return torch.from_numpy(mixed + draws.standard_normal(columns)).float()


def blurred(count, seed, size=32, bright=0.0):
    """Slices [count, 1, size, size] of a few soft shapes."""
    draws = np.random.default_rng(seed)
    coarse = torch.from_numpy(draws.uniform(-1, 0.6, (count, 1, 5, 5))).float()
    slices = nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    return (slices + bright).clamp(-1, 1)


def test_the_map_is_the_optimal_transport_of_two_normal_distributions():
    made, real = rows(40, 1), rows(25, 2)
    a, b = (np.cov(x.double().numpy().T) for x in (made, real))
    root = scipy.linalg.sqrtm(a).real
    inverse = np.linalg.inv(root)
    matrix = inverse @ scipy.linalg.sqrtm(root @ b @ root).real @ inverse
    away = made.double().numpy() - made.double().numpy().mean(0)
    wanted = real.double().numpy().mean(0) + away @ matrix
    np.testing.assert_allclose(transported(made, real).numpy(), wanted, atol=1e-4)


def test_rows_arrive_with_the_moments_of_the_others():
    found, real = transported(rows(40, 1), rows(25, 2)).double(), rows(25, 2).double()
    torch.testing.assert_close(found.mean(0), real.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.T.cov(), real.T.cov(), atol=1e-4, rtol=1e-4)


def cost(made, real):
    """What the way costs, its spread as unbiased as the covariances are."""
    steps = (transported(made, real) - made).double()
    away = steps - steps.mean(0)
    return float(steps.mean(0).square().sum() + away.square().sum() / (len(made) - 1))


@pytest.mark.parametrize("counts", [(40, 25), (40, 4), (2, 2)])
def test_the_way_is_as_long_as_the_frechet_distance(counts):
    made, real = rows(counts[0], 1), rows(counts[1], 2)
    wanted = frechet_distance(made.numpy(), real.numpy())
    assert cost(made, real) == pytest.approx(wanted, rel=1e-4)


def test_of_too_few_rows_it_goes_as_far_as_they_span():
    """Five rows have no covariance of rank six to arrive with."""
    made, real = rows(5, 1), rows(25, 2)
    wanted = frechet(made.numpy(), real.numpy())
    assert wanted.mean_part < cost(made, real) < wanted.distance
    again = transported(made, real)
    torch.testing.assert_close(again.mean(0), real.mean(0), atol=1e-4, rtol=1e-4)


def test_rows_that_are_not_finite_stay():
    made = rows(4, 1)
    made[2, 1] = float("nan")
    assert transported(made, rows(5, 2)) is made


def test_the_features_are_those_of_the_metric_with_another_network():
    slices = blurred(3, 0, size=64)
    found = slice_features(slices.repeat(1, 3, 1, 1), frozen_weights())
    np.testing.assert_allclose(found.numpy(), random_features(slices[:, 0].numpy()), atol=1e-5)


def pass_of(batch, ranks, step=3, count=7):
    transport = Transport(ranks)
    sources, targets = blurred(count, 1), blurred(9, 2, bright=0.3)
    draws = np.random.default_rng(5)
    transport.begin(step, sources, targets, lambda slices: slices * 0.5, draws, batch, CPU)
    return transport, sources, targets


@pytest.mark.parametrize(("batch", "world"), [(2, 1), (1, 2), (7, 1), (16, 1)])
def test_a_pass_shows_every_source_with_its_own_features(batch, world):
    parts = [pass_of(batch, Ranks(rank=rank, world=world))[0] for rank in range(world)]
    _, sources, targets = pass_of(batch, Ranks())
    by = np.random.default_rng(5)
    chosen = [by.permutation(count) for count in (7, 9)][1][:7]  # as many targets as sources
    seen = []
    step = 3
    while not parts[0].over(step):
        for part in parts:
            plan = part.plan(step, sources)
            assert plan["transport_source"].shape == (batch, 1, 32, 32)
            network = network_of(plan)
            by_source = transported(
                slice_features(sources * 0.5, network), slice_features(targets[chosen], network)
            )
            for source, wanted in zip(
                plan["transport_source"], plan["transport_wanted"], strict=True
            ):
                index = next(i for i, x in enumerate(sources) if torch.equal(x, source))
                torch.testing.assert_close(wanted, by_source[index], atol=1e-4, rtol=1e-4)
                seen.append(index)
        step += 1
    assert step == 3 + -(-7 // (batch * world))
    assert set(seen) == set(range(7))
    assert sorted(seen[:7]) == list(range(7))  # the first again only once all were there


def test_steps_take_the_networks_in_turns():
    transport, sources, _ = pass_of(1, Ranks())
    stems = [network_of(transport.plan(step, sources))[0] for step in range(3, 9)]
    assert torch.equal(stems[0], stems[NETWORKS])
    assert len({float(stem.sum()) for stem in stems}) == NETWORKS
    assert not any(torch.equal(stem, frozen_weights()[0]) for stem in stems)


def test_every_pass_has_networks_of_its_own():
    transport, sources, targets = pass_of(1, Ranks())
    first = [network_of(transport.plan(step, sources))[0] for step in range(3, 7)]
    again = np.random.default_rng(6)
    transport.begin(10, sources, targets, lambda slices: slices, again, 1, CPU)
    second = [network_of(transport.plan(step, sources))[0] for step in range(10, 14)]
    assert not any(torch.equal(one, other) for one in first for other in second)


@pytest.mark.parametrize(("most", "sources", "targets"), [(5, 7, 9), (8, 7, 9), (20, 9, 7)])
def test_a_pass_looks_at_so_many_slices(monkeypatch, most, sources, targets):
    """No more targets than sources: so few could not take on their covariance."""
    monkeypatch.setattr(transport_module, "SLICES", most)
    seen = []

    def watched(made, real):
        seen.append((len(made), len(real)))
        return transported(made, real)

    monkeypatch.setattr(transport_module, "transported", watched)
    draws = np.random.default_rng(0)
    transport = Transport(Ranks())
    of_sources = min(most, sources)
    transport.begin(0, blurred(sources, 1), blurred(targets, 2), lambda x: x, draws, 1, CPU)
    assert seen == [(of_sources, min(most, targets, of_sources))] * NETWORKS
    assert transport.over(of_sources)
    assert not transport.over(of_sources - 1)


def test_a_pass_goes_on_from_its_state():
    transport, sources, _ = pass_of(2, Ranks())
    resumed = Transport(Ranks())
    assert resumed.over(4)
    resumed.load_state_dict(copy.deepcopy(transport.state_dict()))
    assert not resumed.over(4)
    assert resumed.over(7)
    wanted = transport.plan(4, sources)
    for name, found in resumed.plan(4, sources).items():
        assert torch.equal(found, wanted[name]), name


def test_slices_held_to_it_come_nearer_by_a_network_it_never_saw():
    """A gain for each of 8x8 places of each slice, learnt in passes. Judged by fd-random, whose
    network no pass draws."""
    sources, targets = blurred(24, 1), blurred(30, 2, bright=0.25)
    gains = torch.zeros(24, 1, 8, 8, requires_grad=True)
    adam = torch.optim.Adam([gains], 0.05)
    numbers = {source.numpy().tobytes(): i for i, source in enumerate(sources)}

    def translated(slices):
        chosen = [numbers[source.numpy().tobytes()] for source in slices]
        gain = nn.functional.interpolate(gains[chosen], (32, 32), mode="bilinear")
        return (slices + gain).clamp(-1, 1)

    def distance():
        with torch.no_grad():
            made = translated(sources)[:, 0].numpy()
        return frechet_distance(random_features(made), random_features(targets[:, 0].numpy()))

    before = distance()
    transport = Transport(Ranks())
    for step in range(60):
        if transport.over(step):
            draws = np.random.default_rng(step)
            with torch.no_grad():
                transport.begin(step, sources, targets, translated, draws, 8, CPU)
        plan = transport.plan(step, sources)
        assert plan["transport_wanted"].shape == (8, DIMENSION)
        loss = transport_loss(
            translated(plan["transport_source"]), network_of(plan), plan["transport_wanted"]
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert distance() < before / 4
