"""What a hostile review of the engine found: each was wrong once."""

import json
import re
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from small_systems import slices, small

from fastmrigan.errors import CheckFailed, UsageError
from fastmrigan.training import checkpoint, distributed, loop, session
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import ranks_of_this_run
from fastmrigan.training.evaluation import drop_figures_after
from fastmrigan.training.loading import load_training_data
from fastmrigan.training.loop import train
from fastmrigan.training.recipe_file import load_recipe

INFO = {"fingerprint": "f" * 64, "label": None, "training_slices": 6}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(session, "plot_losses", lambda *args, **options: None)


def sides(recipe, count=6, *, paired=False, held_out=None):
    size = recipe.size
    sources = None if recipe.task == "sample" else slices(count, 2, size)
    return TrainingData(slices(count, 1, size), INFO, sources, paired, held_out)


def test_an_averaged_translator_has_batch_norm_that_fits_its_weights(tmp_path):
    """It kept the statistics of an untrained network: mean 0, variance 1."""
    recipe = small("pix2pix-attention-unet", "ema={decay: 0}", "steps=2", "generator.dropout=0.5")
    data = sides(recipe, paired=True)
    train(recipe, data, tmp_path)
    averaged = checkpoint.load_generator(tmp_path).module
    plain = checkpoint.load_generator(tmp_path, ema=False).module
    # decay 0: the same weights, so that its batch norm over all slices is the whole difference
    norms = [m for m in plain.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    plain(data.sources)
    for norm in norms:
        norm.eval()
    with torch.no_grad():
        made, wanted = averaged(data.sources), plain(data.sources)
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=0)


def test_a_progressive_gan_is_not_taken_before_it_is_grown(tmp_path, monkeypatch):
    """Its last stages, untrained, were exported as if they were the model."""
    recipe = small("tumour-progan", "steps=20", "checkpoint_every=10", "keep_checkpoints=9")
    train(recipe, sides(recipe), tmp_path)
    with pytest.raises(UsageError, match="has grown to 8x8 so far, and what makes 32x32 is untra"):
        checkpoint.load_generator(tmp_path, step=10)
    assert checkpoint.load_generator(tmp_path).module.options == {"alpha": 1.0}


def test_a_last_stage_still_fading_in_is_taken_as_it_was_trained(tmp_path):
    recipe = small("tumour-progan", "steps=6", "growth.fade_share=0.9")
    train(recipe, sides(recipe), tmp_path)
    alpha = checkpoint.load(tmp_path)["system"]["more"][0]["alpha"]
    assert 0 < alpha < 1
    loaded = checkpoint.load_generator(tmp_path)
    latents = torch.randn(2, 8)
    with torch.no_grad():
        wanted = loaded.module.generator(latents, alpha=alpha).clamp(-1, 1)
        torch.testing.assert_close(loaded.module(latents), wanted)
    assert checkpoint.load_discriminator(tmp_path).options == {"alpha": alpha}


@pytest.mark.parametrize("back", [False, True])
def test_a_translators_file_states_what_goes_in_and_what_comes_out(back):
    """The source's contrast was looked for where it is not, and the grading was the other side's
    with --back."""
    pytest.importorskip("onnx")
    from fastmrigan.export.onnx import facts_of

    recipe = small("t2-tumour-cyclegan")
    dataset = {"contrast": "t2", "grading": {"method": "minmax"}, "source_contrast": "t1"}
    dataset["source"] = {"grading": {"method": "window"}}
    loaded = SimpleNamespace(recipe=recipe, dataset=dataset, step=1, averaged=False)
    facts = facts_of(loaded, back)
    found = (facts.source_contrast, facts.target_contrast, facts.grading["method"])
    assert found == (("t2", "t1", "window") if back else ("t1", "t2", "minmax"))


def test_the_style_pair_takes_any_batch_when_exported():
    """Its kept reference was spread over len(content) slices, which froze the batch."""
    recipe = small("style-transfer-gan")
    generator = checkpoint.system_of(recipe).make(recipe)["generator"]
    generator.initialise()
    generator.eval().reference.copy_(slices(1, 5))
    batch = {"content": {0: torch.export.Dim("batch")}}
    exported = torch.export.export(generator, (slices(2, 3),), dynamic_shapes=batch).module()
    three = slices(3, 4)
    with torch.no_grad():
        wanted = generator(three, generator.reference.expand(3, -1, -1, -1))
        torch.testing.assert_close(exported(three), wanted)


