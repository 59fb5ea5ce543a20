"""Recipes of every system: parameter counts as published, sections exchanged, faults named; and
`fastmrigan train` on data sets of two labels, of pairs and of two folders."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fastmrigan.errors import UsageError
from fastmrigan.training import checkpoint, session
from fastmrigan.training.logging import read_metrics
from fastmrigan.training.recipe_file import differences, load_recipe, shipped_recipes

NETWORKS = {
    "gan": ["generator", "discriminator"],
    "progan": ["generator", "discriminator"],
    "pix2pix": ["generator", "discriminator"],
    "cyclegan": ["generator", "generator_back", "discriminator", "discriminator_back"],
    "style-transfer-gan": ["generator", "generator_back", "discriminator", "discriminator_back"],
}


def counts(command, recipe, *arguments):
    """What --dry-run prints of a recipe's networks."""
    with torch.device("meta"):  # no memory, and no time spent on weights
        code, out, errors = command("train", recipe, "--dry-run", *arguments)
    assert code == 0, errors
    found = re.findall(r"^# (\w+): ([\d,]+) parameters$", out, re.MULTILINE)
    return {name: int(number.replace(",", "")) for name, number in found}


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_dry_run_names_every_network(command, name):
    system = load_recipe(name).system
    found = counts(command, name)
    assert list(found) == NETWORKS[system]
    fewest = 150_000 if name.endswith("-improved") else 500_000
    assert all(number > fewest for number in found.values())
    if "generator_back" in found and system == "cyclegan":
        assert found["generator"] == found["generator_back"]


# The published code prints its networks' sizes: 11.378 M, 54.4 M, 2.765 M at three channels. Those
# at one channel, and PatchGAN with batch norm on two, follow by hand from the first and last layer.
@pytest.mark.parametrize(
    ("recipe", "settings", "generator", "discriminator"),
    [
        ("t2-tumour-cyclegan", [], 11_365_633, 2_762_689),
        ("t2-tumour-cyclegan", ["channels=3"], 11_378_179, 2_764_737),
        ("t2-tumour-cyclegan", ["size=128", "generator.blocks=6"], 7_825_153, 2_762_689),
        ("t2-tumour-cyclegan", ["generator.network=unet"], 54_403_457, 2_762_689),
        ("t2-tumour-cyclegan", ["generator.network=unet", "size=128"], 41_819_521, 2_762_689),
        ("pix2pix-attention-unet", [], None, 2_764_609),
        ("tumour-dcgan64", [], 3_574_656, 2_763_520),
    ],
)
def test_published_parameter_counts(command, recipe, settings, generator, discriminator):
    words = [word for setting in settings for word in ("--set", setting)]
    found = counts(command, recipe, "--no-speed", *words)
    assert found["discriminator"] == discriminator
    assert generator is None or found["generator"] == generator


def test_without_inert_biases_there_are_fewer_parameters(command):
    """9 blocks of two convolutions of 256, the stem, two down, two up: every one before a norm."""
    inert = 9 * 2 * 256 + 64 + 128 + 256 + 128 + 64
    assert counts(command, "t2-tumour-cyclegan")["generator"] == 11_365_633 - inert


def test_another_network_brings_its_own_fields():
    recipe = load_recipe("t2-tumour-cyclegan", ["generator.network=unet", "generator.dropout=0.5"])
    assert recipe.generator.model_dump() == {
        "network": "unet",
        "width": 64,
        "norm": "instance",
        "dropout": 0.5,
    }  # and no `blocks`, which a U-Net has none of
    same = load_recipe("t2-tumour-cyclegan", ["generator.network=resnet", "generator.blocks=6"])
    assert (same.generator.blocks, same.generator.width) == (6, 64)
    whole = load_recipe("t2-tumour-cyclegan", ["generator={network: resnet, width: 8}"])
    assert (whole.generator.blocks, whole.generator.width) == (9, 8)
    changed = differences(load_recipe("t2-tumour-cyclegan"), recipe)
    assert "generator.network: resnet -> unet" in changed


