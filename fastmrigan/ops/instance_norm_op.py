"""The fused kernel as torch.library operators: real and fake kernels, and autograd.

`run` is the way in; its arguments are checked in fastmrigan.ops.instance_norm, the function to
call. torch.compile, torch.export and dispatch modes meet the registered operators. An eager call
that nobody watches goes past the dispatcher's Python hops straight to the kernel, by an
autograd.Function where gradients are wanted: after a tensor larger than the cache has gone
through, those hops cost as much as the kernel (CONTRIBUTING.md has the figures).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastmrigan.ops import instance_norm_kernel as kernel
from fastmrigan.ops.layout import empty_in, layout_of

_library = torch.library.Library("fastmrigan", "DEF")
_INPUTS = "Tensor x, Tensor? weight, Tensor? bias, Tensor? residual"
_SETTINGS = "str activation, float slope, float eps"
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
_library.define(f"instance_norm({_INPUTS}, {_SETTINGS}) -> (Tensor y, Tensor stats)", tags=_TAGS)
_library.define(
    f"instance_norm_out({_INPUTS}, {_SETTINGS}, *, Tensor(a!) out) -> Tensor stats", tags=_TAGS
)
_library.define(
    "instance_norm_backward(Tensor grad_y, Tensor x, Tensor stats, Tensor? weight, Tensor? bias, "
    f"{_SETTINGS}, bool needs_x) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    tags=_TAGS,
)
instance_norm = torch.ops.fastmrigan.instance_norm.default
instance_norm_out = torch.ops.fastmrigan.instance_norm_out.default
instance_norm_backward = torch.ops.fastmrigan.instance_norm_backward.default


def run(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    slope: float,
    eps: float,
) -> Tensor:
    """y of checked arguments, with its autograd history."""
    inputs = (x, weight, bias, residual)
    if not unwatched(inputs):
        return instance_norm(*inputs, activation, slope, eps)[0]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        return _Direct.apply(*inputs, activation, slope, eps)
    return kernel.forward(*inputs, activation, slope, eps)[0]


def run_out(out: Tensor, *arguments: Any) -> None:
    """The same into `out`, which no gradient passes."""
    call = _forward_out if unwatched((*arguments[:4], out)) else instance_norm_out
    call(*arguments, out=out)


_PLAIN = frozenset({type(None), Tensor, torch.nn.Parameter})


def unwatched(inputs: tuple[Tensor | None, ...]) -> bool:
    """Whether autograd alone could have something to do with a call on plain tensors."""
    return (
        not torch.compiler.is_compiling()
        and not torch.overrides.has_torch_function(inputs)
        and torch._C._len_torch_dispatch_stack() == 0
        and not transformed()
        and torch._C._get_tracing_state() is None
        and _PLAIN.issuperset(map(type, inputs))
        and not any(map(_is_more_than_memory, inputs))
    )


def transformed() -> bool:
    """Whether forward-mode differentiation or a transform of torch.func is under way: the twin
    knows its own tangents, a registered operator with a backward alone does not."""
    return (
        forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
    )


def _is_more_than_memory(x: Tensor | None) -> bool:
    """Whether the dispatcher must still do something before the values are those at data_ptr."""
    return x is not None and (
        x.is_neg() or x._is_zerotensor() or torch._C._functorch.is_legacy_batchedtensor(x)
    )


class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> Tensor:
        weight, bias, _, *ctx.settings = rest
        y, stats = kernel.forward(x, *rest)
        ctx.save_for_backward(x, stats, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Any, ...]:
        return _gradients(ctx, grad_y)


def _forward_out(*arguments: Any, out: Tensor) -> Tensor:
    stats = kernel.forward(*arguments, out)[1]
    if not out.is_inference():  # the kernel writes behind autograd's back: it must know
        torch.autograd.graph.increment_version(out)
    return stats


def _backward(grad_y: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    grads = kernel.backward(grad_y, x, *rest)
    return tuple(x.new_empty(0) if grad is None else grad for grad in grads)


for _device in ("CPU", "CUDA"):
    _library.impl("instance_norm", kernel.forward, _device)
    _library.impl("instance_norm_out", _forward_out, _device)
    _library.impl("instance_norm_backward", _backward, _device)


def _like_x(x: Tensor) -> Tensor:
    layout = layout_of(x)
    return empty_in(x, layout is not None and layout.channels_last)


def _fake_stats(x: Tensor) -> Tensor:
    return torch.empty((3, x.shape[0], x.shape[1]), dtype=torch.float32, device=x.device)


@torch.library.register_fake("fastmrigan::instance_norm", lib=_library)
def _fake_forward(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _like_x(x), _fake_stats(x)


@torch.library.register_fake("fastmrigan::instance_norm_out", lib=_library)
def _fake_forward_out(x: Tensor, *_: Any, out: Tensor) -> Tensor:
    return _fake_stats(x)


@torch.library.register_fake("fastmrigan::instance_norm_backward", lib=_library)
def _fake_backward(
    grad_y: Tensor,
    x: Tensor,
    stats: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str,
    slope: float,
    eps: float,
    needs_x: bool,
) -> tuple[Tensor, ...]:
    return (
        _like_x(x) if needs_x else x.new_empty(0),
        *(
            x.new_empty(0) if v is None else x.new_empty(x.shape[1], dtype=v.dtype)
            for v in (weight, bias)
        ),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, _, *ctx.settings = inputs
    ctx.save_for_backward(x, output[1], weight, bias)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, grad_y: Tensor, _: Any = None) -> tuple[Any, ...]:
    x, stats, weight, bias = ctx.saved_tensors
    needs_x, needs_weight, needs_bias, needs_residual, *_ = ctx.needs_input_grad
    grad_x = grad_weight = grad_bias = None
    if needs_x or needs_weight or needs_bias:
        arguments = (grad_y, x, stats, weight, bias, *ctx.settings, needs_x)
        # Under create_graph the gradient has a history of its own, which the operator knows.
        plain = not torch.is_grad_enabled() and unwatched((grad_y, x, weight, bias))
        call = kernel.backward if plain else instance_norm_backward
        grad_x, grad_weight, grad_bias = call(*arguments)
    return (
        grad_x if needs_x else None,
        grad_weight if needs_weight else None,
        grad_bias if needs_bias else None,
        grad_y if needs_residual else None,  # y = act(...) + residual
        *(None for _ in ctx.settings),
    )


torch.library.register_autograd(
    "fastmrigan::instance_norm", _gradients, setup_context=_save_for_backward, lib=_library
)


def _save_for_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad_y, x, _, weight, bias, *ctx.settings, _ = inputs
    ctx.save_for_backward(grad_y, x, weight, bias)
    ctx.set_materialize_grads(False)


def _differentiable(x: Tensor | None) -> Tensor | None:
    """x under another name: with its history where it has one, for the third derivative."""
    if x is None:
        return None
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def _second_gradients(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    """Through the plain twin, which PyTorch differentiates as often as one likes."""
    from fastmrigan.ops.instance_norm import instance_norm_torch

    activation, slope, eps = ctx.settings
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        grad_y, x, weight, bias = map(_differentiable, ctx.saved_tensors)
        y = instance_norm_torch(x, weight, bias, activation=activation, slope=slope, eps=eps)
        inputs = [t for t in (x, weight, bias) if t is not None]
        wanted = iter(torch.autograd.grad(y, inputs, grad_y, create_graph=True))
        first = [None if t is None else next(wanted) for t in (x, weight, bias)]
        pairs = [
            (f, g) for f, g in zip(first, grads, strict=True) if f is not None and g is not None
        ]
        second = iter(
            torch.autograd.grad(
                [f for f, _ in pairs],
                [grad_y, *inputs],
                [g for _, g in pairs],
                allow_unused=True,
                create_graph=further,
            )
        )
        of_grad_y, of_x, of_weight, of_bias = (
            None if t is None else next(second) for t in (grad_y, x, weight, bias)
        )
    return of_grad_y, of_x, None, of_weight, of_bias, None, None, None, None


torch.library.register_autograd(
    "fastmrigan::instance_norm_backward",
    _second_gradients,
    setup_context=_save_for_second,
    lib=_library,
)
