"""The native kernel on tensors: memory, layouts and pointers, and no checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastmrigan import _core
from fastmrigan.ops.layout import dense_strides, empty_in, in_layout, with_layout

ACTIVATIONS = {"none": 0, "relu": 1, "leaky_relu": 2}
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_CPU_DTYPES = (torch.float32, torch.bfloat16)
_HAS_CUDA: bool = _core.cuda_compiled


def why_not_native(x: Tensor) -> str:
    """Why the native kernel does not take x, or "" where it does."""
    device = x.device.type
    if device == "cpu":
        return "" if x.dtype in _CPU_DTYPES else f"takes float32 and bfloat16, not {x.dtype}"
    if device == "cuda":
        if not _HAS_CUDA:
            return "was built without CUDA (FASTMRIGAN_CUDA=ON builds it)"
        return "" if x.dtype in _DTYPES else f"takes float32, float16, bfloat16, not {x.dtype}"
    return f"takes the devices cpu and cuda, not {device}"


def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    slope: float,
    eps: float,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y, which is `out` where there is one, and the statistics [3, N, C] for the backward."""
    x, (channels_last, strides) = with_layout(x, "x")
    residual_strides = strides
    if residual is not None:
        residual, residual_strides = in_layout(residual, channels_last, "residual")
    y = empty_in(x, channels_last) if out is None else out
    n, c = x.shape[:2]
    stats = _floats(x, 3, n, c)
    if n * c == 0:
        return y, stats
    weight, bias = _wide(weight), _wide(bias)
    _run(
        _core.instance_norm_forward,
        x,
        (n, c, x.numel() // (n * c)),
        channels_last,
        _DTYPES[x.dtype],
        ACTIVATIONS[activation],
        slope,
        eps,
        _pointer(weight),
        _pointer(bias),
        x.data_ptr(),
        strides,
        _pointer(residual),
        residual_strides,
        y.data_ptr(),
        dense_strides(x, channels_last),
        stats.data_ptr(),
    )
    return y, stats


def backward(
    grad_y: Tensor,
    x: Tensor,
    stats: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str,
    slope: float,
    eps: float,
    needs_x: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients to x (None where it is not needed), weight and bias (None where those are)."""
    x, (channels_last, strides) = with_layout(x, "x")
    grad_y, grad_strides = in_layout(grad_y, channels_last, "the gradient")
    grad_x = empty_in(x, channels_last) if needs_x else None
    n, c = x.shape[:2]
    grad_weight = None if weight is None else _floats(x, c)
    grad_bias = None if bias is None else _floats(x, c)
    if n * c > 0:
        sums = _floats(x, 2, n, c)
        wide_weight, wide_bias = _wide(weight), _wide(bias)
        _run(
            _core.instance_norm_backward,
            x,
            (n, c, x.numel() // (n * c)),
            channels_last,
            _DTYPES[x.dtype],
            ACTIVATIONS[activation],
            slope,
            eps,
            _pointer(wide_weight),
            _pointer(wide_bias),
            x.data_ptr(),
            strides,
            stats.data_ptr(),
            grad_y.data_ptr(),
            grad_strides,
            _pointer(grad_x),
            dense_strides(x, channels_last),
            sums.data_ptr(),
            _pointer(grad_weight),
            _pointer(grad_bias),
        )
    elif n == 0:  # a sum over nothing
        grad_weight = None if grad_weight is None else grad_weight.zero_()
        grad_bias = None if grad_bias is None else grad_bias.zero_()
    return grad_x, _in_type_of(weight, grad_weight), _in_type_of(bias, grad_bias)


def _floats(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=x.device)


def _wide(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.float().contiguous()


def _in_type_of(vector: Tensor | None, grad: Tensor | None) -> Tensor | None:
    return grad if vector is None or grad is None else grad.to(vector.dtype)


def _pointer(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _run(kernel: Callable[..., None], x: Tensor, *arguments: Any) -> None:
    """kernel(*arguments, threads, cuda, stream) on x's device. Positional, since more than 15
    keywords make a call several times as dear."""
    if not x.is_cuda:
        kernel(*arguments, torch.get_num_threads(), False, 0)
        return
    with torch.cuda.device(x.device):
        kernel(*arguments, 0, True, torch.cuda.current_stream().cuda_stream)
