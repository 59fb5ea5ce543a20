"""Mahajan's translators between T1 and T2: a U-Net generator and a patch discriminator.

Mahajan: Generating MRI images using style transfer learning. Its code descends from TensorFlow's
CycleGAN tutorial, whose networks settle what the paper leaves open: kernels of 4 with stride 2 and
"same" padding, no convolution with a bias but the last, instance norm with a scale and an offset
(affine), no norm after the first convolution, dropout in the first three ups, and Keras' LeakyReLU,
which has slope 0.3 (pix2pix's own is 0.2). With three channels, seven downs and width 64 the
generator is the tutorial's, layer by layer, with its 54,414,979 parameters.

| variant | size | generator | discriminator |
|---|---|---|---|
| v1 | 128 | downs=4 | downs=2 |
| v2 | 256 | downs=4 | downs=2 |
| v3, v4 | 256 | downs=7 | downs=3 |

In v3 and v4 the bottleneck is 1x1. Instance norm of a single pixel is 0, so that the bottleneck
yields act(offset) whatever the slice. Offsets start at 0: the up behind it then receives zeros,
makes zeros, and ReLU passes no gradient at 0. Unless an offset is moved, these two innermost layers
therefore never train (as in the tutorial), and the network is one of six downs and a bottleneck at
2x2. They stand here since the paper has them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from fastmrigan.models.initial import normal_weights
from fastmrigan.ops import FusedInstanceNorm2d
from fastmrigan.ops.strided_conv import StridedConv2d, StridedConvTranspose2d

Activation = Literal["leaky_relu", "relu"]

SLOPE = 0.3  # Keras' default, which the tutorial takes
DROPPED_UPS = 3  # the innermost ones


class T1T2UnetGenerator(nn.Module):
    """Slices [N, channels, size, size] of one contrast to the other's, both in [-1, 1].

    downs: strided convolutions before the bottleneck (one more) and ups behind it; size is a
        multiple of 2^(downs + 1).
    width: channels after the first down; they double with each down, to 8 * width at most.
    dropout: in the first three ups.
    activation: of downs and bottleneck: "leaky_relu" (the paper's table, and the tutorial) or
        "relu" (the paper's text). slope is LeakyReLU's. The ups have ReLU.
    """

    def __init__(
        self,
        *,
        size: int = 256,
        channels: int = 1,
        downs: int = 7,
        width: int = 64,
        dropout: float = 0.5,
        activation: Activation = "leaky_relu",
        slope: float = SLOPE,
    ) -> None:
        super().__init__()
        if downs < 1:
            raise ValueError(f"T1T2UnetGenerator: expected downs of at least 1, got {downs}")
        step = 2 ** (downs + 1)
        if size < step or size % step:
            raise ValueError(
                f"T1T2UnetGenerator: with {downs} downs expected size to be a multiple of {step}, "
                f"got {size}"
            )
        _check_activation("T1T2UnetGenerator", activation)
        widths = [width << min(i, 3) for i in range(downs + 1)]  # the last is the bottleneck's
        inputs = [channels, *widths]
        units = [
            _down(inputs[i], widths[i], activation, slope, norm=i > 0) for i in range(downs + 1)
        ]
        self.downs = nn.ModuleList(units[:-1])
        self.bottleneck = units[-1]
        self.ups = nn.ModuleList(
            _up(
                widths[i + 1] * (1 if i == downs - 1 else 2),  # twice where a skip was joined
                widths[i],
                dropout if downs - 1 - i < DROPPED_UPS else 0.0,
            )
            for i in reversed(range(downs))
        )
        self.last = StridedConvTranspose2d(2 * width, channels)

    def forward(self, slices: Tensor) -> Tensor:
        skips = []
        x = slices
        for down in self.downs:
            x = down(x)  # [N, width * 2^i, H / 2^(i + 1), W / 2^(i + 1)]
            skips.append(x)
        x = self.bottleneck(x)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = torch.cat((up(x), skip), dim=1)  # twice the skip's channels
        return torch.tanh(self.last(x))  # [N, channels, H, W]

    def initialise(self) -> None:
        """Convolutions N(0, 0.02), norm scales N(1, 0.02), biases and offsets 0."""
        normal_weights(self)


class T1T2Discriminator(nn.Module):
    """Slices [N, channels, H, W] to logits [N, 1, h, w], one a patch; above 0 means "real".

    Strided convolutions (`downs`, their channels doubling from `width`), then zero padding,
    convolution, instance norm, activation, zero padding, last. h is H / 2^downs - 2. The padding
    is the convolutions' own. Three downs at width 64 are the tutorial's, with 2,765,569 parameters
    at three channels; with two downs the convolution behind them still doubles the channels.
    """

    def __init__(
        self,
        *,
        size: int = 256,
        channels: int = 1,
        downs: int = 3,
        width: int = 64,
        activation: Activation = "leaky_relu",
        slope: float = SLOPE,
    ) -> None:
        super().__init__()
        if downs < 1:
            raise ValueError(f"T1T2Discriminator: expected downs of at least 1, got {downs}")
        if size >> downs < 3:
            raise ValueError(
                f"T1T2Discriminator: with {downs} downs expected size of at least {3 << downs}, "
                f"got {size}"
            )
        _check_activation("T1T2Discriminator", activation)
        inputs = [channels, *(width << i for i in range(downs))]
        self.downs = nn.Sequential(
            *(_down(inputs[i], width << i, activation, slope, norm=i > 0) for i in range(downs))
        )
        self.tail = nn.Sequential(
            nn.Conv2d(inputs[-1], 2 * inputs[-1], 4, 1, 1, bias=False),
            _norm(2 * inputs[-1], activation, slope),
        )
        self.last = nn.Conv2d(2 * inputs[-1], 1, 4, 1, 1)

    def forward(self, slices: Tensor) -> Tensor:
        x = self.downs(slices)  # [N, width * 2^(downs - 1), H / 2^downs, W / 2^downs]
        x = self.tail(x)  # twice the channels, one pixel less each way
        logits: Tensor = self.last(x)  # [N, 1, H / 2^downs - 2, W / 2^downs - 2]
        return logits

    def initialise(self) -> None:
        """Convolutions N(0, 0.02), norm scales N(1, 0.02), biases and offsets 0."""
        normal_weights(self)


def _check_activation(name: str, activation: str) -> None:
    if activation not in ("leaky_relu", "relu"):
        raise ValueError(f"{name}: expected activation 'leaky_relu' or 'relu', got {activation!r}")


def _norm(channels: int, activation: Activation, slope: float = 0.0) -> FusedInstanceNorm2d:
    return FusedInstanceNorm2d(channels, affine=True, activation=activation, slope=slope)


def _down(
    inner: int, outer: int, activation: Activation, slope: float, *, norm: bool
) -> nn.Sequential:
    """Half the size; `norm` False leaves the activation alone."""
    plain = nn.ReLU() if activation == "relu" else nn.LeakyReLU(slope)
    return nn.Sequential(
        StridedConv2d(inner, outer, bias=False),
        _norm(outer, activation, slope) if norm else plain,
    )


def _up(inner: int, outer: int, dropout: float) -> nn.Sequential:
    """Twice the size. The tutorial drops before ReLU: dropout's factors are not negative, so that
    dropping after it is the same, and norm and ReLU stay one operator."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=StridedConvTranspose2d(inner, outer, bias=False), norm=_norm(outer, "relu")
    )
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(layers)
