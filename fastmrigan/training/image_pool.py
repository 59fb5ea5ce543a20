"""Generated slices of earlier steps, shown to a discriminator again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """A history of generated slices, after Shrivastava et al. 2017 as CycleGAN (Zhu 2017) uses it.

    Until it is full every slice is stored and handed back. Then each slice is, with probability
    1/2, exchanged for a random stored one, and handed back itself otherwise. A pool of size 0 hands
    everything back. It has a random stream of its own, on the CPU; with several ranks each has a
    pool, and wants a seed of its own.
    """

    def __init__(self, size: int = 50, *, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"ImagePool: expected a size of 0 or more, got {size}")
        self.size = size
        self.count = 0  # slices stored
        self._generator = torch.Generator().manual_seed(seed)
        self._stored: Tensor | None = None  # [size, C, H, W], the first `count` in use

    def query(self, slices: Tensor) -> Tensor:
        """slices [N, C, H, W], one after the other, to as many for the discriminator, detached.

        ValueError where they are of another shape or type than those stored.
        """
        slices = slices.detach()
        if self.size == 0:
            return slices
        stored = self._storage(slices)
        shown = torch.empty_like(slices)  # [N, C, H, W]
        for slice_, place in zip(slices, shown, strict=True):
            if self.count < self.size:
                stored[self.count] = slice_
                place.copy_(slice_)
                self.count += 1
                continue
            chance, which = torch.rand(2, generator=self._generator, dtype=torch.float64).tolist()
            if chance > 0.5:
                old = stored[int(which * self.size)]
                place.copy_(old)
                old.copy_(slice_)
            else:
                place.copy_(slice_)
        return shown

    def state_dict(self) -> dict[str, Any]:
        """Plain ints and tensors (on the CPU), as `torch.load(weights_only=True)` takes them."""
        stored = None if self._stored is None else self._stored[: self.count].cpu().clone()
        return {
            "size": self.size,
            "count": self.count,
            "slices": stored,  # [count, C, H, W], or None
            "rng": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken. ValueError where that was a pool of another size."""
        if state["size"] != self.size:
            raise ValueError(f"ImagePool: expected a pool of {self.size}, got {state['size']}")
        self._generator.set_state(state["rng"].cpu())
        self.count, slices = int(state["count"]), state["slices"]
        self._stored = None
        if slices is not None:
            self._stored = slices.new_empty(self.size, *slices.shape[1:])
            self._stored[: self.count] = slices

    def _storage(self, slices: Tensor) -> Tensor:
        if self._stored is None:
            self._stored = slices.new_empty(self.size, *slices.shape[1:])
        elif self._stored.shape[1:] != slices.shape[1:] or self._stored.dtype != slices.dtype:
            raise ValueError(
                f"ImagePool: expected {self._stored.dtype} slices {list(self._stored.shape[1:])}, "
                f"got {slices.dtype} {list(slices.shape[1:])}"
            )
        if self._stored.device != slices.device:  # loaded from a checkpoint
            self._stored = self._stored.to(slices.device)
        return self._stored
