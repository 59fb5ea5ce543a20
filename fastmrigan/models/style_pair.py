"""The style-transfer GAN's generator with a reference: G: X x Y_b -> Y_b.

The pair is asymmetric, as in Chang, Lu, Yu, Finkelstein: PairedCycleGAN (CVPR 2018): G puts the
style of a reference slice on a content slice, and F: Y -> X, which takes it off, is an ordinary
translator (fastmrigan.models.resnet). Content and reference have encoders of their own, after
Huang, Liu, Belongie, Kautz: Multimodal unsupervised image-to-image translation (ECCV 2018): the
content keeps its positions, the reference becomes one code that modulates every norm behind the
content encoder (adaptive instance norm, Huang and Belongie, ICCV 2017). Content and reference
stacked as channels would also do for registered makeup, but these two slices are of different
heads: stacked, the reference's anatomy shows through.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmrigan.ops import FusedInstanceNorm2d
from fastmrigan.ops.strided_conv import StridedConv2d

CONTENT_DOWNS = 2
REFERENCE_DOWNS = 4
SMALLEST = 32  # the side at which the reference encoder's last map is 2x2


class StylePairGenerator(nn.Module):
    """Content and reference slices to the content in the reference's style, in [-1, 1].

    size: side of the slices, a multiple of 4 from 32 on. width: channels of the first layer.
    blocks: residual blocks at a quarter of the side. code: length of the reference's style code.
    inert_bias=False leaves out the biases that an instance norm removes again.
    """

    reference: Tensor  # [1, channels, size, size]

    def __init__(
        self,
        *,
        size: int,
        channels: int = 1,
        width: int = 64,
        blocks: int = 6,
        code: int = 64,
        inert_bias: bool = True,
    ) -> None:
        super().__init__()
        if size < SMALLEST or size % (1 << CONTENT_DOWNS):
            raise ValueError(
                f"StylePairGenerator: expected a size of at least {SMALLEST} and a multiple of "
                f"{1 << CONTENT_DOWNS}, got {size}"
            )
        deepest = width << CONTENT_DOWNS
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 7, 1, 3, padding_mode="reflect", bias=inert_bias),
            FusedInstanceNorm2d(width, activation="relu"),
        ]  # [N, width, size, size]
        for step in range(CONTENT_DOWNS):
            inner = width << step
            layers += [
                nn.Conv2d(inner, inner * 2, 3, 2, 1, bias=inert_bias),
                FusedInstanceNorm2d(inner * 2, activation="relu"),
            ]  # half the size, twice the channels
        self.content_encoder = nn.Sequential(*layers)
        self.reference_encoder = ReferenceEncoder(channels, width, code)
        self.blocks = nn.ModuleList(
            ModulatedBlock(deepest, code, inert_bias) for _ in range(blocks)
        )
        self.ups = nn.ModuleList(
            ModulatedConv(deepest >> step, deepest >> (step + 1), code, inert_bias)
            for step in range(CONTENT_DOWNS)
        )
        self.last = nn.Conv2d(width, channels, 7, 1, 3, padding_mode="reflect")
        self.register_buffer("reference", torch.zeros(1, channels, size, size))

    def forward(self, content: Tensor, reference: Tensor | None = None) -> Tensor:
        """content, reference: [N, channels, H, W] in [-1, 1]. Returns the content's shape.

        Without a reference, the one kept with the weights (`reference`) serves all.
        """
        if reference is None:
            reference = self.reference
        style = self.reference_encoder(reference)  # [N, code], or [1, code] for all
        x = self.content_encoder(content)  # [N, 4 * width, H / 4, W / 4]
        for block in self.blocks:
            x = block(x, style)
        for up in self.ups:
            x = F.relu(up(F.interpolate(x, scale_factor=2.0, mode="nearest"), style))
        slices: Tensor = self.last(x).tanh()  # [N, channels, H, W]
        return slices

    def initialise(self) -> None:
        """N(0, 0.02) as everywhere, but He's scale (Huang et al. 2018) on the reference's side.

        The reference encoder has no norm that would make up for small weights: drawn from
        N(0, 0.02), its code would be all but zero, and so would the gradient that reaches it.
        """
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, 0.0, 0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in self.reference_encoder.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")


class ReferenceEncoder(nn.Module):
    """Slices [N, channels, H, W] to style codes [N, code].

    No norm: it would take away the means and variances that are the style.
    """

    def __init__(self, channels: int, width: int, code: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 7, 1, 3, padding_mode="reflect"),
            nn.ReLU(),
        ]
        inner = width
        for _ in range(REFERENCE_DOWNS):
            outer = min(inner * 2, width * 4)
            layers += [StridedConv2d(inner, outer), nn.ReLU()]
            inner = outer
        self.layers = nn.Sequential(*layers)  # [N, 4 * width, H / 16, W / 16]
        self.last = nn.Linear(inner, code)

    def forward(self, slices: Tensor) -> Tensor:
        code: Tensor = self.last(self.layers(slices).mean(dim=(2, 3)))  # [N, code]
        return code


class ModulatedConv(nn.Module):
    """3x3 convolution, instance norm, then a scale and a shift for each channel from the code."""

    def __init__(self, inputs: int, outputs: int, code: int, inert_bias: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            inputs, outputs, 3, 1, 1, padding_mode="reflect", bias=inert_bias
        )
        self.norm = FusedInstanceNorm2d(outputs)
        self.modulation = nn.Linear(code, 2 * outputs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.modulation(style)[:, :, None, None].chunk(2, dim=1)  # [N, C, 1, 1]
        modulated: Tensor = self.norm(self.convolution(x)) * (1 + scale) + shift
        return modulated


class ModulatedBlock(nn.Module):
    """Two modulated convolutions around a rectifier, and the way past them."""

    def __init__(self, width: int, code: int, inert_bias: bool) -> None:
        super().__init__()
        self.first = ModulatedConv(width, width, code, inert_bias)
        self.second = ModulatedConv(width, width, code, inert_bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        added: Tensor = x + self.second(F.relu(self.first(x, style)), style)
        return added
