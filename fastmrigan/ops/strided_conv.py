"""4x4 convolutions of stride 2, as DCGAN, PatchGAN and U-Nets have them, whose weights' gradient is
one matrix product where that is faster.

oneDNN's kernel for the gradient of a convolution's weights runs along the rows of the output. Where
rows are short and channels many (the inner layers of a DCGAN: 256 channels to 512, rows of 4) it is
far below what the processor multiplies. There the windows are laid out as the rows of a matrix, and
one product with the output's gradient sums over slices and pixels at once. That is for bf16 on the
processor and for autograd alone: everywhere else the modules are PyTorch's own, call by call.
benchmarks/strided_conv.py has both sides and the limits.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from fastmrigan.ops.instance_norm_op import unwatched

KERNEL, STRIDE, PADDING = 4, 2, 1
# The product pays from so many channels of the larger plane and of the smaller, up to rows so long
# of the smaller, and up to so many of its pixels over all slices.
FEWEST_WIDE, FEWEST_NARROW, LONGEST, MOST = 128, 256, 8, 4096
FLOATS = (torch.float32, torch.bfloat16, torch.float16)  # what autocast casts


class StridedConv2d(nn.Conv2d):
    """nn.Conv2d(inner, outer, 4, 2, 1): [N, inner, 2h, 2w] to [N, outer, h, w]."""

    def __init__(self, inner: int, outer: int, *, bias: bool = True) -> None:
        super().__init__(inner, outer, KERNEL, STRIDE, PADDING, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight
        if product_pays(input, weight, STRIDE):
            return in_bf16(input, weight, self.bias, transposed=False)
        return self._conv_forward(input, weight, self.bias)


class StridedConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d(inner, outer, 4, 2, 1): [N, inner, h, w] to [N, outer, 2h, 2w]."""

    def __init__(self, inner: int, outer: int, *, bias: bool = True) -> None:
        super().__init__(inner, outer, KERNEL, STRIDE, PADDING, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None:
            return super().forward(input, output_size)
        weight = self.weight
        if product_pays(input, weight, 1):
            return in_bf16(input, weight, self.bias, transposed=True)
        return F.conv_transpose2d(input, weight, self.bias, STRIDE, PADDING)


def product_pays(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether the gradient of `weight` [narrow, wide, 4, 4] is asked for, by autograd alone, in
    bf16 on the processor, of a shape for which the product is faster. stride: from x's pixels to
    those of the smaller plane."""
    if not (
        unwatched((x, weight))
        and torch.is_grad_enabled()
        and weight.requires_grad
        and x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and x.dtype in FLOATS
        and x.ndim == 4
    ):
        return False
    (narrow, wide), (count, _, height, width) = weight.shape[:2], x.shape
    return (
        narrow >= FEWEST_NARROW
        and wide >= FEWEST_WIDE
        and height % stride == width % stride == 0
        and width // stride <= LONGEST
        and 0 < count * (height // stride) * (width // stride) <= MOST
    )


def in_bf16(x: Tensor, weight: Tensor, bias: Tensor | None, *, transposed: bool) -> Tensor:
    """The convolution as autocast casts it."""
    y: Tensor = _Strided.apply(
        x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16(), transposed
    )
    return y


class _Strided(torch.autograd.Function):
    """The convolution of a weight [narrow, wide, 4, 4], or its transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.transposed = transposed
        convolve = F.conv_transpose2d if transposed else F.conv2d
        return convolve(x, weight, bias, STRIDE, PADDING)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:  # a transpose's gradient is the convolution, and the reverse
            convolve = F.conv2d if ctx.transposed else F.conv_transpose2d
            of_x = convolve(gradient, weight, None, STRIDE, PADDING)
        if ctx.needs_input_grad[1]:
            narrow, wide = (x, gradient) if ctx.transposed else (gradient, x)
            if torch.is_grad_enabled():  # create_graph: PyTorch's can be differentiated again
                of_weight = conv2d_weight(wide, weight.shape, narrow, STRIDE, PADDING)
            else:
                of_weight = weight_gradient(narrow, wide)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None


def weight_gradient(narrow: Tensor, wide: Tensor) -> Tensor:
    """Of narrow = conv2d(wide, weight, stride=2, padding=1): [O, C, 4, 4], channels last.

    narrow: [N, O, h, w], the gradient of the output; wide: [N, C, 2h, 2w], the input; of the
    transpose it is the other way round.
    """
    count, outer, height, width = narrow.shape
    inner = wide.shape[1]
    padded = wide.new_zeros(count, 2 * (height + PADDING), 2 * (width + PADDING), inner)
    padded[:, PADDING:-PADDING, PADDING:-PADDING] = wide.permute(0, 2, 3, 1)
    per_slice, per_row, per_pixel, _ = padded.stride()
    windows = padded.as_strided(
        (count, height, width, KERNEL, KERNEL, inner),
        (per_slice, STRIDE * per_row, STRIDE * per_pixel, per_row, per_pixel, 1),
    ).reshape(-1, KERNEL * KERNEL * inner)  # [N * h * w, 16 * C]
    rows = narrow.permute(0, 2, 3, 1).reshape(-1, outer)  # [N * h * w, O]
    return (rows.t() @ windows).view(outer, KERNEL, KERNEL, inner).permute(0, 3, 1, 2)
