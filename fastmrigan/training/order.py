"""Which slices each step sees, and the random draws of a step: functions of (seed, step) alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

TARGET, SOURCE = 0, 1  # the sides; also the streams of their augmentation's draws


def draws_of(seed: int, step: int, stream: int) -> np.random.Generator:
    """A random generator that depends on seed, step and stream (0 to 255) alone.

    Philox with the three as its key: different keys are independent streams, and none has to be
    run through to reach another. seed: 0 to 2**64 - 1; step: 0 to 2**56 - 1.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, step << 8 | stream], "u8")))


class SliceOrder:
    """Seeded permutations of 0..count-1, one an epoch, laid end to end and cut into batches.

    A function of (seed, step) alone, so that a resumed run sees what it would have seen. Batches
    run across epochs: no slice is left out of any epoch. With `world` ranks a step takes `world`
    batches at once, and each rank its own contiguous one: two ranks at batch B see, together and
    in the same order, what one sees at batch 2B.
    """

    def __init__(
        self,
        count: int,
        batch: int,  # of one rank
        seed: int,
        *,
        side: int = TARGET,  # another side, another order
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.count, self.batch, self.seed = count, batch, seed
        self.side, self.rank, self.world = side, rank, world
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def batch_of(self, step: int) -> Tensor:
        """Indices int64 [batch] of step `step`, counted from 0."""
        position = (step * self.world + self.rank) * self.batch
        parts: list[npt.NDArray[np.int64]] = []
        missing = self.batch
        while missing:
            epoch, start = divmod(position, self.count)
            part = self._permutation(epoch)[start : start + missing]
            parts.append(part)
            position += len(part)
            missing -= len(part)
        return torch.from_numpy(np.concatenate(parts))

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            # NumPy takes a key with a trailing 0 for the one without it: sides above 0 add a word
            key = (self.seed, epoch, self.side) if self.side else (self.seed, epoch)
            self._order = np.random.default_rng(key).permutation(self.count)
            self._epoch = epoch
        return self._order


class Indices(NamedTuple):
    target: Tensor  # int64 [batch]
    source: Tensor | None = None  # int64 [batch] of translating systems


class TwoSidedOrder:
    """The order of both sides of a translating system's data, or of the target alone.

    Paired: the same indices on both. Unpaired: an order of its own for each side. An epoch is one
    pass over the larger side, as in CycleGAN's published code; of the smaller side, that code
    draws one side with replacement or runs round it, and here fresh permutations follow one
    another, so that its slices too are seen equally often.
    """

    def __init__(
        self,
        targets: int,  # slices of the target side
        sources: int | None,  # of the source side; None without one
        batch: int,  # of one rank
        seed: int,
        *,
        paired: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if paired and sources != targets:
            raise ValueError(f"TwoSidedOrder: {targets} targets cannot pair {sources} sources")
        self.paired = paired
        self.epoch_slices = max(targets, sources or 0)
        self._target = SliceOrder(targets, batch, seed, side=TARGET, rank=rank, world=world)
        self._source = (
            None
            if sources is None or paired
            else SliceOrder(sources, batch, seed, side=SOURCE, rank=rank, world=world)
        )

    def batch_of(self, step: int) -> Indices:
        """The indices of step `step`, counted from 0."""
        target = self._target.batch_of(step)
        if self._source is not None:
            return Indices(target, self._source.batch_of(step))
        return Indices(target, target if self.paired else None)
