"""Instance normalisation with its affine, activation and residual in one pass.

Ulyanov, Vedaldi, Lempitsky: Instance normalization: the missing ingredient for fast stylization,
2016. The plain twin is the definition; fastmrigan.ops.instance_norm_op runs the fused kernel.
"""

from __future__ import annotations

import logging
import math
import numbers
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fastmrigan.ops import instance_norm_kernel as kernel
from fastmrigan.ops import instance_norm_op as op
from fastmrigan.ops.layout import layout_of, memory_format, say_once

Activation = Literal["none", "relu", "leaky_relu"]
Backend = Literal["auto", "native", "torch"]

HALF = (torch.float16, torch.bfloat16)
FLOATING = (*HALF, torch.float32, torch.float64)


def instance_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    activation: Activation = "none",
    slope: float = 0.2,
    residual: Tensor | None = None,
    eps: float = 1e-5,
    backend: Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """y = act((x - mean) / sqrt(var + eps) * weight + bias) + residual, each plane by itself.

    x: [N, C, H, W] or [N, C, D, H, W], contiguous or channels_last; y has x's dtype and memory
        format. Slices along N and C need no copy; other strides are copied first (logged once).
    weight, bias: [C], float32 or x's dtype; None is ones and zeros.
    activation: "none", "relu" or "leaky_relu" with the given slope below 0.
    residual: added after the activation; x's shape, dtype and device.
    backend: "native" takes float32 and bfloat16 on the CPU, and float16 too on CUDA; "torch", the
        plain twin, takes float64 and every device too, and forward-mode differentiation and the
        transforms of torch.func; "auto" is native where it can be.
    out: a buffer of x's shape, dtype, device and memory format, which is filled and returned; it
        may be x or residual. Only where no gradient is wanted.

    mean and var (biased) are over the plane, in float32 whatever x's type. A plane of one element
    has x - mean = 0, so y = act(bias) + residual; torch.nn.functional.instance_norm refuses it.
    NaN or inf in a plane makes that whole plane NaN; deviations above 1e18 may overflow float32.
    Differentiable any number of times; the gradient at 0 is PyTorch's.

    Raises TypeError (types, devices) and ValueError (shapes, names, numbers).
    """
    if type(eps) is not float:
        eps = _number(eps, "eps as a number of at least 0")
    if type(slope) is not float:
        slope = _number(slope, "slope as a finite number")
    _check(x, weight, bias, activation, slope, residual, eps, backend)
    if out is not None:
        _check_out(x, weight, bias, residual, out)
    if residual is not None and residual.dtype != x.dtype:  # under autocast alone, by _check
        residual = residual.to(x.dtype)
    if not _takes_native(x, backend):
        y = instance_norm_torch(
            x, weight, bias, activation=activation, slope=slope, residual=residual, eps=eps
        )
        return y if out is None else out.copy_(y)
    if out is not None:
        op.run_out(out, x, weight, bias, residual, activation, slope, eps)
        return out
    return op.run(x, weight, bias, residual, activation, slope, eps)


