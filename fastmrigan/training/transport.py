"""Where the translations of whole slices are to go so that they lie among the other side's slices.

A patch, and a discriminator of patches, hardly know where in the head they are, nor what other
slices look like. The Frechet distance of two sets of slices does: it is what the optimal transport
costs that carries the normal distribution of the one's features onto that of the other's (Dowson
and Landau 1982), and that transport tells each slice where its own features belong. So in passes:
sources are translated, each is given the features where the transport puts it, and is held to them
until the next pass. Down a distance's own gradient, batch by batch, greys drifted to and fro
(RESULTS.md), perhaps because the slices that a batch is compared with lag behind the generator.

The features are those of random networks (metrics/features.py), drawn anew for each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmrigan.training.distributed import Ranks

NETWORKS = 4  # random ones of a pass, which the steps take in turns
SLICES = 512  # of either side a pass looks at, at most
SIDE = 64  # larger slices are averaged down to it: finer texture is for patches
CHUNK = 64  # slices a call of a random network
LEAST = 1e-9  # of the largest singular value: what is below it has no direction


def slice_features(slices: Tensor, network: Sequence[Tensor]) -> Tensor:
    """Slices [N, C, H, W] in [-1, 1], their channels' mean, by a random network: float32 [N, d]."""
    from fastmrigan.metrics.features import embed, resize_area

    with torch.autocast(slices.device.type, enabled=False):
        grey = slices.float().mean(1, keepdim=True)
        return embed(resize_area(grey, min(SIDE, grey.shape[-1])), network)


@torch.no_grad()
def features_of(slices: Tensor, network: Sequence[Tensor], device: torch.device) -> Tensor:
    """`slice_features` of many slices, taken on `device`; on the CPU."""
    there = [layer.to(device) for layer in network]
    parts = [slice_features(part.to(device), there) for part in slices.split(CHUNK)]
    return torch.cat(parts).cpu()


def transported(made: Tensor, real: Tensor) -> Tensor:
    """Rows [N, d] where the optimal transport puts them that gives them the mean and the
    covariance of rows [M, d], N and M at least 2; float32. Where one is not finite all stay as they
    are: the loss then says so.

    With centred rows X and Y, scaled by the roots of N - 1 and M - 1: W Y, W the polar factor of
    X Y^T, which is the partial isometry that leaves the least sum of squares between X and W Y.
    Rows fewer than both d and M span too little to arrive with the whole covariance.
    """
    if not (torch.isfinite(made).all() and torch.isfinite(real).all()):
        return made
    x, y = made.double(), real.double()
    mean = y.mean(0)
    scale = (len(x) - 1) ** 0.5
    x = (x - x.mean(0)) / scale
    y = (y - mean) / (len(y) - 1) ** 0.5
    u, values, vh = torch.linalg.svd(x @ y.T, full_matrices=False)
    kept = values > LEAST * values.max()
    return (mean + scale * (u[:, kept] @ (vh[kept] @ y))).float()


def transport_loss(made: Tensor, network: Sequence[Tensor], wanted: Tensor) -> Tensor:
    """Mean squared distance of the features of slices [N, C, H, W] from [N, d]. Over all slices of
    a pass, as it begins: their Frechet distance by this network, but for N in place of N - 1."""
    return (slice_features(made, network) - wanted).square().sum(1).mean()


class Transport:
    """The passes of a run: which sources a step holds to which features, of which network.

    Every rank makes the same pass, and takes its own part of each step's sources.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._state: dict[str, Any] = {}  # empty before the first pass

    def over(self, step: int) -> bool:
        """Whether step `step` begins a pass."""
        if not self._state:
            return True
        shown = (step - self._state["began"]) * self._state["batch"] * self.ranks.world
        return bool(shown >= len(self._state["rows"]))

    def begin(
        self,
        step: int,
        sources: Tensor,
        targets: Tensor,
        translated: Callable[[Tensor], Tensor],
        draws: np.random.Generator,
        batch: int,
        device: torch.device,
    ) -> None:
        """A pass over `sources` [N, 1, H, W], `batch` of them a step and rank. Features are taken
        on `device`; what is kept is on the CPU."""
        from fastmrigan.metrics.features import draw_weights

        rows, others = (
            torch.from_numpy(draws.permutation(len(side))[:SLICES]) for side in (sources, targets)
        )
        others = others[: len(rows)]  # more would have a covariance that so few cannot take on
        made, real = translated(sources[rows]), targets[others]
        seeds = draws.integers(2**32, size=NETWORKS)
        networks = [list(draw_weights(np.random.RandomState(int(seed)))) for seed in seeds]
        wanted = [
            transported(*(features_of(side, network, device) for side in (made, real)))
            for network in networks
        ]
        self._state = {
            "began": step,
            "batch": batch,
            "rows": rows,
            "networks": networks,
            "wanted": wanted,
        }

    def end(self) -> None:
        """The next step begins a pass."""
        self._state = {}

    def plan(self, step: int, sources: Tensor) -> dict[str, Tensor]:
        """This rank's sources of the step, the features they are held to, the network's layers."""
        state = self._state
        done = step - state["began"]
        first = (done * self.ranks.world + self.ranks.rank) * state["batch"]
        chosen = (first + torch.arange(state["batch"])) % len(state["rows"])
        which = done % NETWORKS
        layers = {f"transport_layer{i}": x for i, x in enumerate(state["networks"][which])}
        return layers | {
            "transport_source": sources[state["rows"][chosen]],
            "transport_wanted": state["wanted"][which][chosen],
        }

    def state_dict(self) -> dict[str, Any]:
        """As `torch.load(weights_only=True)` takes it."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self._state = dict(state)


def network_of(plan: dict[str, Tensor]) -> list[Tensor]:
    """The layers that `Transport.plan` gave."""
    return [plan[name] for name in sorted(plan) if name.startswith("transport_layer")]
