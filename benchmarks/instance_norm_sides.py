"""What the instance-norm benchmarks time, on what, and the check that comes first.

Both sides are instance norm and a ReLU, and both allocate their output. The fused operator is asked
for by backend="native", so that the plain twin is never timed in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fastmrigan import _core
from fastmrigan.ops import instance_norm
from fastmrigan.runtime.machine import processor

Side = Callable[..., Tensor]  # (x, weight=None, bias=None) -> y
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# Of |expected| plus its root mean square: the storage's rounding, or float32's through the sums.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def fused(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    return instance_norm(x, weight, bias, activation="relu", backend="native", out=out)


def eager(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return F.instance_norm(x, weight=weight, bias=bias).relu_()


def reference(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """y and the argument of the ReLU, in float64, for x [N, C, H, W]."""
    t = x.double() - x.double().mean((2, 3), keepdim=True)
    z = t / (t.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    if weight is not None and bias is not None:
        z = z * weight.double()[:, None, None] + bias.double()[:, None, None]
    return z.relu(), z


@dataclass(frozen=True)
class Inputs:
    x: Tensor  # [N, C, H, W]
    weight: Tensor | None = None  # [C] float32
    bias: Tensor | None = None  # [C] float32
    grad: Tensor | None = None  # like x: the gradient of y, laid out anew like a side's own y

    @property
    def leaves(self) -> list[Tensor]:
        return [t for t in (self.x, self.weight, self.bias) if t is not None]


def make_inputs(
    shape: tuple[int, ...],
    dtype: str = "fp32",
    layout: str = "contiguous",
    *,
    device: str = "cpu",
    affine: bool = False,
    gradients: bool = False,
    seed: int = 0,
) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    def laid(t: Tensor) -> Tensor:
        return t.to(DTYPES[dtype]).contiguous(memory_format=LAYOUTS[layout])

    x, grad = laid(2 * normal(*shape) + 0.5), laid(normal(*shape)) if gradients else None
    weight, bias = (1 + 0.5 * normal(shape[1]), 0.5 * normal(shape[1])) if affine else (None, None)
    inputs = Inputs(x, weight, bias, grad)
    for leaf in inputs.leaves:
        leaf.requires_grad_(gradients)
    return inputs


def grad_for(side: Side, inputs: Inputs) -> Tensor:
    """The gradient of y in the layout of the side's own output, as the next layer would give it."""
    y = side(inputs.x, inputs.weight, inputs.bias)
    return torch.empty_like(y, requires_grad=False).copy_(inputs.grad)


def forward_and_backward(side: Side, inputs: Inputs, grad: Tensor) -> tuple[Tensor, ...]:
    y = side(inputs.x, inputs.weight, inputs.bias)
    return (y, *torch.autograd.grad(y, inputs.leaves, grad))


def check(side: Side, inputs: Inputs) -> None:
    """Raises AssertionError where y, or a gradient of leaves that ask for one, is wrong."""
    exact = [None if t is None else t.detach().double() for t in (inputs.x, *inputs.leaves[1:])]
    exact += [None] * (3 - len(exact))
    backward = inputs.x.requires_grad
    for leaf in exact:
        if leaf is not None:
            leaf.requires_grad_(backward)
    expected, z = reference(*exact)
    y = side(inputs.x, inputs.weight, inputs.bias)
    assert y.dtype == inputs.x.dtype, f"y is {y.dtype}, expected {inputs.x.dtype}"
    tolerance = TOLERANCE[inputs.x.dtype]
    near(y.detach(), expected.detach(), tolerance, "y")
    if not backward:
        return
    # Where z stands at the ReLU's kink, either slope is right: those elements get no gradient.
    grad = torch.empty_like(y, requires_grad=False).copy_(inputs.grad)
    grad[z.detach().abs() < 1e-4] = 0
    actual = torch.autograd.grad(y, inputs.leaves, grad)
    wanted = torch.autograd.grad(expected, [t for t in exact if t is not None], grad.double())
    for name, got, want in zip(("x", "weight", "bias"), actual, wanted, strict=False):
        near(got, want, 5 * tolerance, f"the gradient to {name}")


def near(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Within tolerance * (|expected| + its root mean square), NaN never."""
    scale = expected.square().mean().sqrt().clamp(min=1)  # one element: gradient 0, less a rounding
    allowed = tolerance * (expected.abs() + scale)
    wrong = ~((actual.double() - expected).abs() <= allowed)
    count = int(wrong.sum())
    assert count == 0, f"{what}: {count} of {wrong.numel()} elements are off by more than allowed"


def describe_cpu() -> dict[str, object]:
    """What a figure from the CPU belongs to."""
    cache = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    return {
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "last_level_cache": cache.read_text().strip() if cache.is_file() else None,
        "isa": _core.isa(),
        "torch": torch.__version__,
    }
