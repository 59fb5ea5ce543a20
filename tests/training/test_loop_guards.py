"""The loop where training fails, and what it decides by itself: roll-backs, collapse, a lack of
memory, the best checkpoint, the schedule's rates."""

import copy
import json

import pytest
import torch
from small_systems import slices, small
from tiny_gan import different, not_a_number, tiny, tiny_data

from fastmrigan.errors import CheckFailed, InputRejected, ModelRefused, UsageError
from fastmrigan.training import augmenting, checkpoint, session
from fastmrigan.training.data import TrainingData
from fastmrigan.training.logging import read_metrics
from fastmrigan.training.loop import train
from fastmrigan.training.systems import cyclegan, gan, system_of
from fastmrigan.training.systems.sampling import calibrate

ROLLBACK = ["guards.then=rollback", "checkpoint_every=2", "keep_checkpoints=9"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes longer than the tiny run that is drawn."""
    monkeypatch.setattr(session, "plot_losses", lambda *args, **options: None)
    monkeypatch.setattr(session, "write_run_page", lambda *args, **options: None)


@pytest.fixture
def nan_in(monkeypatch):
    """nan_in(calls) spoils the generator's loss in the calls (from 1) for which `calls` is true."""
    honest = gan.generator_loss

    def spoil(calls):
        monkeypatch.setattr(gan, "generator_loss", not_a_number(honest, calls))

    return spoil


def facts(run):
    return json.loads((run / "run.json").read_text())


def test_a_run_goes_back_and_takes_another_way(tmp_path, monkeypatch, nan_in, capsys):
    shown = []
    honest = augmenting.Batches.of_step

    def seen(batches, step):
        batch = honest(batches, step)
        shown.append((step, batch.target))
        return batch

    monkeypatch.setattr(augmenting.Batches, "of_step", seen)
    nan_in(lambda call: call == 6)
    result = train(tiny("steps=10", *ROLLBACK), tiny_data(), tmp_path)
    assert result.step == 10
    assert "loss_g is nan at step 6; going back to step 4 with random stream 1 (1 of 3)" in (
        capsys.readouterr().err
    )
    assert [step for step, _ in shown] == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9]
    assert not torch.equal(shown[4][1], shown[6][1])  # another order of slices
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert (facts(tmp_path)["status"], facts(tmp_path)["rollbacks"]) == ("finished", 1)
    assert checkpoint.steps_of(tmp_path) == [2, 4, 6, 8, 10]


def test_a_run_that_went_back_shows_other_augmentations(tmp_path, monkeypatch, nan_in):
    """What discriminators are shown is drawn anew, too, or the same way leads to the same fault."""
    honest, drawn = gan.Gan.plan, []

    def plan(system, count, clock):
        found = honest(system, count, clock)
        drawn.append((clock.step, found["shown real 0"]))
        return found

    monkeypatch.setattr(gan.Gan, "plan", plan)
    nan_in(lambda call: call == 6)
    settings = ["steps=7", *ROLLBACK, "augmentation.diffaugment=[translation]"]
    train(tiny(*settings), tiny_data(), tmp_path)
    assert [step for step, _ in drawn] == [0, 1, 2, 3, 4, 5, 4, 5, 6]
    assert not torch.equal(drawn[4][1], drawn[6][1])
    assert not torch.equal(drawn[5][1], drawn[7][1])


def test_a_run_stopped_at_the_limit_remembers_it(tmp_path, nan_in, capsys):
    """Begun again it stops at once: it went back as often once more, the same ways as before."""
    nan_in(lambda call: call >= 6)
    for taken_back in (2, 0):
        with pytest.raises(CheckFailed, match="already taken back 2 times"):
            train(tiny("steps=10", *ROLLBACK, "guards.rollbacks=2"), tiny_data(), tmp_path)
        assert capsys.readouterr().err.count("going back to step 4") == taken_back
    assert facts(tmp_path)["rollbacks"] == 2


def test_a_run_that_went_back_resumes_exactly(tmp_path, nan_in):
    nan_in(lambda call: call == 6)
    train(tiny("steps=10", *ROLLBACK), tiny_data(), tmp_path / "whole")
    nan_in(lambda call: call == 6)
    for steps in (8, 10):
        train(tiny(f"steps={steps}", *ROLLBACK), tiny_data(), tmp_path / "parts")
    whole, parts = (checkpoint.load(tmp_path / run) for run in ("whole", "parts"))
    assert different(whole, parts) == [".elapsed"]