@pytest.mark.parametrize(
    ("recipe", "settings", "text"),
    [
        ("t2-tumour-cyclegan", ["system=stylegan"], r"--set: system: .*'stylegan'.*'cyclegan'"),
        ("t2-tumour-cyclegan", ["generator.network=vit"], r"--set: generator\.network: .*'vit'"),
        (
            "t2-tumour-cyclegan",
            ["discriminator.network=dcgan"],
            r"discriminator\.network: .*'patch",
        ),
        ("t2-tumour-cyclegan", ["source_label=null"], r"give source_label and target_label togeth"),
        (
            "ct-mri-cyclegan-resnet",
            ["target_label=null"],
            r"give source_label and target_label toget",
        ),
        ("t2-tumour-cyclegan", ["generator.downs=4"], r"the nearest is 'generator\.blocks'"),
        ("t2-tumour-cyclegan", ["losses.l1=4"], r"no field 'losses\.l1' in the recipe"),
        (
            "t2-tumour-cyclegan",
            ["losses.adversarial=hinge"],
            r"losses\.adversarial: .*'log' or 'ls",
        ),
        ("t2-tumour-cyclegan", ["generator.blocks=65"], r"--set: generator\.blocks: .*equal to 64"),
        ("t2-tumour-cyclegan", ["pool=-1"], r"pool: .*greater than or equal to 0, got -1"),
        ("t2-tumour-cyclegan", ["channels=2"], r"channels: .*1 or 3, got 2"),
        ("t2-tumour-cyclegan", ["fidelity=exact"], r"fidelity: .*'reference' or 'corrected'"),
        ("t2-tumour-cyclegan", ["schedule.kind=cosine"], r"schedule\.kind: .*'constant' or 'lin"),
        ("t2-tumour-cyclegan", ["guards.then=pray"], r"guards\.then: .*'stop' or 'rollback'"),
        ("t2-tumour-cyclegan", ["augmentation.diffaugment=[color]"], r"diffaugment\.0: .*'colour'"),
        (
            "t2-tumour-cyclegan",
            ["augmentation.diffaugment=[cutout, cutout]"],
            r"augmentation\.diffaugment: .*name each policy once",
        ),
        (
            "pix2pix-attention-unet",
            ["source_label=t1", "target_label=t2"],
            r"pix2pix trains on every pair: leave source_label and target_label out",
        ),
        ("pix2pix-attention-unet", ["discriminator.network=t1t2"], r"discriminator\.network: "),
        ("pix2pix-attention-unet", ["pool=3"], r"no field 'pool' in the recipe"),
        ("tumour-progan", ["steps=null", "epochs=null"], r"grows by its bound: steps or epochs"),
        ("tumour-progan", ["growth.stage_shares=[1, 2]"], r"growth\.stage_shares: expected \d"),
        ("tumour-progan", ["compile=true"], r"compile: torch\.compile has no second derivative"),
        (
            "tumour-progan",
            ["compile=true"],
            r"--set: compile: torch\.compile has no .* the penalty$",
        ),
        (
            "t2-tumour-cyclegan",
            ["ema.decay=0.99"],
            r"ema is null in this recipe; give all of it, --set 'ema=\{decay: 0\.99\}'$",
        ),
        ("t2-tumour-cyclegan", ["ema.decay="], r"ema is null .*, --set 'ema=\{decay: …\}'$"),
        ("t2-tumour-cyclegan", ["ema.decoy=1"], r"no field 'ema\.decoy'.*nearest is 'ema\.decay'$"),
        (
            "pix2pix-attention-unet",
            ["evaluate_every=1", "best_metric=fd_random"],
            r"--set: best_metric 'fd_random': not among the figures of such a run; choose one of s",
        ),
        ("t2-tumour-cyclegan", ["notes=" + "x" * 500], r"notes: .*, got 'x{79}…$"),
    ],
)
def test_faults_are_named(recipe, settings, text):
    with pytest.raises(UsageError, match=text) as caught:
        load_recipe(recipe, settings)
    assert "\n" not in str(caught.value)


def test_a_misspelt_field_of_a_network_has_a_neighbour():
    with pytest.raises(
        UsageError, match=r"field 'generator\.widht'; the nearest is 'generator\.wi"
    ):
        load_recipe("t2-tumour-cyclegan", ["generator.widht=3"])


def test_a_size_that_the_network_cannot_have(command):
    code, _, errors = command("train", "t1-t2-cyclegan-unet-v3", "--dry-run", "--set", "size=64")
    assert code == 2
    assert re.fullmatch(r"fastmrigan: t1-t2-cyclegan-unet-v3: .*64.*\n", errors), errors


# Through the command line, on prepared slices.

