"""Which grey level of one contrast becomes which of the other, found without pairs.

A curve of grey levels makes slices of one contrast look a little like the other's. The best one
is a coarse translation with every tissue in its place: what a generator of few slices starts from,
where it would otherwise exchange tissues.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastmrigan.training.patches import apart, draw_filters, patch_distance, profiles

KNOTS = 17  # evenly from -1 to 1, straight lines between them
AIR = -0.8  # levels below it are taken for what surrounds the head, dark in every contrast
SIDE = 64  # larger slices are averaged down to it
SLICES = 64  # of either side at most; of 16 by chance, the wrong curve is the nearer at times
STEPS = 40
RATE = 0.1  # of Adam, falling in a line
CERTAIN = 128  # filters by which the curves found are told apart
DOUBTFUL = 1.15  # a second pair within so many times the first's distance may be the right one


class Tones(NamedTuple):
    """Fitted curves there and back, and how far apart they leave the patches."""

    to_target: Tensor  # float32 [KNOTS], on the CPU
    to_source: Tensor
    distance: float  # of the patches both ways, by filters they were not fitted with
    runner_up: float  # that of the curves found from the other start

    @property
    def doubtful(self) -> bool:
        return self.runner_up < DOUBTFUL * self.distance


def toned(slices: Tensor, knots: Tensor) -> Tensor:
    """Slices of any shape in [-1, 1], their grey levels changed by a curve through [KNOTS]."""
    places = ((slices.float() + 1) / 2 * (KNOTS - 1)).clamp(0, KNOTS - 1)
    below = places.floor().clamp(max=KNOTS - 2)
    index = below.long()
    return torch.lerp(knots[index], knots[index + 1], places - below)


def fit_tones(source: Tensor, target: Tensor, draws: np.random.Generator) -> Tones:
    """The curves whose patches come nearest to the other side's.

    source, target: slices [N, 1, H, W] in [-1, 1], unpaired, N at least 1. A curve goes down to
    the nearest of its kind: it is looked for from the grey levels as they are, and from their
    negative. A contrast that turns the other's levels round does so both ways, so that the start is
    chosen for both, by the sum of their distances: by one alone the wrong curve is the nearer more
    often, where the sides show other parts of the head.
    """
    levels = torch.linspace(-1, 1, KNOTS)
    starts = (levels, torch.where(levels < AIR, -1.0, -levels))
    ways = [found_from(starts, *sides, draws) for sides in ((source, target), (target, source))]
    found = [
        Tones(there, back, far + away, float("nan"))
        for (there, far), (back, away) in zip(*ways, strict=True)
    ]
    best, other = sorted(found, key=lambda tones: tones.distance)
    return best._replace(runner_up=other.distance)


def found_from(
    starts: tuple[Tensor, ...], source: Tensor, target: Tensor, draws: np.random.Generator
) -> list[tuple[Tensor, float]]:
    """From each start its curve, and how far it leaves the patches from the target's."""
    source, target = comparable(source, target, draws)
    filters = draw_filters(source.shape[-1], draws)
    curves = [fitted(start, source, target, filters) for start in starts]
    filters = draw_filters(source.shape[-1], draws, CERTAIN)  # others
    with torch.no_grad():
        return [
            (knots, float(patch_distance(toned(source, knots), target, filters)))
            for knots in curves
        ]


def comparable(source: Tensor, target: Tensor, draws: np.random.Generator) -> tuple[Tensor, Tensor]:
    """As many slices of both, small and few enough. Drawn apart, in an order of each side's own: of
    a paired set no twins are sought out, but a small one is taken whole."""
    count = min(len(source), len(target), SLICES)

    def some(slices: Tensor) -> Tensor:
        chosen = slices[torch.from_numpy(draws.permutation(len(slices))[:count])].float()
        return F.adaptive_avg_pool2d(chosen, min(SIDE, chosen.shape[-1]))

    return some(source), some(target)


def fitted(start: Tensor, source: Tensor, target: Tensor, filters: Tensor) -> Tensor:
    """The curve downhill from `start`."""
    free = start.clamp(-0.98, 0.98).atanh().requires_grad_()
    adam = torch.optim.Adam([free], RATE)
    wanted = profiles(target, filters)
    for step in range(STEPS):
        adam.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        adam.zero_grad()
        apart(profiles(toned(source, free.tanh()), filters), wanted).backward()
        adam.step()
    return free.detach().tanh()
