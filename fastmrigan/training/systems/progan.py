"""Slices from latents by a GAN that grows from 4x4."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastmrigan.training import ema
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.losses import gradient_penalty
from fastmrigan.training.networks import make_discriminator, make_generator
from fastmrigan.training.recipe import ProganRecipe
from fastmrigan.training.sections import Growth
from fastmrigan.training.systems.base import Batch, Clock, Plan, Rows
from fastmrigan.training.systems.sampling import SamplingSystem


class Grown(NamedTuple):
    stage: int  # 0 is 4x4
    alpha: float  # of the newest layers, 0 to 1


# How much longer a step takes than one at half the size: 2.1 to 3.1 times at width 64 and 128, one
# thread of a CPU (Intel Xeon with AMX bf16), 2026-11-23.
COST_OF_A_STAGE = 2.5


def stage_ends(total: int, stages: int, growth: Growth) -> list[float]:
    """The step of `total` before which each stage ends."""
    shares = growth.stage_shares or (1.0,) * stages
    return [total * reached / sum(shares) for reached in accumulate(shares)]


def grown(step: int, total: int, stages: int, growth: Growth) -> Grown:
    """How far the networks have grown at `step` of `total`, counted from 0.

    Each stage but the first begins with fading in (alpha from 0 towards 1 over `fade_share` of its
    steps) and then rests at 1.
    """
    ends = stage_ends(total, stages, growth)
    stage = next((number for number, end in enumerate(ends) if step < end), stages - 1)
    begin = ends[stage - 1] if stage else 0.0
    fading = growth.fade_share * (ends[stage] - begin)
    if stage == 0 or fading <= 0:
        return Grown(stage, 1.0)
    return Grown(stage, min(1.0, (step - begin) / fading))


def shrunk(slices: Tensor, size: int, alpha: float) -> Tensor:
    """Real slices at a stage's size; while it fades in, mixed with the next smaller size.

    slices: [N, C, H, W] to [N, C, size, size], averages over blocks.
    """
    small = F.avg_pool2d(slices, slices.shape[-1] // size)
    if alpha >= 1:
        return small
    smaller = F.interpolate(F.avg_pool2d(small, 2), scale_factor=2, mode="nearest")
    return torch.lerp(smaller, small, alpha)


class Progan(SamplingSystem):
    """Karras et al. 2018: Wasserstein loss, gradient penalty and drift, EMA of the generator."""

    recipe: ProganRecipe
    in_parts = True  # the stages not reached yet

    def __init__(
        self, recipe: ProganRecipe, data: TrainingData, device: torch.device, ranks: Ranks
    ) -> None:
        super().__init__(recipe, data, device, ranks)
        self.optimise("g", recipe.optimiser.generator_lr, "generator")
        self.optimise("d", recipe.optimiser.discriminator_lr, "discriminator")
        if recipe.ema is not None:
            self.average("generator")
        self.stages = recipe.size.bit_length() - 2
        self.grown = Grown(0, 1.0)

    @classmethod
    def make(cls, recipe: ProganRecipe) -> dict[str, nn.Module]:
        return {
            "generator": make_generator(recipe, recipe.generator),
            "discriminator": make_discriminator(recipe, recipe.discriminator),
        }

    def plan(self, count: int, clock: Clock) -> Plan:
        assert clock.total_steps is not None, "the recipe demands a bound"
        self.grown = grown(clock.step, clock.total_steps, self.stages, self.recipe.growth)
        return super().plan(count, clock)

    def work(self, begin: int, end: int, total: int) -> float:
        """In steps at 4x4."""
        ends = [0.0, *stage_ends(total, self.stages, self.recipe.growth)]
        steps = [max(0.0, min(end, b) - max(begin, a)) for a, b in pairwise(ends)]
        return sum(count * COST_OF_A_STAGE**stage for stage, count in enumerate(steps))

    def program(self, batch: Batch, plan: Plan) -> Rows:
        """Steps of the critic, each on real slices of its own, then one of the generator."""
        stage, alpha = self.grown
        critic_steps = self.recipe.losses.critic_steps
        reals = shrunk(batch.target, 4 << stage, alpha).chunk(critic_steps)  # [N, C, h, w] each
        with self.timer.phase("discriminator"):
            self.networks["discriminator"].requires_grad_(True)
            for number, real in enumerate(reals):
                loss_d, distance, spread = self.critic_loss(real, plan, number)
                self.update("d", loss_d)
        with self.timer.phase("generator"):
            self.networks["discriminator"].requires_grad_(False)  # not used in this half
            with self.half():
                fake = self.runs["generator"](self.latents(len(real)).to(self.device), stage, alpha)
                seen = self.seen(fake, plan, "judged")
                loss_g = -self.networks["discriminator"](seen, stage, alpha).float().mean()
            self.update("g", loss_g)
        return {
            "loss_d": loss_d.detach(),
            "loss_g": loss_g.detach(),
            "wasserstein": distance,
            "d_spread": spread,
            "stage": float(stage),
            "alpha": alpha,
        }

    def critic_loss(self, real: Tensor, plan: Plan, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """The critic's whole loss, how much higher it scores real slices than fake ones, and the
        scores' standard deviation relative to their size."""
        stage, alpha = self.grown
        weights = self.recipe.losses
        critic, plain = self.runs["discriminator"], self.networks["discriminator"]
        with torch.no_grad(), self.half():
            latents = self.latents(len(real)).to(self.device)
            fake = self.runs["generator"](latents, stage, alpha)  # [N, C, h, w]
        real = self.seen(real, plan, "real", number)
        fake = self.seen(fake.float(), plan, "fake", number)
        share = self.ranks.part(torch.rand(len(real) * self.ranks.world)).to(self.device)  # [N]
        with self.half():
            on_real = critic(real, stage, alpha).float()  # [N]
            on_fake = critic(fake, stage, alpha).float()  # [N]
        # In float32: the penalty's second derivatives are too fine for bf16.
        penalty = gradient_penalty(lambda x: plain(x, stage, alpha), real, fake, share)
        distance = on_real.mean() - on_fake.mean()
        drift = on_real.square().mean()
        scores = torch.cat([on_real, on_fake]).detach()
        return (
            weights.gradient_penalty * penalty + weights.drift * drift - distance,
            distance.detach(),
            scores.std() / scores.abs().mean().clamp(min=1.0),
        )

    def sampled(self, count: int, seed: int) -> Tensor:
        """At the stage reached, enlarged to the whole size."""
        stage, alpha = self.grown
        network = self.judged_network("generator")
        latents = ema.seeded_latents(count, self.recipe.generator.latent, seed).split(64)
        with torch.no_grad():
            made = torch.cat([network(part.to(self.device), stage, alpha) for part in latents])
        made = made.mean(1, keepdim=True).clamp(-1, 1).float().cpu()  # [N, 1, h, w]
        return F.interpolate(made, size=(self.recipe.size,) * 2, mode="nearest")[:, 0]

    def more_state(self) -> dict[str, Any]:
        return {"stage": self.grown.stage, "alpha": self.grown.alpha}

    def load_more_state(self, state: dict[str, Any]) -> None:
        self.grown = Grown(int(state["stage"]), float(state["alpha"]))
