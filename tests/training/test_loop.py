"""The loop: resumed runs, bounds, guards, and what a run folder holds."""

import json
import zipfile

import pytest
import torch
from tiny_gan import different, not_a_number, tiny, tiny_data

from fastmrigan.errors import CheckFailed, InputRejected, ModelRefused, UsageError
from fastmrigan.training import checkpoint, session
from fastmrigan.training.data import TrainingData
from fastmrigan.training.logging import read_metrics
from fastmrigan.training.loop import train
from fastmrigan.training.recipe_file import load_recipe
from fastmrigan.training.systems import gan


@pytest.fixture
def plots():
    """A test that names this fixture draws its plots."""


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    """Drawing a plot takes longer than the tiny run it is of."""
    if "plots" not in request.fixturenames:
        monkeypatch.setattr(session, "plot_losses", lambda *args, **options: None)


@pytest.fixture
def data() -> TrainingData:
    return tiny_data()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("flip", ["false", "true"])
def test_resumed_run_ends_with_the_same_bits(tmp_path, data, precision, flip):
    recipe = [f"precision={precision}", f"augmentation.horizontal_flip={flip}"]
    recipe += ["deviations.instance_noise=0.1"] if flip == "true" else []
    train(tiny("steps=12", *recipe), data, tmp_path / "whole")
    for steps in (5, 12):
        train(tiny(f"steps={steps}", *recipe), data, tmp_path / "parts")
    whole, parts = (checkpoint.load(tmp_path / name) for name in ("whole", "parts"))
    assert different(whole, parts) == [".elapsed"]

    def timeless(run):
        return [
            {k: v for k, v in row.items() if not k.endswith("seconds")}
            for row in read_metrics(tmp_path / run / "metrics.jsonl")
        ]

    assert timeless("whole") == timeless("parts")
    assert [row["step"] for row in timeless("parts")] == list(range(1, 13))


def test_lines_after_the_checkpoint_are_not_doubled(tmp_path, data):
    run = tmp_path / "run"
    train(tiny("steps=3"), data, run)
    with (run / "metrics.jsonl").open("a") as file:  # as a killed session leaves it
        file.write(json.dumps({"step": 4, "epoch": 1.6, "loss_d": 9.0}) + '\n{"step": 5, "ep')
    train(tiny("steps=5"), data, run)
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[3]["loss_d"] != 9.0


def test_run_folder_and_pruning(tmp_path, data, plots):
    run = tmp_path / "run"
    recipe = tiny(
        "steps=10", "checkpoint_every=2", "sample_every=4", "keep_checkpoints=2", "plot_epochs=[2]"
    )
    result = train(recipe, data, run)
    assert (result.step, result.steps_now) == (10, 10)
    assert checkpoint.steps_of(run) == [5, 8, 10]  # 2 epochs of 10 slices at batch 4: step 5
    assert load_recipe(str(run / "config.yaml")) == recipe
    assert {path.name for path in (run / "samples").iterdir()} == {
        f"step_{step:07}.png" for step in (0, 4, 8, 10)
    }
    assert {p.name for p in (run / "plots").iterdir()} == {"loss_epoch_2.png", "loss_last.png"}
    assert list((run / "tensorboard").iterdir())
    facts = json.loads((run / "run.json").read_text())
    assert (facts["status"], facts["step"]) == ("finished", 10)
    assert not list(run.rglob("*.tmp"))
    row = read_metrics(run / "metrics.jsonl")[-1]
    assert {"loss_d", "loss_g", "d_real_accuracy", "d_fake_accuracy", "lr_g", "seconds"} <= set(row)


@pytest.mark.parametrize(
    ("overrides", "minutes", "steps"),
    [
        (["steps=3", "epochs=2"], None, 3),
        (["steps=9", "epochs=2"], 9.0, 5),  # 20 slices at batch 4
        (["epochs=3"], None, 8),  # 30 slices, the last batch runs into the fourth epoch
        (["steps=3"], 1e-9, 1),
    ],
)
def test_the_first_bound_wins(tmp_path, data, overrides, minutes, steps):
    assert train(tiny(*overrides), data, tmp_path, minutes=minutes).step == steps


def test_minutes_bound_this_call(tmp_path, data):
    result = train(tiny(), data, tmp_path, minutes=0.01)
    assert result.step > 0
    assert result.seconds_now < 20


def test_no_bound_is_an_error(tmp_path, data):
    with pytest.raises(UsageError, match="no bound; give --steps, --epochs or --minutes"):
        train(tiny(), data, tmp_path)
    with pytest.raises(UsageError, match=r"--minutes -1: expected more than 0"):
        train(tiny(), data, tmp_path, minutes=-1)


def test_a_finished_run_stays_as_it_is(tmp_path, data):
    train(tiny("steps=3"), data, tmp_path)
    watched = checkpoint.path_of(tmp_path, 3), tmp_path / "config.yaml"
    before = [path.read_bytes() for path in watched]
    assert train(tiny("steps=3"), data, tmp_path).steps_now == 0
    assert train(tiny("steps=2"), data, tmp_path).steps_now == 0
    assert [path.read_bytes() for path in watched] == before


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("batch=5", "batch: 4 -> 5"),
        ("optimiser.generator_lr=0.1", r"optimiser.generator_lr: 0.0002 -> 0.1"),
        ("precision=bf16", "precision: fp32 -> bf16"),
    ],
)
def test_another_configuration_is_refused(tmp_path, data, override, text):
    train(tiny("steps=1"), data, tmp_path)
    with pytest.raises(UsageError, match=text):
        train(tiny("steps=2", override), data, tmp_path)


