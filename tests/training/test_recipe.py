"""Recipes: what is shipped, and how a faulty one is refused."""

import pytest
import yaml

from fastmrigan.errors import UsageError
from fastmrigan.training.networks import parameter_count
from fastmrigan.training.recipe_file import differences, load_recipe, shipped_recipes
from fastmrigan.training.systems import system_of


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_survive_a_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.paper
    assert recipe.notes
    path = tmp_path / "again.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(str(path)) == recipe


def test_tumour_dcgan64_is_the_papers():
    recipe = load_recipe("tumour-dcgan64")
    assert (recipe.size, recipe.batch, recipe.epochs, recipe.loss) == (64, 128, 20_000, "bce")
    assert recipe.optimiser.generator_lr == recipe.optimiser.discriminator_lr == 2e-4
    assert recipe.optimiser.betas == (0.5, 0.999)
    assert recipe.precision == "fp32"
    assert recipe.plot_epochs == (1000, 5000, 10000, 20000)
    assert recipe.deviations.model_dump() == {
        "real_label": 1.0,
        "instance_noise": 0.0,
        "instance_noise_steps": 1000,
    }
    assert "0.002" in recipe.notes[0]
    networks = system_of(recipe).make(recipe)
    assert {name: parameter_count(network) for name, network in networks.items()} == {
        "generator": 3_574_656,
        "discriminator": 2_763_520,
    }


def test_overrides():
    recipe = load_recipe(
        "tumour-dcgan64",
        ["batch=7", "label=tumour", "optimiser.generator_lr=1e-4", "epochs=null", "seed=3"],
    )
    assert (recipe.batch, recipe.label, recipe.epochs, recipe.seed) == (7, "tumour", None, 3)
    assert recipe.optimiser.generator_lr == 1e-4
    assert recipe.optimiser.discriminator_lr == 2e-4


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("batch", "expected key=value"),
        ("bacth=3", "no field 'bacth' in the recipe; the nearest is 'batch'"),
        ("generator_lr=3", "nearest is 'optimiser.generator_lr'"),
        ("lr=3", "'optimiser.generator_lr' or 'optimiser.discriminator_lr'"),
        ("generator=3", "no field 'generator'"),
        ("batch.x=3", "no field 'batch.x'"),
        ("zzz=3", "known are name, paper"),
        ("batch=0", "batch: Input should be greater than 0, got 0"),
        ("batch=many", "batch: .*valid integer.*got 'many'"),
        ("size=48", "size: must be a power of two from 16 to 1024, got 48"),
        ("precision=fp8", "precision: .*'fp32' or 'bf16'"),
        ("ema.decay=1", "ema.decay: .*less than 1"),
        ("batch={", "not readable as YAML"),
        ("size=8192", "size: must be a power of two from 16 to 1024, got 8192"),
        (f"seed={2**63}", f"seed: .*less than {2**63}, got {2**63}"),
        ("seed=-1", "seed: .*greater than or equal to 0"),
        ("seed=" + "9" * 30, "seed: "),
        ("seed=" + "9" * 5000, "not readable as YAML"),
        ("optimiser.betas=[1.5, 2]", r"optimiser\.betas\.0: .*less than 1, got 1\.5"),
        ("optimiser.betas=[0.5, .nan]", r"optimiser\.betas\.1: .*finite"),
        ("optimiser.generator_lr=.inf", r"optimiser\.generator_lr: .*finite"),
        ("generator.width=100000000", r"generator\.width: .*less than or equal to 1024"),
        ("discriminator.width=1025", r"discriminator\.width: .*less than or equal to 1024"),
        ("generator.latent=65537", r"generator\.latent: .*less than or equal to 65536"),
        ("best_metric=fid", r"best_metric: unknown; known are ssim \(higher is .*, got 'fid'$"),
        (
            "best_metric=fd_random",
            "best_metric fd_random: nothing is evaluated; give --set evaluat",
        ),
    ],
)
def test_faulty_overrides(override, text):
    with pytest.raises(UsageError, match=text):
        load_recipe("tumour-dcgan64", [override])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("- a\n- b\n", "expected `field: value` lines, got list"),
        ("name: [", "not readable as YAML"),
        ("name: x\npaper: y\nsystem: gan\n", "generator: Field required"),
        (
            "name: x\npaper: y\n",
            "no field 'system': what is trained, one of gan, progan, cyclegan, pix2pix, style-tr",
        ),
        (None, "unknown field 'optimiser.momentum'"),
    ],
)
def test_faulty_files(tmp_path, content, text):
    path = tmp_path / "mine.yaml"
    if content is None:
        document = yaml.safe_load(load_recipe("tumour-dcgan64").to_yaml())
        document["optimiser"]["momentum"] = 0.1
        content = yaml.safe_dump(document)
    path.write_text(content)
    with pytest.raises(UsageError, match=text) as caught:
        load_recipe(str(path))
    assert "mine.yaml" in str(caught.value)


def test_an_unknown_recipe_lists_the_shipped_ones():
    with pytest.raises(
        UsageError,
        match=r"no recipe named 'tumor'; the nearest is 'tum.*; shipped are ct-mri.*tumour-dcgan64",
    ):
        load_recipe("tumor")


def test_a_recipe_mistyped_has_a_neighbour():
    with pytest.raises(
        UsageError, match=r"no recipe named 't2-tumor-cyclegan'; the nearest is 't2-t"
    ):
        load_recipe("t2-tumor-cyclegan")
    with pytest.raises(UsageError, match=r"no recipe named 'zzz'; shipped are"):
        load_recipe("zzz")


def test_bounds():
    recipe = load_recipe("tumour-dcgan64", ["batch=128", "epochs=3"])
    assert recipe.total_steps(100) == 3  # 300 slices, 2.3 batches
    assert load_recipe("tumour-dcgan64", ["steps=2", "epochs=3"]).total_steps(100) == 2
    assert load_recipe("tumour-dcgan64", ["epochs=null"]).total_steps(100) is None


def test_differences_leave_bounds_and_housekeeping_out():
    old = load_recipe("tumour-dcgan64")
    new = load_recipe("tumour-dcgan64", ["steps=3", "sample_every=7", "optimiser.betas=[0.9, 0.9]"])
    assert differences(old, new) == ["optimiser.betas: [0.5, 0.999] -> [0.9, 0.9]"]