def test_the_average_is_fitted_anew_after_going_back(tmp_path, nan_in):
    """Step 6 is sampled from weights that are thrown away; when it comes again its batch norm must
    fit the new ones."""
    nan_in(lambda call: call == 5)
    recipe = tiny("steps=6", *ROLLBACK, "sample_every=6", "log_every=100")
    train(recipe, tiny_data(), tmp_path)
    assert facts(tmp_path)["rollbacks"] == 1
    saved = checkpoint.load(tmp_path, 6)["system"]["ema"]["generator"]
    network = system_of(recipe).make(recipe)["generator"]
    network.load_state_dict(copy.deepcopy(saved))
    calibrate(network, recipe)
    torch.testing.assert_close(network.state_dict(), saved)


@pytest.mark.parametrize(
    ("calls", "settings", "text", "kept"),
    [
        (lambda call: call >= 6, ["guards.rollbacks=2"], r"already taken back 2 times \(the", 4),
        (lambda call: call == 1, [], r"loss_g is nan at step 1; no checkpoint to go back to", None),
        (lambda call: call == 6, ["guards.then=stop"], r"loss_g is nan at step 6, so the run", 4),
    ],
)
def test_a_run_that_may_not_go_back_stops(tmp_path, nan_in, calls, settings, text, kept):
    nan_in(calls)
    with pytest.raises(CheckFailed, match=text):
        train(tiny("steps=10", *ROLLBACK, *settings), tiny_data(), tmp_path)
    assert facts(tmp_path)["status"].startswith("stopped: loss_g is nan")
    assert checkpoint.steps_of(tmp_path)[-1:] == ([] if kept is None else [kept])


def test_the_last_step_too_may_go_back(tmp_path, nan_in):
    nan_in(lambda call: call == 5)
    train(tiny("steps=5", *ROLLBACK, "log_every=100"), tiny_data(), tmp_path)
    assert (facts(tmp_path)["status"], facts(tmp_path)["rollbacks"]) == ("finished", 1)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_a_weight_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    honest = gan.Gan.step

    def step(system, batch, clock):
        rows = honest(system, batch, clock)
        if clock.step == 3:
            next(system.networks["generator"].parameters()).data[0] = torch.inf
        return rows

    monkeypatch.setattr(gan.Gan, "step", step)
    with pytest.raises(CheckFailed, match=r"a weight is no longer finite at step 4.*step_0000002"):
        train(tiny("steps=10", "checkpoint_every=2"), tiny_data(), tmp_path)
    assert checkpoint.steps_of(tmp_path) == [2]


