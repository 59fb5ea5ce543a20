"""What systems that translate slices share: grids of slices in pairs, figures on held-out ones."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmrigan.models.faces import TranslateFace
from fastmrigan.training.data import TrainingData
from fastmrigan.training.evaluation import RealSide, rows_to_judge, translation_figures
from fastmrigan.training.systems.base import System

JUDGED = 500  # slices an evaluation in the loop translates at most
FEWEST = 100  # held-out slices of each side below which a Frechet distance is noise
CHUNK = 4  # slices a call


class TranslatingSystem(System):
    real_side: RealSide | None = None

    @property
    def judged_on(self) -> TrainingData:
        """The held-out slices, or, where there are none, those of training."""
        held_out = self.data.held_out
        return self.data if held_out is None or not held_out.count else held_out

    @torch.no_grad()
    def translated(self, name: str, slices: Tensor) -> Tensor:
        """slices [N, 1, H, W] through a generator as it is exported; the same shape, on the CPU."""
        network = self.judged_network(name)
        training = network.training
        face = TranslateFace(network, self.recipe.channels).eval()
        parts = [face(part.to(self.device)).float().cpu() for part in slices.split(CHUNK)]
        network.train(training)
        return torch.cat(parts)

    def figures(self, seed: int) -> dict[str, float]:
        """Paired: similarity to the true twins; unpaired: the Frechet distance, and its floor.

        Where fewer than 100 slices a side are held out, an unpaired run is judged on those it
        trains on: it is told how near it comes to them, and no more.
        """
        data = self.judged_on
        if (
            not data.paired
            and min(len(data.slices), 0 if data.sources is None else len(data.sources)) < FEWEST
        ):
            data = self.data
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
