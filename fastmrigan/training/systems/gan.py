"""Slices from latents: DCGAN at 64 and 128."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.losses import discriminator_loss, generator_loss
from fastmrigan.training.networks import make_discriminator, make_generator
from fastmrigan.training.recipe import GanRecipe
from fastmrigan.training.systems.base import Batch, Clock, Plan, Rows
from fastmrigan.training.systems.sampling import SamplingSystem


class Gan(SamplingSystem):
    """Radford et al. 2016: cross-entropy, one step of each network a batch."""

    recipe: GanRecipe

    def __init__(
        self, recipe: GanRecipe, data: TrainingData, device: torch.device, ranks: Ranks
    ) -> None:
        super().__init__(recipe, data, device, ranks)
        self.optimise("g", recipe.optimiser.generator_lr, "generator")
        self.optimise("d", recipe.optimiser.discriminator_lr, "discriminator")
        if recipe.ema is not None:
            self.average("generator")
        self.noise = 0.0  # standard deviation on what the discriminator sees in this step

    @classmethod
    def make(cls, recipe: GanRecipe) -> dict[str, nn.Module]:
        return {
            "generator": make_generator(recipe, recipe.generator),
            "discriminator": make_discriminator(recipe, recipe.discriminator),
        }

    def plan(self, count: int, clock: Clock) -> Plan:
        options = self.recipe.deviations
        self.noise = options.instance_noise * (1 - clock.step / options.instance_noise_steps)
        return super().plan(count, clock) | {"latents": self.latents(count)}

    def program(self, batch: Batch, plan: Plan) -> Rows:
        """One step of the discriminator, one of the generator.

        The discriminator sees real and generated slices in batches of their own, since its batch
        norm must not mix them; the same generated batch then serves the generator's step.
        """
        generator, discriminator = self.runs["generator"], self.runs["discriminator"]
        with self.timer.phase("discriminator"):
            self.networks["discriminator"].requires_grad_(True)
            with self.half():
                fake = generator(plan["latents"])  # [N, C, H, W]
                on_real = discriminator(self.seen(batch.target, plan, "real"))  # [N]
                on_fake = discriminator(self.seen(fake.detach(), plan, "fake"))  # [N]
            real_label = self.recipe.deviations.real_label
            loss_d = discriminator_loss(on_real, on_fake, real_label=real_label)
            self.update("d", loss_d)
        with self.timer.phase("generator"):
            self.networks["discriminator"].requires_grad_(False)  # not used in this half
            with self.half():
                judged = self.plain["discriminator"](self.seen(fake, plan, "judged"))  # [N]
            loss_g = generator_loss(judged)
            self.update("g", loss_g)
        return {
            "loss_d": loss_d.detach(),
            "loss_g": loss_g.detach(),
            "d_real_accuracy": (on_real.detach() > 0).float().mean(),
            "d_fake_accuracy": (on_fake.detach() < 0).float().mean(),
        }

    def seen(self, slices: Tensor, plan: Plan, shown: str, number: int = 0) -> Tensor:
        """Augmented, and with the recipe's instance noise."""
        slices = super().seen(slices, plan, shown, number)
        if self.noise <= 0:
            return slices
        whole = (self.ranks.world * len(slices), *slices.shape[1:])
        noise = torch.randn(whole, dtype=slices.dtype, device=slices.device)
        return slices + self.noise * self.ranks.part(noise)
