"""Style transfer of one slice by optimisation, after Gatys, Ecker, Bethge (CVPR 2016).

The slice itself is what is optimised, with L-BFGS: the paper's choice, and with a strong Wolfe line
search it needs no learning rate, so that one default serves trained and random filters, whose
losses differ by orders of magnitude. The losses are those of the slice clipped to [-1, 1], so that
what is minimised is what is written; pixels that stand outside are put back on the bound every few
steps, since out there they feel no gradient. The slice is grey throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastmrigan.errors import CheckFailed, UsageError
from fastmrigan.models.vgg19 import SMALLEST, Vgg19Features
from fastmrigan.style.losses import content_loss, style_loss, style_of
from fastmrigan.style.smoothing import smooth_edges

CONTENT_LAYERS = ("relu4_2",)
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STARTS = ("content", "noise")
STEPS_A_CALL = 10  # between two looks at Ctrl-C; each call of torch's L-BFGS evaluates once more
HISTORY = 20  # pairs of steps and gradients L-BFGS remembers

Losses = dict[str, float]  # content, style and total


@dataclass(frozen=True)
class StyleSettings:
    """Everything that shapes a result but the slices and the weights."""

    size: int  # side of the slices, in pixels
    steps: int = 200  # L-BFGS iterations a slice, fewer where it has converged
    content_weight: float = 1.0  # alpha
    style_weight: float = 1000.0  # beta; alpha / beta = 1e-3 is the paper's
    smooth_edges: float = 0.0  # sigma in pixels of the smoothing of the result's edges; 0: none
    start: str = "content"  # or noise, as in the paper
    seed: int = 0  # of the noise
    content_layers: tuple[str, ...] = CONTENT_LAYERS
    style_layers: tuple[str, ...] = STYLE_LAYERS

    def check(self) -> None:
        """Raises UsageError on a value that cannot be meant."""
        if self.size < SMALLEST:
            raise UsageError(f"--size {self.size}: VGG19 needs at least {SMALLEST} pixels a side")
        if self.steps < 1:
            raise UsageError(f"--steps {self.steps}: expected at least 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: expected a whole number from 0 to 2^63 - 1")
        for name in ("content_weight", "style_weight", "smooth_edges"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                option = name.replace("_", "-")
                raise UsageError(f"--{option} {value}: expected a finite number of at least 0")
        if self.content_weight == self.style_weight == 0:
            raise UsageError(
                "--content-weight 0 --style-weight 0: nothing to optimise; give one more than 0"
            )
        if self.smooth_edges > self.size / 8:
            raise UsageError(
                f"--smooth-edges {self.smooth_edges:g}: expected at most an eighth of the side, "
                f"{self.size / 8:g}"
            )
        if self.start not in STARTS:
            raise UsageError(f"--start {self.start}: unknown; choose one of {', '.join(STARTS)}")


class Abandoned(Exception):
    """The caller's `go_on` said no: the slice in hand is not finished."""


@dataclass(frozen=True)
class Transferred:
    """One slice's result."""

    slice: Tensor  # float32 [1, 1, H, W] in [-1, 1]
    losses: Losses  # of that slice, smoothed as it is
    rows: list[dict[str, float]]  # step and losses on the way; step 0 is the start
    steps: int  # taken


class Objective:
    """The weighted sum of content and style loss as a function of a slice."""

    def __init__(
        self, network: Vgg19Features, content: Tensor, style: Tensor, settings: StyleSettings
    ) -> None:
        self.network, self.settings = network, settings
        self.layers = tuple(dict.fromkeys(settings.content_layers + settings.style_layers))
        with torch.no_grad():
            self.content = network(content, settings.content_layers)
            self.style = style_of(network(style, settings.style_layers))

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Content loss, style loss and their weighted sum, of x [1, 1, H, W] clipped."""
        found = self.network(x.clamp(-1.0, 1.0), self.layers)
        content = content_loss({name: found[name] for name in self.content}, self.content)
        style = style_loss({name: found[name] for name in self.style}, self.style)
        settings = self.settings
        return (
            content,
            style,
            settings.content_weight * content + settings.style_weight * style,
        )

    @torch.no_grad()
    def losses(self, x: Tensor) -> Losses:
        content, style, total = self(x)
        return {"content": content.item(), "style": style.item(), "total": total.item()}


def transfer(
    network: Vgg19Features,
    content: Tensor,
    style: Tensor,
    settings: StyleSettings,
    *,
    index: int = 0,
    go_on: Callable[[int], bool] = lambda steps: True,
) -> Transferred:
    """The content of one slice in the style of another.

    network: frozen, as `fastmrigan.style.weights` gives it. content: float32 [1, 1, H, W], style
    the same of any size, both in [-1, 1]. index: of the slice, for the noise of its start.
    go_on(steps taken) is asked every few steps; where it says no, Abandoned is raised. Raises
    CheckFailed where a loss is no longer finite.
    """
    objective = Objective(network, content, style, settings)
    x = start_slice(content, settings, index).requires_grad_()
    optimiser = torch.optim.LBFGS([x], history_size=HISTORY, line_search_fn="strong_wolfe")
    options = optimiser.param_groups[0]

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = objective(x)[2]
        total.backward()  # type: ignore[no-untyped-call]
        return total

    steps = 0
    rows = [row_of(objective, x, steps, index)]
    while steps < settings.steps:
        options["max_iter"] = min(STEPS_A_CALL, settings.steps - steps)
        options["max_eval"] = 25 * STEPS_A_CALL  # what the line search may take at its worst
        before = optimiser.state[x].get("n_iter", 0)
        optimiser.step(closure)  # type: ignore[no-untyped-call]
        taken = optimiser.state[x].get("n_iter", 0) - before
        steps += taken
        with torch.no_grad():
            x.clamp_(-1.0, 1.0)
        if taken:
            rows.append(row_of(objective, x, steps, index))
        if not go_on(steps):
            raise Abandoned
        if taken < options["max_iter"]:  # converged
            break
    result = x.detach()
    if settings.smooth_edges > 0:
        result = smooth_edges(result, settings.smooth_edges)
    return Transferred(result, objective.losses(result), rows, steps)


def start_slice(content: Tensor, settings: StyleSettings, index: int) -> Tensor:
    """Where the optimisation begins: the content, or uniform noise of (seed, index) alone."""
    if settings.start == "content":
        return content.clone()
    noise = np.random.default_rng([settings.seed, index]).uniform(-1, 1, content.shape)
    return torch.from_numpy(noise.astype(np.float32)).to(content.device)


def row_of(objective: Objective, x: Tensor, step: int, index: int) -> dict[str, float]:
    losses = objective.losses(x.detach())
    if not math.isfinite(losses["total"]):
        raise CheckFailed(
            f"slice {index}: a loss is {losses['total']} at step {step}; give a lower "
            "--style-weight or --content-weight"
        )
    return {"step": step, **losses}
