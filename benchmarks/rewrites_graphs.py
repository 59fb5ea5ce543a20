"""The graphs of rewrites.py: recipes' generators with and without each rewrite."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
import torch
from inference_networks import inputs, seeded

from fastmrigan.export.choice import REWRITES
from fastmrigan.export.facts import GeneratorFacts
from fastmrigan.export.graph import exported_graph, rewrite
from fastmrigan.export.int8 import int8_graph
from fastmrigan.export.precision import typed_graph
from fastmrigan.training.checkpoint import faced
from fastmrigan.training.recipe_file import load_recipe
from fastmrigan.training.systems import system_of

CHOSEN, NONE = "chosen", "none"
CONVOLUTIONS = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
UNET = "generator={network: unet, width: 64, norm: instance}"


@dataclass(frozen=True)
class Network:
    """A recipe's generator, and the batches it is timed at."""

    recipe: str
    overrides: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)


# Every rewrite is there on small and on large maps; the other recipes have the same layers.
NETWORKS = {
    "tumour-dcgan64": Network("tumour-dcgan64", (), (1, 64)),
    "tumour-dcgan128": Network("tumour-dcgan128", (), (1, 16)),
    "t1-t2-cyclegan-unet-v1": Network("t1-t2-cyclegan-unet-v1"),
    "U-Net 256": Network("t2-tumour-cyclegan", (UNET,)),
    "style-transfer-gan": Network("style-transfer-gan"),
    "t2-tumour-cyclegan": Network("t2-tumour-cyclegan"),
}


@lru_cache(maxsize=1)
def made(network: Network) -> tuple[torch.nn.Module, GeneratorFacts]:
    """The generator as it is exported, with weights that make slices."""
    recipe = load_recipe(network.recipe, [*network.overrides, "speed=false"])
    samples = recipe.task == "sample"
    latent = recipe.generator.latent if samples else None
    size = recipe.size
    generator = system_of(recipe).make(recipe)["generator"]
    seeded(generator, torch.from_numpy(inputs(latent, size, 16 if samples else 1)))
    with torch.no_grad():
        for layer in generator.modules():
            bias = getattr(layer, "bias", None)
            if isinstance(layer, CONVOLUTIONS) and bias is not None:
                bias.normal_(0, 0.02)  # the exporter itself drops one of zeros
    facts = GeneratorFacts(recipe.task, recipe.name, (size, size), latent_size=latent)
    return faced(generator, recipe), facts


class Graphs:
    """The graphs of one generator, typed in one precision, by the rewrites applied to them."""

    def __init__(self, network: Network, typed: str) -> None:
        module, facts = made(network)
        self.module, self.facts, self.typed = module, facts, typed
        self.folded = exported_graph(module, facts)
        self.bare = self.folded
        if typed != "fp32":  # OpenVINO takes no batch norm of one type with statistics of another
            REWRITES["batch norms"].change(self.folded)
        elif any(isinstance(layer, torch.nn.BatchNorm2d) for layer in module.modules()):
            self.bare = exported_graph(module, facts, folded=False)
        self.changed = rewrite(copied(self.folded), REWRITES)  # how many places each changes
        norms = sum(node.op_type == "BatchNormalization" for node in self.bare.graph.node)
        self.changed["batch norms"] = norms
        self._made: dict[frozenset[str], bytes] = {}

    def sides(self, names: Collection[str]) -> dict[str, frozenset[str]]:
        """What is timed where `names` are chosen, and the rewrites of each."""
        changing = {name for name in REWRITES if self.changed[name]}
        first = frozenset(names) & changing
        found = {CHOSEN: first}
        for name in REWRITES:
            if name in changing:
                found[side(name, name in first)] = first ^ {name}
        if frozenset() not in found.values():
            found[NONE] = frozenset()
        return found

    def of(self, names: frozenset[str]) -> bytes:
        """The graph with these rewrites, of those that change anything."""
        if names not in self._made:
            graph = copied(self.folded if "batch norms" in names else self.bare)
            rewrite(graph, names)
            if self.typed == "int8":
                graph = int8_graph(graph, [self.given(8)])
            elif self.typed != "fp32":
                graph = typed_graph(graph, self.typed)
            self._made[names] = graph.SerializeToString()
        return self._made[names]

    def given(self, batch: int) -> np.ndarray:
        """What goes in: latents [batch, latent] or slices [batch, 1, H, W]."""
        return inputs(self.facts.latent_size, self.facts.slice_size[0], batch)

    def expected(self, x: np.ndarray) -> np.ndarray:
        """PyTorch's slices, [batch, 1, H, W]."""
        with torch.inference_mode():
            return self.module(torch.from_numpy(x)).numpy()


@lru_cache(maxsize=1)  # since rows of the same graphs follow each other
def graphs_of(network: Network, typed: str) -> Graphs:
    return Graphs(network, typed)


def side(name: str, is_chosen: bool) -> str:
    return f"{'without' if is_chosen else 'with'} {name}"


def copied(graph: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    return copy
