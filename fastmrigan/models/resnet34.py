"""An encoder of ResNet-34's stages and a decoder of transposed convolutions.

Li: Inter-translation between CT and MRI brain scans. The paper says "ResNet34 in the generators"
and no more. ResNet-34 (He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR
2016, table 1) is a classifier, so what makes a generator of it is left open. Taken here:

- encoder: ResNet-34's own, to the letter (a 7x7 stem of stride 2, max pooling, stages of 3, 4, 6
  and 3 basic blocks, 1x1 projections where a stage changes shape), with CycleGAN's instance norm
  in place of batch norm, since the paper trains at batch 1;
- decoder: five of CycleGAN's ups (3x3 transposed convolutions of stride 2, instance norm, ReLU),
  whose widths are those of the encoder at each side, and CycleGAN's head (7x7, reflection
  padding, tanh);
- no skip connections between the two, and no pretrained weights: neither is mentioned.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastmrigan.models.initial import normal_weights
from fastmrigan.ops import FusedInstanceNorm2d

STAGES = (3, 4, 6, 3)  # basic blocks
SMALLEST = 64  # 2x2 at the deepest: instance norm of 1x1 is zero


class Resnet34Generator(nn.Module):
    """Slices [N, channels, size, size] to slices of the same shape, in [-1, 1].

    width: channels of the stem; the four stages have 1, 2, 4 and 8 times as many.
    inert_bias: True gives the convolutions before an instance norm the biases that CycleGAN's
        have, and that the norm subtracts again; False leaves them out, as ResNet-34 does.
    Raises ValueError for a size that is no multiple of 32 or below 64.
    """

    def __init__(
        self, *, size: int, channels: int = 1, width: int = 64, inert_bias: bool = True
    ) -> None:
        super().__init__()
        if size % 32 or size < SMALLEST:
            raise ValueError(
                f"Resnet34Generator: expected a size that is a multiple of 32, at least "
                f"{SMALLEST}, got {size}"
            )
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 7, 2, 3, bias=inert_bias),
            FusedInstanceNorm2d(width, activation="relu"),  # [N, width, size / 2, size / 2]
            nn.MaxPool2d(3, 2, 1),
        )  # [N, width, size / 4, size / 4]
        blocks: list[nn.Module] = []
        inner = width
        for step, count in enumerate(STAGES):
            outer = width << step
            for number in range(count):
                stride = 2 if step > 0 and number == 0 else 1
                blocks.append(BasicBlock(inner, outer, stride, inert_bias))
                inner = outer
        self.blocks = nn.Sequential(*blocks)  # [N, width * 8, size / 32, size / 32]
        ups: list[nn.Module] = []
        for outer in (width * 4, width * 2, width, width, width):
            ups += [
                nn.ConvTranspose2d(inner, outer, 3, 2, 1, 1, bias=inert_bias),
                FusedInstanceNorm2d(outer, activation="relu"),
            ]  # twice the side
            inner = outer
        self.ups = nn.Sequential(*ups)  # [N, width, size, size]
        self.head = nn.Sequential(
            nn.Conv2d(width, channels, 7, 1, 3, padding_mode="reflect"), nn.Tanh()
        )  # [N, channels, size, size]

    def forward(self, slices: Tensor) -> Tensor:
        x = self.blocks(self.stem(slices))  # [N, width * 8, size / 32, size / 32]
        made: Tensor = self.head(self.ups(x))  # [N, channels, size, size]
        return made

    def initialise(self) -> None:
        """Draws the initial weights from torch's global RNG."""
        normal_weights(self)


class BasicBlock(nn.Module):
    """x [N, inner, H, W] to relu(norm(conv(relu(norm(conv(x))))) + x) [N, outer, H / stride, ...].

    Where the shapes differ, x comes through a 1x1 convolution and a norm (He et al., option B).
    """

    def __init__(self, inner: int, outer: int, stride: int, inert_bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=inert_bias)
        self.norm1 = FusedInstanceNorm2d(outer, activation="relu")
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=inert_bias)
        self.norm2 = FusedInstanceNorm2d(outer)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=inert_bias), FusedInstanceNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x))  # [N, outer, H / stride, W / stride]
        # The norm adds its residual behind its activation, so this ReLU stays apart.
        return F.relu(self.norm2(self.conv2(y), residual=self.shortcut(x)))
