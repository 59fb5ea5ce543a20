"""The asymmetric pair: a style put on by a reference, and taken off without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastmrigan.style.losses import cycle_loss, style_cycle_loss
from fastmrigan.training.data import TrainingData, with_channels
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.losses import adversarial
from fastmrigan.training.networks import make_discriminator, make_generator
from fastmrigan.training.systems.base import Clock, Plan, Rows
from fastmrigan.training.systems.cyclegan import CycleGan


class StylePairGan(CycleGan):
    """Chithra, Dhivya's style stage, after Chang et al. 2018: G: X x Y_b -> Y_b ("generator") puts
    the style of a target slice on a source slice, F: Y -> X ("generator_back") takes it off.

    Beside the adversarial losses, F(G(x, y)) comes back to x (cycle), and G(F(y), G(x, y)) to y
    (style): what x has taken on is all of y's style. Without a reference, as in export and in the
    sample grids, the generator takes one slice of the training set, chosen by the seed.
    """

    recipe: Any

    def __init__(self, recipe: Any, data: TrainingData, device: torch.device, ranks: Ranks) -> None:
        super().__init__(recipe, data, device, ranks)
        chosen = torch.randint(
            len(data.slices), (1,), generator=torch.Generator().manual_seed(recipe.seed)
        )
        reference = with_channels(data.slices[chosen], recipe.channels)  # [1, C, H, W]
        for network in (self.networks["generator"], self.ema.get("generator")):
            if network is not None:
                network.reference.copy_(reference)  # type: ignore[operator, union-attr]

    @classmethod
    def make(cls, recipe: Any) -> dict[str, nn.Module]:
        return {
            "generator": make_generator(recipe, recipe.generator),
            "generator_back": make_generator(recipe, recipe.generator_back),
            "discriminator": make_discriminator(recipe, recipe.discriminator),
            "discriminator_back": make_discriminator(recipe, recipe.discriminator),
        }

    def prepare(self) -> Iterator[str]:
        yield from ()

    def plan_of_losses(self, count: int, clock: Clock) -> Plan:
        return {}  # all weights are constant

    def generator_step(
        self, source: Tensor, target: Tensor, plan: Plan
    ) -> tuple[Rows, Tensor, Tensor]:
        weights = self.recipe.losses
        for name in ("discriminator", "discriminator_back"):
            self.networks[name].requires_grad_(False)  # not used in this half
        put_on, take_off = self.runs["generator"], self.runs["generator_back"]
        with self.half():
            fake_target, fake_source = put_on(source, target), take_off(target)
            again_source = take_off(fake_target)
            again_target = put_on(fake_source, fake_target)
            on_target = self.plain["discriminator"](self.seen(fake_target, plan, "judged"))
            on_source = self.plain["discriminator_back"](
                self.seen(fake_source, plan, "judged_back")
            )
        parts = {
            "loss_g_target": adversarial(on_target, weights.adversarial, real=True),
            "loss_g_source": adversarial(on_source, weights.adversarial, real=True),
            "loss_cycle_source": cycle_loss(again_source, source),
            "loss_style": style_cycle_loss(again_target, target),
        }
        total = parts["loss_g_target"] + parts["loss_g_source"]
        total = total + weights.cycle * parts["loss_cycle_source"]
        total = total + weights.style * parts["loss_style"]
        self.update("g", total)
        rows: Rows = {"loss_g": total.detach()}
        rows |= {name: value.detach() for name, value in parts.items()}
        return rows, fake_target.detach().float(), fake_source.detach().float()