def instance_norm_torch(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    activation: Activation = "none",
    slope: float = 0.2,
    residual: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """The same in plain PyTorch, for every floating type; halves are computed in float32."""
    wide = x.float() if x.dtype in HALF else x
    over = tuple(range(2, x.ndim))
    a_channel = (1, -1) + (1,) * (x.ndim - 2)
    t = wide - wide.mean(over, keepdim=True)  # [N, C, ...]
    t = t - t.mean(over, keepdim=True)  # what the rounding of a large mean left
    z = t * torch.rsqrt(t.square().mean(over, keepdim=True) + eps)
    if weight is not None:
        z = z * weight.to(wide.dtype).view(a_channel)
    if bias is not None:
        z = z + bias.to(wide.dtype).view(a_channel)
    if activation == "relu":
        z = torch.relu(z)
    elif activation == "leaky_relu":
        z = F.leaky_relu(z, slope)
    if residual is not None:
        z = z + residual
    return z.to(x.dtype)


def _takes_native(x: Tensor, backend: Backend) -> bool:
    if backend == "torch":
        return False
    why_not = kernel.why_not_native(x)
    if not torch.compiler.is_compiling() and op.transformed():
        why_not = "has no forward-mode derivative and no torch.func transform"
    if not why_not:
        if (x.dtype, x.device.type) not in _said_native and not torch.compiler.is_compiling():
            _said_native.add((x.dtype, x.device.type))
            say_once(f"instance_norm: {_kind(x)}: native kernel")
        return True
    if backend == "native":
        raise TypeError(
            f'instance_norm: backend "native" {why_not}; take backend "torch" or "auto"'
        )
    if not torch.compiler.is_compiling():
        say_once(
            f"instance_norm: {_kind(x)}: plain PyTorch, because the native kernel {why_not}",
            logging.WARNING,
        )
    return False


_said_native: set[tuple[torch.dtype, str]] = set()  # spares every later call the text


def _kind(x: Tensor) -> str:
    return f"{_name(x.dtype)} on {x.device.type}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str,
    slope: float,
    residual: Tensor | None,
    eps: float,
    backend: str,
) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"instance_norm: expected x to be a tensor, got {type(x).__name__}")
    for name, tensor in (("weight", weight), ("bias", bias), ("residual", residual)):
        if not (tensor is None or isinstance(tensor, Tensor)):
            raise TypeError(
                f"instance_norm: expected {name} to be a tensor or None, "
                f"got {type(tensor).__name__}"
            )
    if x.layout != torch.strided:
        raise TypeError(f"instance_norm: expected a dense x, got {x.layout}; take x.to_dense()")
    if x.ndim not in (4, 5):
        raise ValueError(
            "instance_norm: expected x [N, C, H, W] or [N, C, D, H, W], "
            f"got {x.ndim} dimensions {list(x.shape)}"
        )
    if x.dtype not in FLOATING:
        raise TypeError(
            "instance_norm: expected x of float32, float16, bfloat16 or float64, "
            f"got {_name(x.dtype)}"
        )
    if 0 in x.shape[2:]:
        raise ValueError(f"instance_norm: expected planes of at least 1 element, got {_shape(x)}")
    if activation not in tuple(kernel.ACTIVATIONS):
        raise ValueError(
            f'instance_norm: expected activation "none", "relu" or "leaky_relu", got {activation!r}'
        )
    if backend not in ("auto", "native", "torch"):
        raise ValueError(
            f'instance_norm: expected backend "auto", "native" or "torch", got {backend!r}'
        )
    if not 0 <= eps < math.inf:
        raise ValueError(f"instance_norm: expected eps as a number of at least 0, got {eps}")
    if not -math.inf < slope < math.inf:
        raise ValueError(f"instance_norm: expected slope as a finite number, got {slope}")
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is None:
            continue
        if vector.shape != x.shape[1:2]:
            raise ValueError(
                f"instance_norm: expected {name} of shape [{x.shape[1]}], got {_shape(vector)}"
            )
        if vector.dtype not in (torch.float32, x.dtype):
            own = "" if x.dtype == torch.float32 else f" or {_name(x.dtype)} as x is"
            raise TypeError(
                f"instance_norm: expected {name} of float32{own}, got {_name(vector.dtype)}"
            )
        _check_device(x, vector, name)
    if residual is not None:
        if residual.shape != x.shape:
            raise ValueError(
                f"instance_norm: expected residual of shape {_shape(x)}, got {_shape(residual)}"
            )
        if residual.dtype != x.dtype and not _autocast(x):
            raise TypeError(
                f"instance_norm: expected residual of {_name(x.dtype)} as x is, "
                f"got {_name(residual.dtype)}"
            )
        _check_device(x, residual, "residual")


def _number(value: Any, expected: str) -> Any:
    """value as the float that the kernels take; symbols of torch.compile and export as they are.

    A bool is refused: FusedInstanceNorm2d(64, True) means affine, and would be an eps of 1.
    """
    if isinstance(value, (torch.SymFloat, torch.SymInt)):
        return value
    if isinstance(value, numbers.Real) and type(value) is not bool:
        return float(value)  # an int or one of NumPy's
    came = type(value).__name__
    if value is None or isinstance(value, (bool, str)):
        came = repr(value)
    raise TypeError(f"instance_norm: expected {expected}, got {came}")


def _autocast(x: Tensor) -> bool:
    return x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type)


def _check_device(x: Tensor, other: Tensor, name: str) -> None:
    if other.device != x.device:
        raise TypeError(f"instance_norm: expected {name} on {x.device} as x is, got {other.device}")


def _check_out(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, out: Tensor
) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"instance_norm: expected out to be a tensor, got {type(out).__name__}")
    inputs = [t for t in (x, weight, bias, residual) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, out)):
        raise ValueError(
            "instance_norm: expected out only where no gradient is wanted, got a tensor that "
            "requires grad: leave out away, or call under torch.no_grad()"
        )
    if out.requires_grad:
        raise ValueError(
            "instance_norm: expected out that does not require grad, got one that does"
        )
    if out.shape != x.shape:
        raise ValueError(f"instance_norm: expected out of shape {_shape(x)}, got {_shape(out)}")
    if out.dtype != x.dtype:
        raise TypeError(
            f"instance_norm: expected out of {_name(x.dtype)} as x is, got {_name(out.dtype)}"
        )
    _check_device(x, out, "out")
    layout = layout_of(x)
    channels_last = layout is not None and layout.channels_last
    wanted = memory_format(x, channels_last)
    if not out.is_contiguous(memory_format=wanted):
        raise ValueError(
            f"instance_norm: expected out in {wanted} as x is, got strides {tuple(out.stride())}"
        )
    for tensor in inputs:
        same = tensor.data_ptr() == out.data_ptr() and tensor.stride() == out.stride()
        if not same and _overlap(tensor, out):
            raise ValueError(
                "instance_norm: expected out that is an input itself or shares no memory with "
                "one, got one that overlaps an input"
            )


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether the two lie in ranges of memory that meet."""
    (a_first, a_end), (b_first, b_end) = _range(a), _range(b)
    return a.numel() > 0 and b.numel() > 0 and a_first < b_end and b_first < a_end


def _range(x: Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (last + 1) * x.element_size()


def _shape(x: Tensor) -> str:
    return str(list(x.shape))
