"""Losses, always in float32; adversarial ones are taken on logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import l1_loss

Adversarial = Literal["log", "lsgan"]


def discriminator_loss(real: Tensor, fake: Tensor, *, real_label: float = 1.0) -> Tensor:
    """-[y log s(real) + (1-y) log(1-s(real))] - log(1-s(fake)), s the sigmoid; logits [N]."""
    real, fake = real.float(), fake.float()
    return bce(real, real.new_full(real.shape, real_label)) + bce(fake, fake.new_zeros(fake.shape))


def generator_loss(fake: Tensor) -> Tensor:
    """The non-saturating -log s(fake) of Goodfellow et al. 2014; logits [N]."""
    return adversarial(fake, "log", real=True)


def adversarial(logits: Tensor, kind: Adversarial, *, real: bool) -> Tensor:
    """How far logits of any shape are from saying "real" (or "fake"), averaged.

    "log": the cross-entropy of Goodfellow et al. 2014; "lsgan": (logit - 1)² or logit² of Mao et
    al. 2017.
    """
    logits = logits.float()
    wanted = torch.ones_like(logits) if real else torch.zeros_like(logits)
    if kind == "log":
        return bce(logits, wanted)
    return nn.functional.mse_loss(logits, wanted)


def called_real(logits: Tensor, kind: Adversarial) -> Tensor:
    """bool, the shape of `logits`: nearer to "real" than to "fake"."""
    return logits > (0.0 if kind == "log" else 0.5)


def l1(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference."""
    return l1_loss(made.float(), wanted.float())


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor
) -> Tensor:
    """(|gradient of the score| - 1)² between real and fake slices, averaged.

    Gulrajani et al. 2017, eq. 3. share: [N] in [0, 1], how far from fake to real each is taken.
    """
    share = share[:, None, None, None]
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).float().sum(), between, create_graph=True)
    # The root's derivative at 0 is infinite, where the gradient may well be.
    length = (gradient.float().square().sum((1, 2, 3)) + 1e-12).sqrt()  # [N]
    return (length - 1).square().mean()
