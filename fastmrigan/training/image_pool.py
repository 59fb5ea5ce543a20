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

    What happens to a batch is decided first (`plan`), which needs no slices, and done then
    (`exchange`), by the same operations each time: a CUDA graph can replay them.
    """

    def __init__(self, size: int = 50, *, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"ImagePool: expected a size of 0 or more, got {size}")
        self.size = size
        self.count = 0  # slices stored
        self._generator = torch.Generator().manual_seed(seed)
        self._stored: Tensor | None = None  # [size + 1, C, H, W], the first `count` in use

    def reseed(self, seed: int) -> None:
        """Begins another random stream; what is stored stays."""
        self._generator.manual_seed(seed)

    def query(self, slices: Tensor) -> Tensor:
        """slices [N, C, H, W], one after the other, to as many for the discriminator, detached.

        ValueError where they are of another shape or type than those stored.
        """
        if self.size:
            self._storage(slices.detach())
        return self.exchange(slices, self.plan(len(slices)))

    def plan(self, count: int) -> Tensor:
        """What will happen to the next `count` slices, int64 [3, count] on the CPU: the place of
        the stored slice shown instead (-1: none is), the slice of the batch shown where none is,
        and the place it is stored at (`size`: nowhere that is looked at).

        A slice of the batch may be stored and shown again in place of a later one of it.
        """
        content: dict[int, int] = {}  # which slices of the batch stand where, so far
        shown = []  # [count] of (place or -1, slice)
        for own in range(count):
            place = None  # where this slice goes
            show = (-1, own)
            if self.count < self.size:
                place = self.count
                self.count += 1
            elif self.size:
                drawn = torch.rand(2, generator=self._generator, dtype=torch.float64)
                chance, which = drawn.tolist()
                if chance > 0.5:
                    place = int(which * self.size)
                    show = (-1, content[place]) if place in content else (place, own)
            if place is not None:
                content[place] = own
            shown.append(show)
        stored_at = [self.size] * count
        for place, own in content.items():
            stored_at[own] = place
        taken, own_shown = zip(*shown, strict=True) if shown else ((), ())
        return torch.tensor([taken, own_shown, stored_at], dtype=torch.int64)

    def exchange(self, slices: Tensor, plan: Tensor) -> Tensor:
        """slices [N, C, H, W] to as many for the discriminator, detached, as `plan` (of N) says.

        plan: on the slices' device. ValueError as `query`.
        """
        slices = slices.detach()
        if self.size == 0:
            return slices
        stored = self._storage(slices)
        taken, own, place = plan.unbind()  # [N] each
        old = stored.index_select(0, taken.clamp(min=0))
        new = slices.index_select(0, own)
        shown = torch.empty_like(slices)  # [N, C, H, W], in the slices' layout
        shown.copy_(torch.where((taken >= 0)[:, None, None, None], old, new))
        stored.index_copy_(0, place, slices)
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
            self._stored = self._empty(slices)
            self._stored[: self.count] = slices

    def _storage(self, slices: Tensor) -> Tensor:
        if self._stored is None:
            self._stored = self._empty(slices)
        elif self._stored.shape[1:] != slices.shape[1:] or self._stored.dtype != slices.dtype:
            raise ValueError(
                f"ImagePool: expected {self._stored.dtype} slices {list(self._stored.shape[1:])}, "
                f"got {slices.dtype} {list(slices.shape[1:])}"
            )
        if self._stored.device != slices.device:  # loaded from a checkpoint
            self._stored = self._stored.to(slices.device)
        return self._stored

    def _empty(self, slices: Tensor) -> Tensor:
        """Room for `size` slices, and for those that are not to be kept."""
        return slices.new_empty(self.size + 1, *slices.shape[1:])