def test_a_discriminator_that_wins_stops_the_run(tmp_path):
    """In earnest: constant slices are told from generated ones at once."""
    data = TrainingData(torch.ones(10, 1, 16, 16), tiny_data().info)
    settings = ["guards.collapse_steps=5", "steps=400", "precision=fp32"]
    settings += ["optimiser.discriminator_lr=0.01", "optimiser.generator_lr=1e-9"]
    with pytest.raises(CheckFailed, match=r"discriminator has won: in each of the last 5 steps"):
        train(tiny(*settings), data, tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["loss_d"] < 1e-3
    assert rows[-1]["d_real_accuracy"] == rows[-1]["d_fake_accuracy"] == 1.0


def two_domains(size=32):
    info = {"fingerprint": "f" * 64, "label": None, "training_slices": 6}
    return TrainingData(slices(6, 1, size), info, slices(5, 2, size))


@pytest.mark.parametrize("winner", ["discriminator", "discriminator_back"])
def test_of_two_discriminators_the_collapsed_one_is_named(tmp_path, monkeypatch, winner):
    honest = cyclegan.CycleGan.discriminator_loss

    def won(system, name, *arguments):
        loss, share, _ = honest(system, name, *arguments)
        wins = name == winner
        share = torch.full_like(share, 1.0 if wins else 0.8)
        return loss * (not wins), share, share

    monkeypatch.setattr(cyclegan.CycleGan, "discriminator_loss", won)
    recipe = small("t2-tumour-cyclegan", "guards.collapse_steps=3", "steps=9")
    with pytest.raises(CheckFailed, match=rf": {winner} has won: in each of the last 3 steps"):
        train(recipe, two_domains(), tmp_path)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2  # the third was the last straw


@pytest.mark.parametrize(
    ("settings", "after", "text"),
    [
        (["batch=4"], 0, r"out of memory at batch 4; try --set batch=2$"),
        (["batch=4"], 3, r"out of memory at batch 4; try --set batch=2, with another --out"),
        (["batch=5"], 0, r"out of memory at batch 5; try --set batch=2$"),
    ],
)
def test_out_of_memory_names_the_batch(tmp_path, monkeypatch, settings, after, text):
    honest = gan.Gan.step

    def step(system, batch, clock):
        if clock.step == after:
            torch.empty(2**50)  # 4 PiB: the allocator's own error
        return honest(system, batch, clock)

    monkeypatch.setattr(gan.Gan, "step", step)
    with pytest.raises(UsageError, match=text):
        train(tiny("steps=5", "checkpoint_every=1", *settings), tiny_data(), tmp_path)
    assert facts(tmp_path)["status"] == "stopped: out of memory"
    assert checkpoint.steps_of(tmp_path)[-1:] == ([after] if after else [])


def test_other_errors_of_torch_are_passed_on(tmp_path, monkeypatch):
    def step(system, batch, clock):
        raise RuntimeError("expected scalar type Float but found Half")

    monkeypatch.setattr(gan.Gan, "step", step)
    with pytest.raises(RuntimeError, match="Float but found Half"):
        train(tiny("steps=5"), tiny_data(), tmp_path)


def test_a_file_that_fails_in_the_middle_costs_nothing(tmp_path, monkeypatch):
    honest = augmenting.Batches.of_step

    def failing(batches, step):
        if step == 5:
            raise InputRejected("slices.npy: slice 3 cannot be read")
        return honest(batches, step)

    monkeypatch.setattr(augmenting.Batches, "of_step", failing)
    with pytest.raises(InputRejected, match="slice 3"):
        train(tiny("steps=9", "checkpoint_every=100"), tiny_data(), tmp_path)
    assert checkpoint.steps_of(tmp_path) == [5]
    assert facts(tmp_path)["status"] == "stopped: the data cannot be read"
    monkeypatch.undo()
    monkeypatch.setattr(session, "plot_losses", lambda *args, **options: None)
    assert train(tiny("steps=9"), tiny_data(), tmp_path).steps_now == 4


def figures_of(monkeypatch, values):
    """Evaluations give these, one after the other."""
    left = list(values)
    monkeypatch.setattr(
        gan.Gan, "figures", lambda system, seed: {"fd_random": left.pop(0), "fd_random_floor": 0.1}
    )
    return left


EVALUATED = ["evaluate_every=1", "best_metric=fd_random", "checkpoint_every=2"]


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path, monkeypatch):
    """Epochs of 10 slices at batch 4 end at steps 3, 5, 8, 10, 13, 15."""
    left = figures_of(monkeypatch, [3.0, 1.0, 2.0, 4.0, 0.5, float("nan")])
    settings = [*EVALUATED, "keep_checkpoints=1"]
    train(tiny("steps=10", *settings), tiny_data(), tmp_path)
    assert checkpoint.steps_of(tmp_path) == [5, 10]
    assert facts(tmp_path)["best"] == {"metric": "fd_random", "value": 1.0, "step": 5}
    train(tiny("steps=15", *settings), tiny_data(), tmp_path)
    assert checkpoint.steps_of(tmp_path) == [13, 15]
    rows = read_metrics(tmp_path / "evaluation.jsonl")
    assert [row["step"] for row in rows] == [3, 5, 8, 10, 13, 15]
    assert [row["epoch"] for row in rows] == [1.2, 2.0, 3.2, 4.0, 5.2, 6.0]
    assert [row["fd_random"] for row in rows[:5]] == [3.0, 1.0, 2.0, 4.0, 0.5]
    assert not left  # once an epoch, the last one not twice


def test_a_last_step_that_is_the_best_is_remembered(tmp_path, monkeypatch):
    figures_of(monkeypatch, [3.0, 1.0, 2.0, 2.0])
    settings = [*EVALUATED, "keep_checkpoints=1"]
    train(tiny("steps=4", *settings), tiny_data(), tmp_path)  # 4: in the middle of an epoch
    assert checkpoint.load(tmp_path)["watch"]["best"]["step"] == 4
    train(tiny("steps=8", *settings), tiny_data(), tmp_path)
    assert checkpoint.steps_of(tmp_path) == [4, 8]


