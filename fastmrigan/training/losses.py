"""Adversarial losses on logits, always in float32."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce


def discriminator_loss(real: Tensor, fake: Tensor, *, real_label: float = 1.0) -> Tensor:
    """-[y log s(real) + (1-y) log(1-s(real))] - log(1-s(fake)), s the sigmoid; logits [N]."""
    real, fake = real.float(), fake.float()
    return bce(real, real.new_full(real.shape, real_label)) + bce(fake, fake.new_zeros(fake.shape))


def generator_loss(fake: Tensor) -> Tensor:
    """The non-saturating -log s(fake) of Goodfellow et al. 2014; logits [N]."""
    fake = fake.float()
    return bce(fake, fake.new_ones(fake.shape))
