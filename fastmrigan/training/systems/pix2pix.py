"""Paired translation with a discriminator that sees what was translated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastmrigan.training.augmenting import as_seen, key_of
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.losses import adversarial, called_real, l1
from fastmrigan.training.networks import has_batch_norm, make_discriminator, make_generator
from fastmrigan.training.recipe import Pix2PixRecipe
from fastmrigan.training.systems.base import Batch, Plan, Rows
from fastmrigan.training.systems.translating import TranslatingSystem, evenly


class Pix2Pix(TranslatingSystem):
    """Isola et al. 2017: the discriminator's step first, then the generator's with an L1 term."""

    recipe: Pix2PixRecipe

    def __init__(
        self, recipe: Pix2PixRecipe, data: TrainingData, device: torch.device, ranks: Ranks
    ) -> None:
        super().__init__(recipe, data, device, ranks)
        self.optimise("g", recipe.optimiser.generator_lr, "generator")
        self.optimise("d", recipe.optimiser.discriminator_lr, "discriminator")
        if recipe.ema is not None:
            self.average("generator")
        self.merges_d = recipe.speed and not has_batch_norm(self.networks["discriminator"])

    @classmethod
    def make(cls, recipe: Pix2PixRecipe) -> dict[str, nn.Module]:
        return {
            "generator": make_generator(recipe, recipe.generator),
            "discriminator": make_discriminator(
                recipe, recipe.discriminator, conditions=recipe.channels
            ),
        }

    def program(self, batch: Batch, plan: Plan) -> Rows:
        assert batch.source is not None
        source, target = batch.source, batch.target  # [N, C, H, W] each, registered
        weights = self.recipe.losses
        kind = weights.adversarial
        discriminator = self.networks["discriminator"]
        with self.timer.phase("generator"), self.half():
            fake = self.runs["generator"](source)  # [N, C, H, W]
        with self.timer.phase("discriminator"):
            discriminator.requires_grad_(True)
            real = self.pair_seen(target, source, plan, "real")
            made = self.pair_seen(fake.detach(), source, plan, "fake")
            with self.half():
                if self.merges_d:
                    both = [torch.cat(pair) for pair in zip(real, made, strict=True)]
                    on_real, on_fake = self.runs["discriminator"](*both).chunk(2)
                else:
                    on_real = self.runs["discriminator"](*real)
                    on_fake = self.runs["discriminator"](*made)
            loss_d = weights.discriminator * (
                adversarial(on_real, kind, real=True) + adversarial(on_fake, kind, real=False)
            )
            self.update("d", loss_d)
        with self.timer.phase("generator"):
            discriminator.requires_grad_(False)  # not used in this half
            with self.half():
                pair = self.pair_seen(fake, source, plan, "judged")
                judged = self.plain["discriminator"](*pair)
            loss_adversarial = adversarial(judged, kind, real=True)
            loss_l1 = l1(fake, target)
            loss_g = loss_adversarial + weights.l1 * loss_l1
            self.update("g", loss_g)
        return {
            "loss_d": loss_d.detach(),
            "loss_g": loss_g.detach(),
            "loss_g_adversarial": loss_adversarial.detach(),
            "loss_l1": loss_l1.detach(),
            "d_real_accuracy": called_real(on_real.detach(), kind).float().mean(),
            "d_fake_accuracy": 1 - called_real(on_fake.detach(), kind).float().mean(),
        }

    def pair_seen(
        self, slices: Tensor, source: Tensor, plan: Plan, shown: str
    ) -> tuple[Tensor, Tensor]:
        """The slices and what they were made from, augmented as pairs: moved and cut alike, the
        brightness and contrast of each about its own mean."""
        pair = torch.cat([slices.to(source.dtype), source], 1)  # [N, 2 C, H, W]
        seen = as_seen(pair, self.recipe, plan.get(key_of(shown)), images=2)
        made, condition = seen.chunk(2, 1)
        return made, condition

    def grid(self, count: int) -> tuple[Tensor, int]:
        """A row: source, as target, the true target."""
        data = self.judged_on
        assert data.sources is not None
        source, target = evenly(data.sources, count), evenly(data.slices, count)
        columns = [source, self.translated("generator", source), target]
        return torch.stack([column[:, 0] for column in columns], 1).flatten(0, 1), len(columns)
