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
    """The batches of a run, each a function of the data, the recipe, the seed and the step.

    Where a step takes several (a critic's steps), they stand one after the other in one.
    """

    def __init__(
        self, data: TrainingData, recipe: Any, seed: int, ranks: Ranks, device: torch.device
    ) -> None:
        self.data, self.seed, self.ranks, self.device = data, seed, ranks, device
        self.channels, self.paired = recipe.channels, data.paired
        self.a_step = recipe.batches_a_step
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
        parts = [self.number(step * self.a_step + part) for part in range(self.a_step)]
        if len(parts) == 1:
            return parts[0]
        sources = [part.source for part in parts if part.source is not None]
        return Batch(
            torch.cat([part.target for part in parts]), torch.cat(sources) if sources else None
        )

    def number(self, number: int) -> Batch:
        """One batch of the run, counted from 0."""
        target, source = self.data.batch(self.order.batch_of(number))
        own_side = TARGET if self.paired else SOURCE  # registered twins stay registered
        return Batch(
            self.made_ready(target, number, TARGET),
            None if source is None else self.made_ready(source, number, own_side),
        )

    def made_ready(self, slices: Tensor, number: int, side: int) -> Tensor:
        slices = augment(
            slices.to(self.device, non_blocking=True),
            self.augmentation,
            seed=self.seed,
            step=number,
            side=side,
            rank=self.ranks.rank,
            world=self.ranks.world,
        )
        return with_channels(slices, self.channels)


def draws_to_show(
    recipe: Any,
    count: int,
    *,
    seed: int,
    step: int,
    shows: tuple[str, ...],
    times: int,
    ranks: Ranks,
) -> dict[str, Tensor]:
    """What `as_seen` needs in one step, by `key_of`; nothing where the recipe has no DiffAugment.

    shows: of SHOWN, what the step shows; times: how often, up to 38 (a critic's steps).
    """
    if not recipe.augmentation.diffaugment:
        return {}
    return {
        key_of(shown, number): draws_at(
            count,
            seed=seed,
            step=step,
            stream=SHOWN.index(shown) + len(SHOWN) * number,
            rank=ranks.rank,
            world=ranks.world,
        )
        for shown in shows
        for number in range(times)
    }


def key_of(shown: str, number: int = 0) -> str:
    return f"shown {shown} {number}"


def as_seen(slices: Tensor, recipe: Any, draws: Tensor | None, *, images: int = 1) -> Tensor:
    """Slices [N, C, H, W] as a discriminator is shown them: DiffAugment where the recipe has it.

    draws: [N, 6] of `draws_to_show`; images: see DiffAugment.
    """
    if draws is None:
        return slices
    return DiffAugment(recipe.augmentation.diffaugment)(slices, draws, images=images)
