"""The training slices in memory, and the order in which a run sees them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmrigan.errors import UsageError
from fastmrigan.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingData:
    slices: Tensor  # float32 [N, 1, H, W] in [-1, 1], the train split alone
    info: dict[str, Any]  # what the checkpoint and the model file say about the data; no paths

    @property
    def count(self) -> int:
        return len(self.slices)


def load_training_data(folder: Path, recipe: Recipe) -> TrainingData:
    """The train split of a prepared dataset, checked against the recipe.

    UsageError where the size is another, the label is unknown or the batch is too large;
    InputRejected where the dataset is damaged.
    """
    from fastmrigan.imaging.dataset import PreparedDataset

    dataset = PreparedDataset.open(folder)
    info = dataset.info.model_dump(mode="json")
    if info["size"] != [recipe.size, recipe.size]:
        height, width = info["size"]
        raise UsageError(
            f"{folder}: slices are {height}x{width}, {recipe.name} trains at "
            f"{recipe.size}x{recipe.size}; prepare them with --size {recipe.size}"
        )
    dataset.check_fingerprint()
    slices = dataset.slices(split="train", label=recipe.label)  # [N, H, W]
    kept = ("fingerprint", "count", "labels", "size", "grading", "contrast")
    info = {key: info[key] for key in kept} | {
        "label": recipe.label,
        "training_slices": len(slices),
    }
    return checked(TrainingData(torch.from_numpy(slices)[:, None], info), recipe, str(folder))


def checked(data: TrainingData, recipe: Recipe, source: str) -> TrainingData:
    """`data`, or UsageError where it holds fewer slices than one batch."""
    if data.count < recipe.batch:
        of_label = f" labelled {recipe.label!r}" if recipe.label is not None else ""
        remedy = f"use --set batch={data.count}" if data.count > 1 else "prepare more slices"
        raise UsageError(
            f"{source}: {data.count} training slices{of_label} are fewer than one batch of "
            f"{recipe.batch}; {remedy}"
        )
    return data


class SliceOrder:
    """Seeded permutations of 0..count-1, one an epoch, laid end to end and cut into batches.

    A function of (seed, step) alone, so that a resumed run sees what it would have seen. Batches
    run across epochs: no slice is left out of any epoch.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.batch, self.seed = count, batch, seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def batch_of(self, step: int) -> Tensor:
        """Indices int64 [batch] of step `step`, counted from 0."""
        position = step * self.batch
        parts: list[np.ndarray] = []
        missing = self.batch
        while missing:
            epoch, start = divmod(position, self.count)
            part = self._permutation(epoch)[start : start + missing]
            parts.append(part)
            position += len(part)
            missing -= len(part)
        return torch.from_numpy(np.concatenate(parts))

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
            self._epoch = epoch
        return self._order


def flip_half(slices: Tensor) -> Tensor:
    """Mirrors each of [N, 1, H, W] left to right with probability 1/2, from torch's own RNG."""
    mirrored = torch.rand(len(slices)) < 0.5
    return torch.where(mirrored[:, None, None, None].to(slices.device), slices.flip(-1), slices)
