"""What systems that make slices from latents share: latents, grids, the Frechet distance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fastmrigan.models import faces
from fastmrigan.training import ema
from fastmrigan.training.evaluation import RealSide, enough_to_judge, rows_to_judge
from fastmrigan.training.systems.base import System

JUDGED = 1000  # slices an evaluation in the loop makes, if there are as many real ones
CHUNK = 64  # slices a call


class SamplingSystem(System):
    real_side: RealSide | None = None

    def latents(self, count: int) -> Tensor:
        """This rank's latents [count, latent] on the CPU, from torch's global RNG."""
        kind = self.networks["generator"].latent_distribution
        size = self.recipe.generator.latent
        drawn = torch.randn(count * self.ranks.world, size)
        return self.ranks.part(faces.as_distributed(drawn, kind))

    def ready_to_judge(self, step: int) -> None:
        """Fits the batch norm of the average to its weights."""
        if "generator" in self.ema:
            calibrate(self.ema["generator"], self.recipe)

    @torch.no_grad()
    def sampled(self, count: int, seed: int) -> Tensor:
        """float32 [count, H, W] in [-1, 1] on the CPU, a function of weights and seed alone."""
        network = self.judged_network("generator")
        training = network.training
        face = faces.SampleFace(network).eval()
        latents = ema.seeded_latents(count, self.recipe.generator.latent, seed).split(CHUNK)
        parts = [face(part.to(self.device))[:, 0].float().cpu() for part in latents]
        network.train(training)
        return torch.cat(parts)

    def grid(self, count: int) -> tuple[Tensor, int]:
        """Slices from latents that stay the same through the run."""
        return self.sampled(count, self.recipe.seed + 1), math.ceil(math.sqrt(count))

    def measured(self) -> tuple[str, ...]:
        enough_to_judge(self.data.count)
        return ("fd_random",)

    def figures(self, seed: int) -> dict[str, float]:
        """The Frechet distance to the training slices on random features, and its floor."""
        judged = rows_to_judge(self.data.count, JUDGED, seed)
        if self.real_side is None:
            self.real_side = RealSide(self.data.slices[judged][:, 0].numpy(), seed)
        return self.real_side.figures(self.sampled(len(judged), seed).numpy())


def calibrate(generator: nn.Module, recipe: Any) -> None:
    """Fits batch norm's statistics to seeded latents; leaves the generator in eval mode."""
    drawn = ema.seeded_latents(
        ema.CALIBRATION_BATCHES * ema.CALIBRATION_BATCH, recipe.generator.latent, recipe.seed
    )
    kind = generator.latent_distribution
    batches = faces.as_distributed(drawn, kind).split(ema.CALIBRATION_BATCH)
    ema.calibrate(generator, batches)
