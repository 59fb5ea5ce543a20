"""The running mean of a generator's weights, and batch-norm statistics that fit them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from fastmrigan.training.sections import Ema

CALIBRATION_BATCHES = 4
CALIBRATION_BATCH = 128


@torch.no_grad()
def update(mean: nn.Module, live: nn.Module, step: int, ema: Ema) -> None:
    """mean <- decay * mean + (1 - decay) * live, parameter by parameter; step counts from 0.

    Batch norm's running statistics are not averaged: `calibrate` computes them afresh.
    """
    decay = min(ema.decay, (1 + step) / (10 + step)) if ema.ramp else ema.decay
    torch._foreach_lerp_(list(mean.parameters()), list(live.parameters()), 1 - decay)


@torch.no_grad()
def calibrate(generator: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replaces batch norm's running statistics by those over `batches` of inputs.

    Averaged weights have activations of their own: the live generator's statistics do not fit
    them, and an untrained one has none. A function of the weights and the batches alone. Leaves
    the generator in eval mode. After `torch.optim.swa_utils.update_bn`.
    """
    norms = [layer for layer in generator.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    generator.eval()  # dropout has no say here, and draws no random numbers
    for norm in norms:
        norm.train()
    for inputs in batches if norms else ():
        generator(inputs.to(next(generator.parameters()).device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    generator.eval()


def seeded_latents(count: int, latent: int, seed: int) -> torch.Tensor:
    """float32 [count, latent] from N(0, 1), on the CPU and apart from torch's global RNG."""
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(seed))
