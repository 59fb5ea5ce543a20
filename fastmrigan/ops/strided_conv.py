"""4x4 convolutions of stride 2, as DCGAN, PatchGAN and U-Nets have them, whose weights' gradient is
one matrix product where that is faster.

oneDNN's kernel for the gradient of a convolution's weights runs along the rows of the output. Where
rows are short and channels many (the inner layers of a DCGAN: 256 channels to 512, rows of 4) it
reaches a tenth of what the processor multiplies. There the windows are laid out as the rows of a
matrix, and one product with the output's gradient sums over slices and pixels at once. That is for
bf16 on the processor alone: in fp32, and for long rows, oneDNN's kernel is as good or better
(benchmarks/strided_conv.py).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

KERNEL, STRIDE, PADDING = 4, 2, 1
# The product pays from so many channels of the larger plane and of the smaller, and up to rows so
# long of the smaller.
FEWEST_WIDE, FEWEST_NARROW, LONGEST = 128, 256, 8


class StridedConv2d(nn.Conv2d):
    """nn.Conv2d(inner, outer, 4, 2, 1): [N, inner, 2h, 2w] to [N, outer, h, w]."""

    def __init__(self, inner: int, outer: int, *, bias: bool = True) -> None:
        super().__init__(inner, outer, KERNEL, STRIDE, PADDING, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        if not product_pays(input, self.weight, input.shape[-1] // STRIDE):
            return super().forward(input)
        x, weight = input.bfloat16(), self.weight.bfloat16()
        y: Tensor = _Strided.apply(x, weight, False)
        return y if self.bias is None else y + self.bias.bfloat16()[:, None, None]


class StridedConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d(inner, outer, 4, 2, 1): [N, inner, h, w] to [N, outer, 2h, 2w]."""

    def __init__(self, inner: int, outer: int, *, bias: bool = True) -> None:
        super().__init__(inner, outer, KERNEL, STRIDE, PADDING, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not product_pays(input, self.weight, input.shape[-1]):
            return super().forward(input, output_size)
        x, weight = input.bfloat16(), self.weight.bfloat16()
        y: Tensor = _Strided.apply(x, weight, True)
        return y if self.bias is None else y + self.bias.bfloat16()[:, None, None]


def product_pays(x: Tensor, weight: Tensor, row: int) -> bool:
    """Whether the gradient of `weight` [narrow, wide, 4, 4] is asked for, in bf16 on the processor,
    of so many channels and so short rows of the smaller plane that the product is faster."""
    narrow, wide = weight.shape[:2]
    return (
        narrow >= FEWEST_NARROW
        and wide >= FEWEST_WIDE
        and row <= LONGEST
        and x.device.type == "cpu"
        and torch.is_grad_enabled()
        and weight.requires_grad
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and x.ndim == 4
        and not torch.jit.is_tracing()
    )


class _Strided(torch.autograd.Function):
    """The convolution of a weight [narrow, wide, 4, 4], or its transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.transposed = transposed
        convolve = F.conv_transpose2d if transposed else F.conv2d
        return convolve(x, weight, None, STRIDE, PADDING)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:  # a transpose's gradient is the convolution, and the reverse
            convolve = F.conv2d if ctx.transposed else F.conv_transpose2d
            of_x = convolve(gradient, weight, None, STRIDE, PADDING)
        if ctx.needs_input_grad[1]:
            narrow, wide = (x, gradient) if ctx.transposed else (gradient, x)
            of_weight = weight_gradient(narrow, wide)
        return of_x, of_weight, None


def weight_gradient(narrow: Tensor, wide: Tensor) -> Tensor:
    """Of narrow = conv2d(wide, weight, stride=2, padding=1): [O, C, 4, 4], channels last.

    narrow: [N, O, h, w], the gradient of the output; wide: [N, C, 2h, 2w], the input; of the
    transpose it is the other way round.
    """
    count, outer, height, width = narrow.shape
    inner = wide.shape[1]
    padded = F.pad(wide.permute(0, 2, 3, 1), (0, 0, PADDING, PADDING, PADDING, PADDING))
    per_slice, per_row, per_pixel, _ = padded.stride()
    windows = padded.as_strided(
        (count, height, width, KERNEL, KERNEL, inner),
        (per_slice, STRIDE * per_row, STRIDE * per_pixel, per_row, per_pixel, 1),
    ).reshape(-1, KERNEL * KERNEL * inner)  # [N * h * w, 16 * C]
    rows = narrow.permute(0, 2, 3, 1).reshape(-1, outer)  # [N * h * w, O]
    return (rows.t() @ windows).view(outer, KERNEL, KERNEL, inner).permute(0, 3, 1, 2)
