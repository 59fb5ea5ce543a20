"""What a step is given: its batch, augmented, and slices as discriminators see them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastmrigan.training.augment import Augmentation, augment
from fastmrigan.training.data import TrainingData, with_channels
from fastmrigan.training.diffaugment import DiffAugment, draws_at
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.order import SOURCE, TARGET, TwoSidedOrder

# Each time a step shows slices to a discriminator it draws for itself.
SHOWN = ("real", "fake", "judged", "real_back", "fake_back", "judged_back")


class Batch(NamedTuple):
    target: Tensor  # [N, C, H, W] in [-1, 1]; a system without a source: the real slices
    source: Tensor | None = None


class Batches:
    """The batches of a run, each a function of the data, the recipe, the seed and the step."""

    def __init__(
        self, data: TrainingData, recipe: Any, seed: int, ranks: Ranks, device: torch.device
    ) -> None:
        self.data, self.seed, self.ranks, self.device = data, seed, ranks, device
        self.channels, self.paired = recipe.channels, data.paired
        options = recipe.augmentation.model_dump(exclude={"diffaugment"})
        self.augmentation = Augmentation(**options)
        sources = None if data.sources is None else len(data.sources)
        self.order = TwoSidedOrder(
            len(data.slices),
            sources,
            recipe.batch,
            seed,
            paired=data.paired,
            rank=ranks.rank,
            world=ranks.world,
        )

    def of_step(self, step: int) -> Batch:
        """[N, C, H, W] of each side, on the device."""
        target, source = self.data.batch(self.order.batch_of(step))
        own_side = TARGET if self.paired else SOURCE  # registered twins stay registered
        return Batch(
            self.made_ready(target, step, TARGET),
            None if source is None else self.made_ready(source, step, own_side),
        )

    def made_ready(self, slices: Tensor, step: int, side: int) -> Tensor:
        slices = augment(
            slices.to(self.device, non_blocking=True),
            self.augmentation,
            seed=self.seed,
            step=step,
            side=side,
            rank=self.ranks.rank,
            world=self.ranks.world,
        )
        return with_channels(slices, self.channels)


def as_seen(
    slices: Tensor, recipe: Any, step: int, shown: str, ranks: Ranks, number: int = 0
) -> Tensor:
    """Slices [N, C, H, W] as a discriminator is shown them: DiffAugment where the recipe has it.

    shown: one of SHOWN; number: of a discriminator's steps within one step, up to 38.
    """
    policies = recipe.augmentation.diffaugment
    if not policies:
        return slices
    draws = draws_at(
        len(slices),
        seed=recipe.seed,
        step=step,
        stream=SHOWN.index(shown) + len(SHOWN) * number,
        rank=ranks.rank,
        world=ranks.world,
    )
    return DiffAugment(policies)(slices, draws)
