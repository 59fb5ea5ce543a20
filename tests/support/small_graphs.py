"""Every recipe's generator, small and with weights that show, as a module and its ONNX graph."""

from __future__ import annotations

import functools
from importlib.resources import files

import onnx
import pytest
import torch
from small_systems import CYCLE, RECIPES, SMALL

from fastmrigan.export.choice import chosen
from fastmrigan.export.facts import GeneratorFacts
from fastmrigan.export.graph import exported_graph, rewrite
from fastmrigan.training.checkpoint import faced
from fastmrigan.training.recipe_file import load_recipe
from fastmrigan.training.systems import system_of

SAMPLER = [*SMALL, "generator.latent=8", "generator.width=4", "discriminator.width=4", "label=null"]
OVERRIDES = {
    **RECIPES,
    **{f"t1-t2-cyclegan-unet-v{v}": [*CYCLE, "generator.downs=3"] for v in (2, 3, 4)},
    **{name: SAMPLER for name in ("phantom-quick", "tumour-dcgan64")},
    "tumour-progan": [*RECIPES["tumour-progan"], "label=null"],
    "t1-t2-cyclegan-unet-v4-improved": [*CYCLE, "generator.units=2"],
    "t2-tumour-cyclegan-improved": [*CYCLE, "generator.units=2", "discriminator.layers=2"],
}
OVERRIDES |= {
    **{
        f"{name}-improved": OVERRIDES[name]
        for name in (
            "tumour-dcgan64",
            "tumour-dcgan128",
        )
    },
    "tumour-progan-improved": [*OVERRIDES["tumour-progan"], "growth.stage_shares=[1, 1, 1, 1]"],
}
NAMES = sorted(
    path.name.removesuffix(".yaml")
    for path in files("fastmrigan.training.recipes").iterdir()
    if path.name.endswith(".yaml")
)
FAST = "t2-tumour-cyclegan"  # an export takes seconds: of every recipe's, one is for the fast lane
EACH = [
    pytest.param(name, marks=[] if name == FAST else [pytest.mark.slow], id=name) for name in NAMES
]


@functools.cache
def generator(name: str, speed: bool = True) -> tuple[torch.nn.Module, GeneratorFacts]:
    """speed=False keeps the biases that an instance norm removes again."""
    recipe = load_recipe(name, [*OVERRIDES[name], "steps=6", f"speed={str(speed).lower()}"])
    torch.manual_seed(0)
    network = system_of(recipe).make(recipe)["generator"].eval()
    kinds = {type(part).__name__ for part in network.modules()}
    normed = any("InstanceNorm" in kind for kind in kinds) or recipe.system == "progan"
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):  # not the identity
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 2)
        for key, value in network.named_parameters():
            if key.endswith("bias"):
                value.normal_(0, 0.1)
            elif value.ndim > 1 and not normed:
                torch.nn.init.kaiming_normal_(value)  # initial weights would make grey slices
    face = faced(network, recipe, **({"alpha": 1.0} if recipe.system == "progan" else {}))
    latent = recipe.generator.latent if recipe.task == "sample" else None
    size = (recipe.size, recipe.size)
    return face, GeneratorFacts(recipe.task, recipe.name, size, latent_size=latent)


@functools.cache
def _exported(name: str, speed: bool, folded: bool) -> onnx.ModelProto:
    return exported_graph(*generator(name, speed), folded=folded)


def exported(name: str, speed: bool = True, *, folded: bool = True) -> onnx.ModelProto:
    """The exporter's graph before any rewrite; a copy of its own for each caller."""
    copy = onnx.ModelProto()
    copy.CopyFrom(_exported(name, speed, folded))
    return copy


def graph(name: str, speed: bool = True, computed_in: str = "bf16") -> onnx.ModelProto:
    """As it becomes a model file; a copy of its own for each caller."""
    made = exported(name, speed)
    rewrite(made, chosen(generator(name, speed)[1].task, computed_in))
    return made
