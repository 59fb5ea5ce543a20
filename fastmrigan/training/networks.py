"""Networks by the names recipes give them, with their initial weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastmrigan.errors import UsageError
from fastmrigan.models import (
    attention_unet,
    dcgan,
    dcgan_dense,
    patchgan,
    progan,
    resnet,
    resnet34,
    style_pair,
    t1t2_unet,
    unet,
)
from fastmrigan.training.recipe import Recipe
from fastmrigan.training.sections import Section

GENERATORS: dict[str, Any] = {
    "attention-unet": attention_unet.AttentionUnetGenerator,
    "dcgan": dcgan.DcganGenerator,
    "dcgan-dense": dcgan_dense.DenseDcganGenerator,
    "progan": progan.ProganGenerator,
    "resnet": resnet.ResnetGenerator,
    "resnet34": resnet34.Resnet34Generator,
    "style-pair": style_pair.StylePairGenerator,
    "t1t2-unet": t1t2_unet.T1T2UnetGenerator,
    "unet": unet.UnetGenerator,
}
DISCRIMINATORS: dict[str, Any] = {
    "dcgan": dcgan.DcganDiscriminator,
    "dcgan-dense": dcgan_dense.DenseDcganDiscriminator,
    "patchgan": patchgan.PatchGan,
    "progan": progan.ProganDiscriminator,
    "t1t2": t1t2_unet.T1T2Discriminator,
}
# Their convolutions before instance norm have biases that the norm removes again.
INERT_BIASES = frozenset({"resnet", "resnet34", "style-pair", "unet", "attention-unet", "patchgan"})


def make_generator(recipe: Recipe, section: Section) -> nn.Module:
    return _make(GENERATORS, recipe, section)


def make_discriminator(recipe: Recipe, section: Section, **options: Any) -> nn.Module:
    return _make(DISCRIMINATORS, recipe, section, **options)


def _make(known: dict[str, Any], recipe: Recipe, section: Section, **options: Any) -> nn.Module:
    keywords = section.model_dump() | options
    name = keywords.pop("network")
    if name in INERT_BIASES:
        keywords["inert_bias"] = not recipe.speed
    try:
        network: nn.Module = known[name](size=recipe.size, channels=recipe.channels, **keywords)
    except ValueError as error:  # a size or width that the network cannot have
        raise UsageError(f"{recipe.name}: {error}") from error
    return network


def has_batch_norm(network: nn.Module) -> bool:
    """Whether what comes out for one slice depends on the others of its batch."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def adam(recipe: Recipe, lr: float, *networks: nn.Module) -> torch.optim.Adam:
    """One optimiser over the parameters of `networks`."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return torch.optim.Adam(parameters, lr, betas=recipe.optimiser.betas, fused=recipe.speed)
