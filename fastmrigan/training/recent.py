"""The slices of the last batches beside those of the one at hand, for losses that compare many."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def places(size: int, step: int, count: int) -> Tensor:
    """Where the `count` slices of a step (from 0) go among `size`: those of the oldest; int64."""
    return (step * count + torch.arange(count)) % size


class RecentSlices:
    """The last `size` slices of a stream of batches, in no order. Before there are so many, those
    of the first batch stand in several times.

    Where a batch goes is told beforehand (by `places`): a CUDA graph can replay `beside`.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._stored: Tensor | None = None  # [size, C, H, W]

    def beside(self, slices: Tensor, places: Tensor) -> Tensor:
        """Takes in a batch [N, C, H, W], N at most `size`: all there are then, [size, C, H, W].

        In float32; those of the batch with their gradient, earlier ones without.
        """
        slices = slices.float()
        if self._stored is None:
            copies = -(-self.size // len(slices))
            self._stored = slices.detach().repeat(copies, 1, 1, 1)[: self.size]
        stored = self._stored = self._stored.to(slices.device)
        every = stored.index_copy(0, places, slices)
        stored.copy_(every.detach())
        return every

    def state_dict(self) -> dict[str, Any]:
        """As `torch.load(weights_only=True)` takes it."""
        return {"slices": None if self._stored is None else self._stored.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken. ValueError where that had another size."""
        slices = state["slices"]
        if slices is not None and len(slices) != self.size:
            raise ValueError(f"RecentSlices: expected {self.size} slices, got {len(slices)}")
        self._stored = slices
