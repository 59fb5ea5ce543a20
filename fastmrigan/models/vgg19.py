"""VGG19's convolutions, as the eyes of style transfer.

Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition, ICLR 2015,
configuration E: 16 convolutions of 3x3 in five blocks, 20,024,384 parameters without the fully
connected layers. Style transfer pools by the mean instead of the maximum (Gatys, Ecker, Bethge:
Image style transfer using convolutional neural networks, CVPR 2016, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels, convolutions
CONVOLUTIONS = tuple(
    f"{block}_{number}"
    for block, (_, count) in enumerate(BLOCKS, 1)
    for number in range(1, count + 1)
)  # "1_1" .. "5_4"
RELUS = tuple(f"relu{place}" for place in CONVOLUTIONS)

# Of ImageNet's pictures in 0..1, red, green, blue: what torchvision's weights were trained on.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SMALLEST = 32  # the side at which the fifth block still sees 2x2


class Vgg19Features(nn.Module):
    """Slices [N, 1 or 3, H, W] in [-1, 1] to the responses of named layers.

    `features` has torchvision's numbering (`features.0.weight` .. `features.34.bias`), so that its
    weights fit as they are. Grey slices are repeated to three channels; ImageNet's mean and
    standard deviation are taken off inside.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, pooling: str = "average") -> None:
        """pooling: "average" for style transfer, "max" as VGG19 was trained."""
        super().__init__()
        pools = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}
        if pooling not in pools:
            raise ValueError(f"Vgg19Features: expected pooling average or max, got {pooling!r}")
        layers: list[nn.Module] = []
        inputs = 3
        for channels, count in BLOCKS:
            for _ in range(count):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
                inputs = channels
            layers.append(pools[pooling](2))
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def initialise(self) -> None:
        """He-scaled random filters without bias, from torch's global RNG.

        Random filters of VGG's shape carry style and content too (He, Wang, Hopcroft: A powerful
        generative model using random weights for the deep image representation, NIPS 2016).
        """
        for layer in self.convolutions().values():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def convolutions(self) -> dict[str, nn.Conv2d]:
        """The 16 convolutions by their place, "1_1" .. "5_4", in order."""
        found = (layer for layer in self.features if isinstance(layer, nn.Conv2d))
        return dict(zip(CONVOLUTIONS, found, strict=True))

    def forward(self, slices: Tensor, layers: Sequence[str] = RELUS) -> dict[str, Tensor]:
        """The responses behind the rectifiers named in `layers`, in the network's order.

        slices: [N, 1 or 3, H, W] in [-1, 1], H and W at least 32. relu<b>_<n> is
        [N, channels of block b, H / 2^(b-1), W / 2^(b-1)]. Layers behind the last one asked for
        are not computed. Raises ValueError for an unknown layer or a wrong shape.
        """
        unknown = sorted(set(layers) - set(RELUS))
        if unknown:
            raise ValueError(f"Vgg19Features: no layer {unknown[0]!r}; relu1_1 .. relu5_4")
        if slices.ndim != 4 or slices.shape[1] not in (1, 3) or min(slices.shape[2:]) < SMALLEST:
            raise ValueError(
                f"Vgg19Features: expected [N, 1 or 3, H, W] of at least {SMALLEST}x{SMALLEST}, "
                f"got {list(slices.shape)}"
            )
        x = ((slices + 1) / 2 - self.mean) / self.std  # [N, 3, H, W]; one channel broadcasts
        names, wanted = iter(RELUS), set(layers)
        found: dict[str, Tensor] = {}
        for layer in self.features:
            if len(found) == len(wanted):
                break
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                name = next(names)
                if name in wanted:
                    found[name] = x
        return found
