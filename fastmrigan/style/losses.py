"""Content, style and cycle losses: pure functions of features and slices, in float32 at least.

The first three are Gatys, Ecker, Bethge: Image style transfer using convolutional neural networks,
CVPR 2016. The last two belong to the asymmetric pair G: X x Y_b -> Y_b, F: Y -> X of Chang, Lu, Yu,
Finkelstein: PairedCycleGAN, CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def gram(features: Tensor) -> Tensor:
    """Gram matrices of feature maps (eq. 3), over positions. [N, C, H, W] to float32 [N, C, C]."""
    flat = widen(features).flatten(2)  # [N, C, H * W]
    return flat @ flat.transpose(1, 2)


def content_loss(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """Half the summed squared difference of features (eq. 1), summed over layers, mean over N.

    found, wanted: features by layer, [N, C, H, W], the same layers. It grows with the slice's
    pixels, as in the paper.
    """
    check_layers("content_loss", found, wanted)
    total = torch.zeros((), device=next(iter(found.values())).device)
    for name, features in found.items():
        difference = widen(features) - widen(wanted[name])
        total = total + 0.5 * difference.square().sum() / len(features)
    return total


def style_loss(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """Squared difference of Gram matrices (eq. 4 and 5), the mean over layers and over N.

    found: features by layer, [N, C, H, W]. wanted: by the same layers either features of any
    height and width, or `style_of` them ([N, C, C]). A layer of C channels and M positions
    contributes sum((G / M - A / M')^2) / (4 C^2); at equal sizes that is eq. 4.
    """
    check_layers("style_loss", found, wanted)
    total = torch.zeros((), device=next(iter(found.values())).device)
    for name, features in found.items():
        target = wanted[name] if wanted[name].ndim == 3 else mean_gram(wanted[name])
        difference = mean_gram(features) - target  # [N, C, C]
        total = total + difference.square().mean() / 4
    return total / len(found)


def style_of(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `style_loss` compares: Gram matrices a position, by layer, [N, C, C]."""
    return {name: mean_gram(value) for name, value in features.items()}


def mean_gram(features: Tensor) -> Tensor:
    """`gram` divided by the number of positions. [N, C, H, W] to [N, C, C]."""
    return gram(features) / (features.shape[2] * features.shape[3])


def cycle_loss(restored: Tensor, content: Tensor) -> Tensor:
    """Mean absolute difference of F(G(x, y)) and x: taking the style off gives the content back.

    Both [N, C, H, W].
    """
    return F.l1_loss(widen(restored), widen(content))


def style_cycle_loss(restyled: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of G(F(y), G(x, y)) and y: the style that x took is all of y's.

    Both [N, C, H, W].
    """
    return F.l1_loss(widen(restyled), widen(reference))


def widen(x: Tensor) -> Tensor:
    """Half precision to float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_layers(name: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    if not found or found.keys() != wanted.keys():
        raise ValueError(
            f"{name}: expected the same layers on both sides, at least one; "
            f"got {sorted(found)} and {sorted(wanted)}"
        )