def test_where_a_call_ends_does_not_choose_the_best(tmp_path, monkeypatch):
    """Its last evaluation, before one is due, is shown and no more."""
    figures_of(monkeypatch, [0.5, 3.0, 1.0])
    train(tiny(*EVALUATED), tiny_data(), tmp_path, minutes=1e-9)  # a single step
    assert [row["step"] for row in read_metrics(tmp_path / "evaluation.jsonl")] == [1]
    assert checkpoint.load(tmp_path)["watch"]["best"]["step"] is None
    train(tiny("steps=5", *EVALUATED), tiny_data(), tmp_path)
    assert facts(tmp_path)["best"] == {"metric": "fd_random", "value": 1.0, "step": 5}


def test_going_back_forgets_evaluations_of_the_way_not_taken(tmp_path, monkeypatch, nan_in):
    figures_of(monkeypatch, [3.0, 1.0, 2.0, 2.5])
    nan_in(lambda call: call == 6)
    settings = [*ROLLBACK, "evaluate_every=1", "best_metric=fd_random", "checkpoint_every=4"]
    train(tiny("steps=8", *settings), tiny_data(), tmp_path)
    assert facts(tmp_path)["rollbacks"] == 1
    assert [row["step"] for row in read_metrics(tmp_path / "evaluation.jsonl")] == [3, 5, 8]
    assert facts(tmp_path)["best"]["step"] == 5  # its own checkpoint was the one gone back to


def test_evaluation_leaves_training_alone(tmp_path):
    train(tiny("steps=6"), tiny_data(), tmp_path / "a")
    train(tiny("steps=6", "evaluate_every=1"), tiny_data(), tmp_path / "b")
    a, b = (checkpoint.load(tmp_path / run) for run in "ab")
    assert different(a["system"], b["system"]) == []
    assert different(a["torch_rng"], b["torch_rng"]) == []
    rows = read_metrics(tmp_path / "b" / "evaluation.jsonl")
    assert [row.keys() for row in rows] == [{"step", "epoch", "fd_random", "fd_random_floor"}] * 3


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("fid", "best_metric: unknown; known are .*, got 'fid'"),
        ("ssim", "best_metric 'ssim': not among"),
    ],
)
def test_a_best_metric_that_is_not_measured(tmp_path, metric, text):
    with pytest.raises(UsageError, match=text):
        train(tiny("steps=3", "evaluate_every=1", f"best_metric={metric}"), tiny_data(), tmp_path)


@pytest.mark.parametrize(
    ("fidelity", "factors"),
    [("reference", [1, 2 / 3, 1 / 3, 0]), ("corrected", [1, 1, 2 / 3, 1 / 3])],
)
def test_linear_schedule(tmp_path, fidelity, factors):
    """Two epochs at the full rate, two falling, of 8 slices at batch 4: two steps each."""
    schedule = "schedule={kind: linear, constant_epochs: 2, decay_epochs: 2}"
    settings = ["checkpoint_every=2", "keep_checkpoints=9", "epochs=9"]
    recipe = tiny(*settings, schedule, f"fidelity={fidelity}", "optimiser.generator_lr=3e-7")
    result = train(recipe, tiny_data(8), tmp_path)
    assert result.step == 8  # the schedule's end, however many epochs are asked for
    rows = read_metrics(tmp_path / "metrics.jsonl")
    for name, rate in {"lr_g": 3e-7, "lr_d": 2e-4}.items():
        expected = [rate * factor for factor in factors for _ in range(2)]
        assert [row[name] for row in rows] == pytest.approx(expected, rel=1e-6, abs=0)
    before, after = (checkpoint.load(tmp_path, step)["system"] for step in (6, 8))
    for name, network in system_of(recipe).make(recipe).items():
        for key, _ in network.named_parameters():
            same = torch.equal(before["networks"][name][key], after["networks"][name][key])
            assert same == (factors[-1] == 0), f"{name}.{key}"


def test_a_checkpoint_of_an_earlier_version(tmp_path):
    train(tiny("steps=2"), tiny_data(), tmp_path)
    path = checkpoint.path_of(tmp_path, 2)
    torch.save({"schema": 1, "step": 2, "networks": {}}, path)
    text = r"step_0000002\.pt: checkpoint schema 1 of an earlier fastmrigan, this version reads 2; "
    for use in (
        lambda: train(tiny("steps=3"), tiny_data(), tmp_path),
        lambda: checkpoint.load_generator(tmp_path),
    ):
        with pytest.raises(ModelRefused, match=text + "go on with that one, or begin a new run"):
            use()
    torch.save({"schema": 3}, path)
    with pytest.raises(ModelRefused, match="schema 3, this version reads 2; update fastmrigan"):
        checkpoint.load_generator(tmp_path)