def test_other_data_is_refused(tmp_path, data):
    train(tiny("steps=1"), data, tmp_path)
    other = TrainingData(data.slices, data.info | {"fingerprint": "0" * 64})
    with pytest.raises(UsageError, match=r"dataset fingerprint: f+ -> 0+"):
        train(tiny("steps=2"), other, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, data, monkeypatch):
    faulty = not_a_number(gan.generator_loss, lambda call: call > 5)
    monkeypatch.setattr(gan, "generator_loss", faulty)
    run = tmp_path / "run"
    with pytest.raises(CheckFailed, match=r"loss_g is nan at step 6.*step_0000004\.pt"):
        train(tiny("steps=20", "checkpoint_every=2", "log_every=3"), data, run)
    assert checkpoint.steps_of(run)[-1] == 4
    assert json.loads((run / "run.json").read_text())["status"].startswith("stopped")
    assert all(
        bool(torch.isfinite(p).all()) for p in checkpoint.load_generator(run).module.parameters()
    )


def cut_short(path):
    path.write_bytes(path.read_bytes()[:1000])


def emptied(path):
    path.write_bytes(b"")


def weight_flipped(path):
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 500] ^= 0x40  # past the header and its padding to 64 bytes
    path.write_bytes(content)


def every_80th_byte_flipped(path):
    content = bytearray(path.read_bytes())
    content[::80] = bytes(byte ^ 0xFF for byte in content[::80])
    path.write_bytes(content)


def saved_again(change):
    """Damage that the zip file's checksums do not show."""

    def spoil(path):
        document = torch.load(path, weights_only=True)
        change(document)
        torch.save(document, path)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        cut_short,
        emptied,
        weight_flipped,
        every_80th_byte_flipped,
        saved_again(lambda document: document.pop("step")),
        saved_again(lambda document: document.update(schema="one")),
        saved_again(lambda document: document["recipe"].update(batch=-1)),
        saved_again(lambda document: document["system"].pop("ema")),
        saved_again(lambda document: document["system"]["ema"]["generator"].popitem()),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, data, spoil):
    train(tiny("steps=2", "checkpoint_every=1"), data, tmp_path)
    path = checkpoint.path_of(tmp_path, 2)
    spoil(path)
    for use in (lambda: train(tiny("steps=3"), data, tmp_path), lambda: load_ema(tmp_path)):
        with pytest.raises(ModelRefused, match=r"step_0000002\.pt: not a .*; move it away, and"):
            use()
    path.rename(tmp_path / "away")
    assert load_ema(tmp_path).step == 1  # the remedy


def load_ema(run):
    return checkpoint.load_generator(run)


@pytest.mark.parametrize("garbage", [b"{]", b"\xff\xfe", b"[1]", b'{"epoch": 1}', b""])
def test_a_faulty_line_of_metrics_is_named(tmp_path, data, garbage):
    train(tiny("steps=2"), data, tmp_path)
    path = tmp_path / "metrics.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, garbage, second, b""]))
    with pytest.raises(InputRejected, match=r"metrics\.jsonl: line 2 is not .*; delete the line"):
        train(tiny("steps=3"), data, tmp_path)
    path.write_bytes(b"\n".join([first, second, b""]))
    assert train(tiny("steps=3"), data, tmp_path).steps_now == 1  # the remedy


def test_loading_networks_of_a_run(tmp_path, data):
    recipe = tiny("steps=4", "checkpoint_every=2")
    train(recipe, data, tmp_path)
    latents = torch.randn(5, 8)
    ema = checkpoint.load_generator(tmp_path)
    plain = checkpoint.load_generator(tmp_path, ema=False)
    untrained = checkpoint.load_untrained_generator(tmp_path)
    outputs = [loaded.module(latents) for loaded in (ema, plain, untrained)]
    assert not ema.module.training
    assert (ema.step, ema.recipe, ema.dataset) == (4, recipe, data.info)
    assert all(out.shape == (5, 1, 16, 16) and out.abs().max() <= 1 for out in outputs)
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])
    torch.testing.assert_close(outputs[0][2:3], ema.module(latents[2:3]))  # eval: slice by slice
    assert checkpoint.load_generator(tmp_path, step=2).step == 2
    assert checkpoint.load_discriminator(tmp_path).module(outputs[0]).shape == (5,)
    with pytest.raises(UsageError, match="no checkpoint of step 3; kept are 2, 4"):
        checkpoint.load_generator(tmp_path, step=3)
    with pytest.raises(UsageError, match="no checkpoint here"):
        checkpoint.load_generator(tmp_path / "nothing")


def test_sampling_and_saving_leave_training_alone(tmp_path, data):
    train(tiny("steps=6"), data, tmp_path / "a")
    train(tiny("steps=6", "sample_every=1", "checkpoint_every=1"), data, tmp_path / "b")
    a, b = (checkpoint.load(tmp_path / run)["system"] for run in "ab")
    assert different(a, b) == []
