"""What the instance-norm benchmarks time, on what, and the check that comes first.

Both sides are instance norm and a ReLU, and both allocate their output. The fused operator is asked
for by backend="native", so that the plain twin is never timed in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastmrigan import _core
from fastmrigan.ops import instance_norm
from fastmrigan.runtime.machine import processor

Side = Callable[..., Tensor]  # (x, weight=None, bias=None) -> y
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def fused(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    return instance_norm(x, weight, bias, activation="relu", backend="native", out=out)


def eager(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return F.instance_norm(x, weight=weight, bias=bias).relu_()


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


class Tolerance(NamedTuple):
    """Of |expected| plus its root mean square."""

    y: float
    gradient: float


# By the type of the tensor that is checked: four roundings of the half types, float32's through
# the sums. The gradients to weight and bias are float32 whatever x is.
TOLERANCES = {
    torch.float32: Tolerance(1e-5, 5e-5),
    torch.float16: Tolerance(2e-3, 4e-3),
    torch.bfloat16: Tolerance(1.6e-2, 3.2e-2),
}


def reference(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """y and the argument of the ReLU, in float64, for x [N, C, H, W]."""
    t = x.double() - x.double().mean((2, 3), keepdim=True)
    z = t / (t.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    if weight is not None and bias is not None:
        z = z * weight.double()[:, None, None] + bias.double()[:, None, None]
    return z.relu(), z


@dataclass(frozen=True)
class Expected:
    """In float64: y, and the gradients that `grad` gives the leaves, where they ask for any."""

    y: Tensor
    gradients: tuple[Tensor, ...]
    kink: Tensor | None  # where no gradient is given: either slope of the ReLU is right there

    @staticmethod
    def of(inputs: Inputs) -> Expected:
        with torch.enable_grad():
            exact = [
                leaf.detach().double().requires_grad_(leaf.requires_grad) for leaf in inputs.leaves
            ]
            y, z = reference(*exact, *[None] * (3 - len(exact)))
            if not inputs.x.requires_grad:
                return Expected(y, (), None)
            # z within the tolerance of 0: a side may see it on the other side.
            kink = z.detach().abs() < max(1e-4, TOLERANCES[inputs.x.dtype].y)
            grad = inputs.grad.double().masked_fill(kink, 0)
            return Expected(y.detach(), torch.autograd.grad(y, exact, grad), kink)


def check(side: Side, inputs: Inputs, expected: Expected | None = None) -> None:
    """Raises AssertionError where y, or a gradient of leaves that ask for one, is wrong."""
    expected = expected or Expected.of(inputs)
    near_y(side(inputs.x, inputs.weight, inputs.bias), inputs, expected)
    if inputs.x.requires_grad:
        call = partial(forward_and_backward, side, inputs)
        check_results(call, grad_for(side, inputs), inputs, expected)


def check_results(
    call: Callable[[Tensor], Sequence[Tensor]],
    grad: Tensor,
    inputs: Inputs,
    expected: Expected | None = None,
) -> None:
    """The same of call(grad), which returns y and the gradients to the leaves."""
    expected = expected or Expected.of(inputs)
    y, *gradients = call(grad.masked_fill(expected.kink, 0))
    near_y(y, inputs, expected)
    wanted = zip(("x", "weight", "bias"), expected.gradients, strict=False)
    for got, (name, want) in zip(gradients, wanted, strict=True):
        near(got, want, TOLERANCES[got.dtype].gradient, f"the gradient to {name}")


def check_sides(sides: Mapping[str, Side], inputs: Inputs) -> None:
    """check() of each; one AssertionError names every side that is wrong."""
    expected, wrong = Expected.of(inputs), []
    for name, side in sides.items():
        try:
            check(side, inputs, expected)
        except AssertionError as failure:
            wrong.append(f"{name}: {failure}")
    assert not wrong, "; ".join(wrong)


def near_y(y: Tensor, inputs: Inputs, expected: Expected) -> None:
    assert y.dtype == inputs.x.dtype, f"y is {y.dtype}, expected {inputs.x.dtype}"
    near(y.detach(), expected.y, TOLERANCES[y.dtype].y, "y")


def near(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Within tolerance * (|expected| + its root mean square), NaN never."""
    assert actual.shape == expected.shape, (
        f"{what} is {list(actual.shape)}, expected {list(expected.shape)}"
    )
    scale = expected.square().mean().sqrt().clamp(min=1)  # one element: gradient 0, less a rounding
    error = (actual.double() - expected).abs()
    wrong = ~(error <= tolerance * (expected.abs() + scale))
    count = int(wrong.sum())
    assert count == 0, (
        f"{what}: {count} of {wrong.numel()} elements are off by more than {tolerance:g}, "
        f"the worst by {float(error.max()):.2g}"
    )


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