COMMON = ["size=32", "batch=2", "epochs=null", "plot_epochs=[]", "sample_count=2", "log_every=1"]
COMMON += ["generator.width=4", "discriminator.width=4", "discriminator.layers=2"]
CYCLE = [*COMMON, "generator.blocks=1", "source_label=normal", "target_label=tumour"]
PAIRED = [*COMMON, "generator.units=2"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """32x32 slices: "labels" of two labels, "pairs" of twins, "ct" and "mr" of one kind each."""
    from fastmrigan.imaging.prepare import PrepareOptions, prepare

    root = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)

    def draw(*folders, count=10):
        for folder in folders:
            (root / folder).mkdir(parents=True)
            for index in range(count):
                noise = rng.integers(0, 256, (32, 32), dtype=np.uint8)
                Image.fromarray(noise).save(root / folder / f"slice{index:02}.png")

    draw("two/normal", "two/tumour", "t1", "t2")
    options = {"size": 32, "test_fraction": 0.3}
    prepare(root / "two", root / "labels", PrepareOptions(**options))
    prepare(root / "t1", root / "pairs", PrepareOptions(**options, pairs=root / "t2"))
    for name, source in (("ct", "t1"), ("mr", "t2")):
        prepare(root / source, root / name, PrepareOptions(**options))
    return root


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Drawing a plot takes longer than the tiny run it is of."""
    monkeypatch.setattr(session, "plot_losses", lambda *args, **options: None)


def trained(command, recipe, settings, *arguments):
    words = [word for setting in settings for word in ("--set", setting)]
    return command("train", recipe, *arguments, *words)


@pytest.mark.parametrize(
    ("recipe", "data", "settings", "said", "figures"),
    [
        ("t2-tumour-cyclegan", ["labels"], CYCLE, r"7 source and 7 target slices", "fd_random"),
        ("t2-tumour-cyclegan", ["pairs"], CYCLE, r"7 source and 7 target slices", "ssim"),
        ("t2-tumour-cyclegan", ["mr", "ct"], CYCLE, r"7 source and 7 target slices", "fd_random"),
        ("pix2pix-attention-unet", ["pairs"], PAIRED, r"7 pairs of slices", "ssim"),
        ("t2-tumour-cyclegan", ["labels"], [*CYCLE, "channels=3"], r"7 source and 7", "fd_random"),
        ("pix2pix-attention-unet", ["pairs"], [*PAIRED, "channels=3"], r"7 pairs", "ssim"),
    ],
)
def test_trains_and_resumes(command, prepared, tmp_path, recipe, data, settings, said, figures):
    run = tmp_path / "run"
    words = ["--data", prepared / data[0], "--out", run]
    words += ["--source-data", prepared / data[1]] if len(data) == 2 else []
    settings = [*settings, "evaluate_every=1"]
    code, out, errors = trained(command, recipe, settings, *words, "--steps", 2)
    assert code == 0, errors
    assert re.search(said, errors), errors
    assert "step 2 (epoch 0.6), 2 steps in" in out
    code, out, errors = trained(command, recipe, settings, *words, "--steps", 4)
    assert code == 0, errors
    assert "step 4 (epoch 1.1), 2 steps in" in out
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1, 2, 3, 4]
    assert figures in read_metrics(run / "evaluation.jsonl")[-1]
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert (run / "samples" / "step_0000004.png").is_file()
    loaded = checkpoint.load_generator(run)
    slices = torch.rand(2, 1, 32, 32) * 2 - 1
    assert loaded.module(slices).shape == (2, 1, 32, 32)
    facts = loaded.dataset
    assert str(prepared) not in json.dumps(facts)
    if data == ["labels"]:
        assert (facts["label"], facts["source"]["label"]) == ("tumour", "normal")


@pytest.mark.parametrize(
    ("recipe", "data", "settings", "text"),
    [
        ("pix2pix-attention-unet", ["labels"], PAIRED, "labels: not a paired data set"),
        ("pix2pix-attention-unet", ["mr", "ct"], PAIRED, "takes one dataset, --data"),
        (
            "t2-tumour-cyclegan",
            ["labels"],
            [*CYCLE, "source_label=null", "target_label=null"],
            "which slices are the source and which the target",
        ),
        ("t2-tumour-cyclegan", ["labels"], [*CYCLE, "source_label=tumour"], "name two of its lab"),
        ("t2-tumour-cyclegan", ["labels"], [*CYCLE, "source_label=norm"], "no label 'norm'"),
        ("t2-tumour-cyclegan", ["mr", "mr"], CYCLE, "source and target are the same slices"),
        ("t2-tumour-cyclegan", ["labels"], [*CYCLE, "batch=9"], "use --set batch=7"),
        ("t2-tumour-cyclegan", ["labels"], [*CYCLE, "size=64"], "prepare them with --size 64"),
    ],
)
def test_data_that_does_not_fit(command, prepared, tmp_path, recipe, data, settings, text):
    words = ["--data", prepared / data[0], "--out", tmp_path / "run", "--steps", 2]
    words += ["--source-data", prepared / data[1]] if len(data) == 2 else []
    code, _, errors = trained(command, recipe, settings, *words)
    assert code == 2
    assert re.search(text, errors), errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_other_pairs_are_refused(command, prepared, tmp_path):
    """The same recipe on the pairs and on two folders is not the same run."""
    words = ["--out", tmp_path / "run"]
    code, _, errors = trained(
        command, "t2-tumour-cyclegan", CYCLE, *words, "--data", prepared / "labels", "--steps", 1
    )
    assert code == 0, errors
    code, _, errors = trained(
        command, "t2-tumour-cyclegan", CYCLE, *words, "--data", prepared / "mr",
        "--source-data", prepared / "ct", "--steps", 2,
    )  # fmt: skip
    assert code == 2
    assert re.search(r"another configuration \(dataset fingerprint: .*dataset source", errors)
