"""The training-step benchmark: all its sides take the same step, and its check finds those that
do not. Tiny networks; nothing here is about time."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # as a script there has it

import train_step  # noqa: E402
from train_step_baseline import POOL, Baseline, Pool, make_discriminator, make_generator  # noqa: E402
from train_step_check import TOLERANCES, disagreements, one_step  # noqa: E402
from train_step_sides import BASELINE, SIDES, Changed, Changes, Ours, Setting  # noqa: E402

TINY = {"size": 32, "width": 4, "blocks": 1}


def test_baseline_networks_have_the_published_sizes():
    counts = [
        sum(parameter.numel() for parameter in network.parameters())
        for network in (make_generator(), make_generator(blocks=6), make_discriminator())
    ]
    assert counts == [11_365_633, 7_825_153, 2_762_689]
    slices = torch.zeros(1, 1, 256, 256)
    with torch.no_grad():
        assert make_generator(4)(slices).shape == slices.shape
        assert make_discriminator(4)(slices).shape == (1, 1, 30, 30)


@pytest.fixture(scope="module")
def baseline_step():
    return {
        batch: one_step(BASELINE.make(Setting(batch=batch, **TINY)), Setting(batch=batch, **TINY))
        for batch in (1, 2)
    }


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", [name for name in SIDES if name != "torch.compile"])
def test_every_side_takes_the_baselines_step(name, batch, baseline_step):
    setting, entry = Setting(batch=batch, **TINY), SIDES[name]
    outcome = one_step(entry.make(setting), setting)
    disagreements(outcome, baseline_step[batch], TOLERANCES[entry.tolerance])


class WrongIdentity(Baseline):
    def identities(self, source, target):
        there, back, *_ = self.networks.values()
        return there(source), back(target)


class Exchanged(Baseline):
    def step(self, source, target):
        return super().step(target, source)


class IdentityWithoutGradient(Baseline):
    """All losses are right, but one is not learnt from."""

    def identities(self, source, target):
        same_target, same_source = super().identities(source, target)
        return same_target.detach(), same_source


def losses_with(**changed):
    return {"losses": {"adversarial": "lsgan", "cycle": 10.0, "identity": 0.5} | changed}


WRONG = {
    "identity halved": (partial(Ours, **losses_with(identity=0.25)), "loss_g is"),
    "identity not times the cycle's weight": (
        partial(Ours, **losses_with(identity_times_cycle=False)),
        "loss_g is",
    ),
    "cycle halved": (partial(Ours, **losses_with(cycle=5.0)), "loss_g is"),
    "log losses": (partial(Ours, **losses_with(adversarial="log")), "loss_g_target is"),
    "discriminator's loss not halved": (
        partial(Ours, **losses_with(discriminator=1.0)),
        "loss_d_target is",
    ),
    "learning rate": (
        partial(Ours, optimiser={"generator_lr": 1e-4, "discriminator_lr": 2e-4}),
        "weights moved elsewhere",
    ),
    "identity of the wrong domain": (
        lambda s: WrongIdentity(s.width, s.blocks),
        "loss_identity_target is",
    ),
    "source and target exchanged": (lambda s: Exchanged(s.width, s.blocks), "loss_g_target is"),
    "identity without its gradient": (
        lambda s: IdentityWithoutGradient(s.width, s.blocks),
        "gradient generator 0 is",
    ),
    # A fault of PyTorch's: the gradient of nn.InstanceNorm2d where the one of its output is
    # channels_last, at batch 1 (torch 2.13). Where this fails, the ablation may have channels_last
    # alone.
    "PyTorch's instance norm in channels_last": (
        lambda s: Changed(s, Changes(channels_last=True)),
        "gradient generator 0 is",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_the_check_finds(mistake, baseline_step):
    make, text = WRONG[mistake]
    setting = Setting(**TINY)
    with pytest.raises(AssertionError, match=text):
        disagreements(one_step(make(setting), setting), baseline_step[1], TOLERANCES["fp32"])


def test_the_pool_shows_new_fakes_until_it_is_full_and_then_half_of_the_time_old_ones():
    random.seed(0)
    pool = Pool()
    first = torch.arange(float(POOL)).reshape(POOL, 1, 1, 1)
    assert torch.equal(pool.query(first), first)
    later = torch.full((400, 1, 1, 1), 1000.0)
    old = int((pool.query(later) < POOL).sum())
    assert 0 < old <= POOL
    assert sum(float(fake) < POOL for fake in pool.kept) == POOL - old
    assert len(pool.kept) == POOL


def test_figures_of_a_row_by_hand():
    times = {"baseline": [2.0, 2.2, 2.4], "ours, speed, bf16": [1.0, 1.0, 1.2]}
    taken = {
        name: [{"seconds": second, "faults": 5} for second in seconds]
        for name, seconds in times.items()
    }
    about = {
        "baseline": {"peak_mb": 1000.0, "share": 0.9},
        "ours, speed, bf16": {"peak_mb": 810.0, "share": 0.5},
    }
    row = train_step.compare("ours, speed, bf16", taken, about)
    assert row["ratio"]["of_medians"] == pytest.approx(2.2)
    assert row["ratio"]["per_round"] == pytest.approx(2.0)
    assert row["of_baseline_peak"] == pytest.approx(0.81)
    assert row["met"] == {"time": True, "memory": False}


def test_the_convolutions_share_of_a_step():
    x = torch.randn(1, 16, 64, 64, requires_grad=True)
    layer = nn.Conv2d(16, 16, 7)
    share = train_step.convolution_share(lambda: layer(x).sum().backward())
    assert 0.3 < share <= 1
    assert train_step.convolution_share(lambda: x.sin().sum().backward()) == 0


def test_a_wrong_side_is_not_timed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(train_step, "check", lambda *_: {"ours, speed": "the loss is off"})
    file = tmp_path / "found.json"
    threads = str(torch.get_num_threads())
    arguments = ["--size", "32", "--only", "ours, speed", "--threads", threads]
    assert train_step.main([*arguments, "--json", str(file)]) == 6
    assert "32 ours, speed: WRONG RESULT, not timed: the loss is off" in capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    assert rows == [{"side": "ours, speed", "size": 32, "wrong": "the loss is off"}]


@pytest.mark.slow
def test_the_whole_benchmark_on_tiny_networks(tmp_path):
    file = tmp_path / "found.json"
    command = [sys.executable, BENCHMARKS / "train_step.py", "--rounds", "2", "--threads", "1"]
    for name, value in TINY.items():
        command += [f"--{name}", str(value)]
    for name in ("ours, speed", "fused Adam"):
        command += ["--only", name]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [*map(str, command), "--json", str(file)], capture_output=True, text=True, env=env
    )
    assert done.returncode in (0, 6), done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [row["side"] for row in rows] == ["ours, speed", "fused Adam"]
    assert done.returncode == (0 if all(met for row in rows for met in row["met"].values()) else 6)
    for row in rows:
        for side in ("baseline", row["side"]):
            assert row["times"][side]["median_ms"] > 0
            assert row["peak_mb"][side] > 50
            assert 0 < row["convolution_share"][side] <= 1
    assert "limit: the baseline's convolutions are" in done.stdout
