"""The kernels' bindings with nothing around them: what no operator over them can be faster than."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from instance_norm_sides import Inputs
from torch import Tensor

from fastmrigan import _core

_DTYPES = {torch.float32: 0, torch.bfloat16: 1}


class Kernels:
    """Contiguous instance norm + ReLU on the CPU: no checks, no dispatcher, no allocation."""

    def __init__(self, inputs: Inputs) -> None:
        n, c, h, w = inputs.x.shape
        self.leaves = inputs.leaves
        self.statistics, self.sums = torch.empty(3, n, c), torch.empty(2, n, c)
        self.strides = (c * h * w, h * w)
        self.threads = torch.get_num_threads()
        pointers = [leaf.data_ptr() for leaf in self.leaves[1:]] or [0, 0]  # weight, bias
        self.common = (
            *((n, c, h * w), False, _DTYPES[inputs.x.dtype], 1, 0.0, 1e-5),  # 1 is ReLU
            *(*pointers, inputs.x.data_ptr(), self.strides),
        )

    def forward(self, y: Tensor) -> Tensor:
        """Fills y [N, C, H, W]."""
        _core.instance_norm_forward(  # positional, as the operator calls it: keywords cost more
            *self.common,
            0,  # no residual
            self.strides,
            y.data_ptr(),
            self.strides,
            self.statistics.data_ptr(),
            self.threads,
            False,
            0,
        )
        return y

    def backward(self, grad_y: Tensor, gradients: list[Tensor]) -> None:
        """Fills `gradients`, one like each of the inputs' leaves, after a forward()."""
        grad_x, *grad_affine = (gradient.data_ptr() for gradient in gradients)
        _core.instance_norm_backward(
            *self.common,
            self.statistics.data_ptr(),
            grad_y.data_ptr(),
            self.strides,
            grad_x,
            self.strides,
            self.sums.data_ptr(),
            *(grad_affine or (0, 0)),
            self.threads,
            False,
            0,
        )


def autograd_floor(
    inputs: Inputs, new: Callable[[Tensor], Tensor] = torch.empty_like
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A call of grad_y [N, C, H, W]: both kernels, and autograd with a Function that does nothing.

    The Function hands over tensors that exist already and saves none; the kernels run beside it.
    Returns y and the gradients to the leaves, which `new` makes: memory that was just freed is
    warmer in the cache than buffers kept for this alone, with which it is no floor.
    """
    kernels, leaves = Kernels(inputs), inputs.leaves
    like = [leaf.detach() for leaf in leaves]
    given: list[Tensor] = []  # y and the gradients, while a call is under way

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *leaves: Tensor) -> Tensor:
            return given[0]

        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
            return tuple(given[1:])

    def call(grad_y: Tensor) -> tuple[Tensor, ...]:
        y = kernels.forward(new(like[0]))
        gradients = [new(leaf) for leaf in like]
        given[:] = (y, *gradients)
        y = Nothing.apply(*leaves)
        results = torch.autograd.grad(y, leaves, grad_y)
        given.clear()
        kernels.backward(grad_y, gradients)
        return y, *results

    return call
