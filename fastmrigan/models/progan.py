"""Progressive GAN: both networks grow from 4x4, a stage at a time, each doubling the size.

Karras, Aila, Laine, Lehtinen: Progressive growing of GANs for improved quality, stability, and
variation, ICLR 2018, table 2 and appendix A. Stage s makes slices of side 4 * 2^s from feature
maps of min(base / 2^(s + 1), width) channels: 512, 512, 512, 512, 256, 128, 64 up to 256. At
1024x1024 with three channels the generator holds 23,079,115 parameters and the discriminator
23,087,249, the 1x1 convolutions to and from slices of all stages included.

A stage fades in: at `alpha` 0 the networks are those of the stage before, between nearest-neighbour
upsampling and average pooling; at 1 the stage stands alone, and only what it needs is computed.
Convolutions of later stages, and all but the last one or two to and from slices, then have no
gradient (None): optimisers skip them, DDP must be told (find_unused_parameters=True).

No norm here has weights or running statistics, and every operation can be differentiated twice, as
WGAN-GP needs.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 4
SLOPE = 0.2
# Under both square roots: 1e-8, and the next float32 above it, since PyTorch's ONNX exporter leaves
# out the addition of what is at most 1e-8, and a pixel of zeros would come out as NaN.
EPSILON = 1.0000001e-8
GROUP = 4  # slices over which minibatch standard deviation is taken


def stages(size: int) -> int:
    """How many stages reach `size`: 1 at 4, 7 at 256. ValueError unless a power of two >= 4."""
    if size < SMALLEST or size & (size - 1):
        raise ValueError(
            f"progressive GAN: expected size to be a power of two of at least {SMALLEST}, "
            f"got {size}"
        )
    return size.bit_length() - 2


def feature_maps(stage: int, width: int = 512, base: int = 8192) -> int:
    """Channels at side 4 * 2^stage: min(base / 2^(stage + 1), width), the paper's table 2."""
    return min(base >> (stage + 1), width)


class EqualisedConv2d(nn.Conv2d):
    """A convolution whose weights are kept N(0, 1) and scaled at run time by He's constant, so that
    Adam's steps are of the same relative size in every layer ("equalised learning rate").

    gain: sqrt(2) before LeakyReLU, 1 before nothing.
    """

    def __init__(
        self, inner: int, outer: int, kernel: int, padding: int = 0, gain: float = math.sqrt(2.0)
    ) -> None:
        super().__init__(inner, outer, kernel, padding=padding)
        self.scale = gain / math.sqrt(inner * kernel**2)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * self.scale, self.bias, padding=self.padding)


class EqualisedProjection(nn.ConvTranspose2d):
    """Latents [N, latent, 1, 1] to [N, outer, 4, 4]: the table's 4x4 convolution of one padded
    pixel, with its He constant (fan-in latent * 16), and without its products with zeros."""

    def __init__(self, latent: int, outer: int) -> None:
        super().__init__(latent, outer, SMALLEST)
        self.scale = math.sqrt(2.0 / (latent * SMALLEST**2))

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.conv_transpose2d(input, self.weight * self.scale, self.bias)