@pytest.mark.parametrize(
    ("overrides", "paired", "count", "text"),
    [
        (["evaluate_every=1", "best_metric=psnr"], False, 6, "choose one of fd_random"),
        (["evaluate_every=1", "best_metric=fd_random"], True, 6, "choose one of ssim, ssim_brain"),
        (
            ["evaluate_every=1"],
            False,
            3,
            "the Frechet distance needs at least 4",
        ),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused_before_the_first_step(
    tmp_path, overrides, paired, count, text
):
    recipe = small("t2-tumour-cyclegan", *overrides)
    held_out = sides(recipe, 3, paired=True) if paired else None
    with pytest.raises(UsageError, match=re.escape(text)):
        train(recipe, sides(recipe, count, held_out=held_out), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_weights_gone_are_said_to_be_before_they_are_evaluated(tmp_path):
    """The evaluation stumbled over NaN slices: a usage error, and no roll-back."""
    recipe = small("t2-tumour-cyclegan", "optimiser.generator_lr=1e38", "evaluate_every=1")
    recipe = recipe.model_copy(update={"steps": 1})
    with pytest.raises(CheckFailed, match="a weight is no longer finite at step 1"):
        train(recipe, sides(recipe), tmp_path)


def test_an_error_without_a_word_of_its_own_ends_the_run_in_its_files(tmp_path, monkeypatch):
    def fail(*args):
        raise UsageError("anything")

    monkeypatch.setattr(loop.Loop, "evaluate", fail)
    recipe = small("t2-tumour-cyclegan", "evaluate_every=1")
    with pytest.raises(UsageError, match="anything"):
        train(recipe, sides(recipe), tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "stopped: UsageError"


def test_one_value_a_channel_is_no_bug_of_ours(tmp_path):
    recipe = small("pix2pix-attention-unet", "generator.units=5", "batch=1")
    with pytest.raises(UsageError, match="one value a channel to normalise where a layer is 1x1"):
        train(recipe, sides(recipe, paired=True), tmp_path)


def test_figures_of_steps_that_come_again_are_forgotten(tmp_path):
    rows = [json.dumps({"step": step, "epoch": 1.0}) + "\n" for step in (2, 4, 6)]
    (tmp_path / "evaluation.jsonl").write_text("".join(rows))
    drop_figures_after(tmp_path, 4)
    assert (tmp_path / "evaluation.jsonl").read_text() == "".join(rows[:2])


@pytest.mark.parametrize("override", ["generator.network=[1]", "system=[1]", "system={}"])
def test_a_name_that_is_no_text_is_a_usage_error(override):
    with pytest.raises(UsageError, match=r"does not match any of the expected tags|no field"):
        load_recipe("tumour-dcgan64", [override])


def test_the_style_pair_may_have_its_domains_in_two_datasets(tmp_path):
    recipe = small("style-transfer-gan")
    with pytest.raises(UsageError) as raised:
        load_training_data(tmp_path / "a", recipe, source_data=tmp_path / "b")
    assert "takes one dataset" not in str(raised.value)


def test_a_lost_process_is_told_as_that(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for name in ("init_process_group", "new_group", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *args, **options: None)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: [(None, 1, 2)])
    lost = pytest.raises(UsageError, match="rank 1: another process of this run has ended")
    with lost, ranks_of_this_run("cpu"):
        raise RuntimeError("gloo/pair.cc:553] Connection closed by peer [127.0.0.1]:2962")
    with pytest.raises(RuntimeError, match="size mismatch"), ranks_of_this_run("cpu"):
        raise RuntimeError("size mismatch")


@pytest.mark.parametrize(
    ("rank", "word", "silent"), [(0, "stopped", False), (1, "stopped", True), (1, "own", False)]
)
def test_what_all_ranks_end_with_is_printed_by_the_first(monkeypatch, rank, word, silent):
    """And what one rank alone ends with by that one. Each has its exit code."""
    monkeypatch.setattr(distributed, "PATIENCE", timedelta(seconds=0.1))
    store = torch.distributed.HashStore()
    for name in ("init_process_group", "new_group", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *args, **options: None)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: [(store, rank, 2)])
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    assert not distributed.first_says(store, 1, "stopped")  # before the first has ended
    assert not distributed.first_says(store, 0, "stopped")
    before = sys.stderr
    with pytest.raises(CheckFailed, match=word), distributed.ranks_of_this_run("cpu"):
        raise CheckFailed(word)
    assert (sys.stderr is not before) == silent
