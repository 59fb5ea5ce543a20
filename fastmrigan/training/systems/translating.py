"""What systems that translate slices share: grids of slices in pairs, figures on held-out ones."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmrigan.errors import UsageError
from fastmrigan.models.faces import TranslateFace
from fastmrigan.training import ema
from fastmrigan.training.data import TrainingData, with_channels
from fastmrigan.training.evaluation import (
    BETTER,
    RealSide,
    enough_to_judge,
    rows_to_judge,
    translation_figures,
)
from fastmrigan.training.networks import has_batch_norm
from fastmrigan.training.systems.base import System

JUDGED = 500  # slices an evaluation in the loop translates at most
FEWEST = 100  # held-out slices of each side below which a Frechet distance is noise
CHUNK = 4  # slices a call
CALIBRATION = 64  # slices that an average's batch norm is fitted to
CALIBRATION_BATCH = 16


def evenly(slices: Tensor, count: int) -> Tensor:
    """`count` of slices [N, ...], all where there are fewer, from the first to the last.

    Not the first: those are of one head, and may be its lowest.
    """
    count = min(count, len(slices))
    return slices[torch.linspace(0, len(slices) - 1, count).round().long()]


class TranslatingSystem(System):
    real_side: RealSide | None = None

    @property
    def judged_on(self) -> TrainingData:
        """The held-out slices, or, where there are none, those of training."""
        held_out = self.data.held_out
        return self.data if held_out is None or not held_out.count else held_out

    def ready_to_judge(self, step: int) -> None:
        """Fits the batch norm of the averages, where they have any, to their weights."""
        for name, mean in self.ema.items():
            slices = self.data.slices if name == "generator_back" else self.data.sources
            assert slices is not None
            if has_batch_norm(mean):
                chosen = rows_to_judge(len(slices), CALIBRATION, self.recipe.seed)
                parts = chosen.tensor_split(-(-len(chosen) // CALIBRATION_BATCH))
                ema.calibrate(
                    mean, (with_channels(slices[part], self.recipe.channels) for part in parts)
                )

    @torch.no_grad()
    def translated(self, name: str, slices: Tensor, *, averaged: bool = True) -> Tensor:
        """slices [N, 1, H, W] through a generator as it is exported, or, not `averaged`, as it is
        now; the same shape, on the CPU."""
        network = self.judged_network(name) if averaged else self.networks[name]
        training = network.training
        face = TranslateFace(network, self.recipe.channels).eval()
        parts = [face(part.to(self.device)).float().cpu() for part in slices.split(CHUNK)]
        network.train(training)
        return torch.cat(parts)

    @property
    def measured_on(self) -> TrainingData:
        """Where fewer than 100 slices a side are held out, an unpaired run is judged on those it
        trains on: it is told how near it comes to them, and no more."""
        data = self.judged_on
        sources = 0 if data.sources is None else len(data.sources)
        return data if data.paired or min(len(data.slices), sources) >= FEWEST else self.data

    def measured(self) -> tuple[str, ...]:
        data = self.measured_on
        if data.paired:
            return tuple(name for name in BETTER if name != "fd_random")
        enough_to_judge(len(data.slices))
        if data.sources is None or len(data.sources) < 2:
            raise UsageError(
                "evaluation: one source slice, and the Frechet distance needs two at least; "
                "prepare more slices, or --set evaluate_every=null"
            )
        return ("fd_random",)

    def figures(self, seed: int) -> dict[str, float]:
        """Paired: similarity to the true twins; unpaired: the Frechet distance, and its floor."""
        data = self.measured_on
        assert data.sources is not None
        judged = rows_to_judge(len(data.slices), JUDGED, seed)
        # Unpaired sides are drawn apart: twins in both draws would flatter the distance.
        sources = judged if data.paired else rows_to_judge(len(data.sources), JUDGED, seed + 1)
        made = self.translated("generator", data.sources[sources])[:, 0].numpy()
        if data.paired:
            return translation_figures(made, data.slices[judged][:, 0].numpy())
        if self.real_side is None:
            self.real_side = RealSide(data.slices[judged][:, 0].numpy(), seed)
        return self.real_side.figures(made)