def pixel_norm(x: Tensor) -> Tensor:
    """Each pixel's feature vector [N, C, ...] to length sqrt(C) (the paper's section 4.2)."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return x * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + EPSILON).to(x.dtype)


class PixelNorm(nn.Module):
    """`pixel_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return pixel_norm(x)


def minibatch_deviation(x: Tensor) -> Tensor:
    """x [N, C, H, W] with one more channel: how much the slices of a group differ (section 3).

    The standard deviation over a group's slices, averaged over channels and pixels, one number a
    group. Groups are runs of 4 slices; where 4 does not divide the batch, of its largest divisor
    below 4 (the whole batch, if it is smaller). Real and fake slices in one batch keep apart where
    4 divides the number of each. Groups of one slice get 1e-4, the root of the epsilon, which also
    keeps the gradient finite where the slices of a group are equal.
    """
    n, c, h, w = x.shape
    group = next(g for g in range(min(GROUP, n), 0, -1) if n % g == 0)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    groups = wide.reshape(n // group, group, c, h, w)
    variance = (groups - groups.mean(dim=1, keepdim=True)).square().mean(dim=1)  # [N / g, C, H, W]
    deviation = (variance + EPSILON).sqrt().mean(dim=(1, 2, 3))  # [N / g]
    channel = deviation.repeat_interleave(group).to(x.dtype).reshape(n, 1, 1, 1)
    return torch.cat((x, channel.expand(n, 1, h, w)), dim=1)  # [N, C + 1, H, W]


class ProganGenerator(nn.Module):
    """Latents [N, latent], from N(0, 1), to slices [N, channels, size, size].

    The last layer is linear, as in the paper: slices are learned to lie in [-1, 1] and may step
    out. Clamp what is shown or stored, never what is trained on.

    latent: the paper's 512. width, base: see `feature_maps`; a reduced model lowers both.
    """

    latent_distribution = "normal"

    def __init__(
        self,
        *,
        size: int = 256,
        channels: int = 1,
        latent: int = 512,
        width: int = 512,
        base: int = 8192,
    ) -> None:
        super().__init__()
        self.latent = latent
        maps = _all_feature_maps("ProganGenerator", size, width, base)
        first: list[nn.Module] = [EqualisedProjection(latent, maps[0]), *_active(normed=True)]
        blocks = [nn.Sequential(*first, *_convolutions(maps[0], maps[0], normed=True))]
        for inner, outer in itertools.pairwise(maps):
            doubled = nn.Upsample(scale_factor=2.0, mode="nearest")
            convolutions = _convolutions(inner, outer, outer, normed=True)
            blocks.append(nn.Sequential(doubled, *convolutions))
        self.blocks = nn.ModuleList(blocks)
        self.to_slices = nn.ModuleList(EqualisedConv2d(m, channels, 1, gain=1.0) for m in maps)

    def forward(self, latents: Tensor, stage: int | None = None, alpha: float = 1.0) -> Tensor:
        """Slices of side 4 * 2^stage (None: the last), the stage faded in by `alpha` in 0..1."""
        stage = _checked("ProganGenerator", stage, alpha, len(self.blocks))
        x = before = pixel_norm(latents)[:, :, None, None]  # [N, latent, 1, 1]
        for block in itertools.islice(self.blocks, stage + 1):
            before, x = x, block(x)  # [N, feature_maps(s), 4 * 2^s, 4 * 2^s]
        slices: Tensor = self.to_slices[stage](x)  # [N, channels, 4 * 2^stage, 4 * 2^stage]
        if stage > 0 and alpha < 1:
            smaller = self.to_slices[stage - 1](before)
            doubled = F.interpolate(smaller, scale_factor=2.0, mode="nearest")
            slices = torch.lerp(doubled, slices, alpha)
        return slices

    def initialise(self) -> None:
        """Weights N(0, 1), biases 0: the scale is in the layers."""
        _initialise(self)


class ProganDiscriminator(nn.Module):
    """Slices [N, channels, side, side] to logits [N], unbounded: WGAN-GP's critic.

    The generator's mirror: 1x1 convolution from slices, then a stage of two convolutions and
    average pooling for each halving, minibatch standard deviation at 4x4, and a dense end. There is
    no pixel norm. The logit of a slice depends on its group in the batch (`minibatch_deviation`).
    """

    def __init__(
        self, *, size: int = 256, channels: int = 1, width: int = 512, base: int = 8192
    ) -> None:
        super().__init__()
        maps = _all_feature_maps("ProganDiscriminator", size, width, base)
        self.from_slices = nn.ModuleList(
            nn.Sequential(EqualisedConv2d(channels, m, 1), *_active()) for m in maps
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*_convolutions(inner, inner, outer), nn.AvgPool2d(2))
            for outer, inner in itertools.pairwise(maps)
        )  # blocks[s - 1] is stage s; stage 0 is the tail
        self.tail = nn.Sequential(
            *_convolutions(maps[0] + 1, maps[0]),
            EqualisedConv2d(maps[0], maps[0], SMALLEST),  # [N, maps[0], 1, 1]
            *_active(),
            EqualisedConv2d(maps[0], 1, 1, gain=1.0),
        )

    def forward(self, slices: Tensor, stage: int | None = None, alpha: float = 1.0) -> Tensor:
        """Logits [N] of slices of side 4 * 2^stage (None: the last), faded in by `alpha`."""
        stage = _checked("ProganDiscriminator", stage, alpha, len(self.from_slices))
        side = SMALLEST << stage
        if slices.shape[2:] != (side, side):
            raise ValueError(
                f"ProganDiscriminator: at stage {stage} expected slices of {side}x{side}, "
                f"got {list(slices.shape)}"
            )
        x = self.from_slices[stage](slices)  # [N, feature_maps(stage), side, side]
        for s in range(stage, 0, -1):
            x = self.blocks[s - 1](x)  # [N, feature_maps(s - 1), 2 * 2^s, 2 * 2^s]
            if s == stage and alpha < 1:
                smaller = self.from_slices[stage - 1](F.avg_pool2d(slices, 2))
                x = torch.lerp(smaller, x, alpha)
        logits: Tensor = self.tail(minibatch_deviation(x))  # [N, 1, 1, 1]
        return logits.flatten()  # [N]

    def initialise(self) -> None:
        """Weights N(0, 1), biases 0: the scale is in the layers."""
        _initialise(self)


def _all_feature_maps(name: str, size: int, width: int, base: int) -> list[int]:
    maps = [feature_maps(stage, width, base) for stage in range(stages(size))]
    if min(maps) < 1:
        raise ValueError(
            f"{name}: expected width of at least 1 and, at size {size}, base of at least "
            f"{2 ** len(maps)}, got width {width} and base {base}"
        )
    return maps


def _checked(name: str, stage: int | None, alpha: float, count: int) -> int:
    if stage is None:
        stage = count - 1
    if not 0 <= stage < count:
        raise ValueError(f"{name}: expected a stage from 0 to {count - 1}, got {stage}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"{name}: expected alpha from 0 to 1, got {alpha}")
    return stage


def _active(*, normed: bool = False) -> list[nn.Module]:
    return [nn.LeakyReLU(SLOPE), *([PixelNorm()] if normed else [])]


def _convolutions(*maps: int, normed: bool = False) -> list[nn.Module]:
    """3x3 convolutions from each number of channels to the next, each with what follows it."""
    layers: list[nn.Module] = []
    for inner, outer in itertools.pairwise(maps):
        layers += [EqualisedConv2d(inner, outer, 3, 1), *_active(normed=normed)]
    return layers


def _initialise(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, EqualisedConv2d | EqualisedProjection):
            nn.init.normal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
