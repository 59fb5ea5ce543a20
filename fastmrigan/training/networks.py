"""The networks, optimisers and EMA of one run, built from its recipe."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastmrigan.models import dcgan
from fastmrigan.training.recipe import Recipe


@dataclass
class Networks:
    """Everything that changes from step to step, the random numbers aside."""

    generator: nn.Module
    discriminator: nn.Module
    ema: nn.Module  # the generator with averaged weights, in eval mode
    optimiser_g: torch.optim.Optimizer
    optimiser_d: torch.optim.Optimizer

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in self.__dataclass_fields__}

    def load_state(self, state: dict[str, Any]) -> None:
        for name in self.__dataclass_fields__:
            getattr(self, name).load_state_dict(state[name])

    def all_finite(self) -> bool:
        return all(
            bool(torch.isfinite(parameter).all())
            for network in (self.generator, self.discriminator)
            for parameter in network.parameters()
        )


def make_generator(recipe: Recipe) -> nn.Module:
    return dcgan.DcganGenerator(
        size=recipe.size,
        channels=recipe.channels,
        latent=recipe.generator.latent,
        width=recipe.generator.width,
    )


def make_discriminator(recipe: Recipe) -> nn.Module:
    return dcgan.DcganDiscriminator(
        size=recipe.size, channels=recipe.channels, width=recipe.discriminator.width
    )


def initial_networks(recipe: Recipe) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator with the initial weights of the recipe's seed.

    Seeds torch's global RNG, which the run then goes on with.
    """
    torch.manual_seed(recipe.seed)
    generator, discriminator = make_generator(recipe), make_discriminator(recipe)
    dcgan.initialise(generator)
    dcgan.initialise(discriminator)
    return generator, discriminator


def build(recipe: Recipe, device: torch.device) -> Networks:
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    generator, discriminator = (
        network.to(device, memory_format=layout) for network in initial_networks(recipe)
    )
    mean = copy.deepcopy(generator).requires_grad_(False)
    options = recipe.optimiser
    return Networks(
        generator,
        discriminator,
        mean,
        torch.optim.Adam(
            generator.parameters(), options.generator_lr, betas=options.betas, fused=True
        ),
        torch.optim.Adam(
            discriminator.parameters(), options.discriminator_lr, betas=options.betas, fused=True
        ),
    )


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
