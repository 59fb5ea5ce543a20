"""Instance normalisation in float64, and the operator held against it, forward and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

# Half a unit in the last place for the storage types that round once at the end; the arithmetic
# before it is float32, whose own error RTOL[float32] and ATOL bound.
RTOL = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 2**-11,
    torch.bfloat16: 2**-8,
}
ATOL = 1e-5  # of the largest magnitude expected, and at least of 1
KINK = 1e-4  # |z| below it may fall on either side of a kink in float32


def reference(x, weight=None, bias=None, residual=None, *, activation="none", slope=0.2, eps=1e-5):
    """y and z in float64, of x [N, C, ...]; differentiable by autograd."""
    axes, per_channel = tuple(range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    t = x.double() - x.double().mean(axes, keepdim=True)
    z = t / (t.square().mean(axes, keepdim=True) + eps).sqrt()
    z = z if weight is None else z * weight.double().view(per_channel)
    z = z if bias is None else z + bias.double().view(per_channel)
    y = {"none": z, "relu": F.relu(z), "leaky_relu": F.leaky_relu(z, slope)}[activation]
    return y if residual is None else y + residual.double(), z


@dataclass(frozen=True)
class Inputs:
    """The tensors of one call."""

    x: Tensor  # [N, C, H, W] or [N, C, D, H, W]
    weight: Tensor | None = None  # [C]
    bias: Tensor | None = None  # [C]
    residual: Tensor | None = None  # like x

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same with `change` applied to each tensor that is there."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return Inputs(**{name: None if t is None else change(t) for name, t in given.items()})

    def leaves(self) -> Inputs:
        """The same storage, each tensor a leaf that a gradient is asked for."""
        return self.map(lambda t: t.detach().requires_grad_())

    def tensors(self) -> list[Tensor]:
        return list(self.present().values())

    def present(self) -> dict[str, Tensor]:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: t for name, t in given.items() if t is not None}


def apply(operator: Callable[..., Tensor], inputs: Inputs, **options: object) -> Tensor:
    return operator(inputs.x, inputs.weight, inputs.bias, residual=inputs.residual, **options)


def memory_format(x: Tensor, layout: str) -> torch.memory_format:
    if layout == "contiguous":
        return torch.contiguous_format
    return torch.channels_last if x.ndim == 4 else torch.channels_last_3d


def random_inputs(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    *,
    affine: str = "none",
    residual: bool = False,
    affine_dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Inputs:
    """x of mean 0.5 and std 2; affine: "none", "weight", "bias" or "both"."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    x = normal(*shape) * 2 + 0.5
    weight, bias = 1 + 0.5 * normal(shape[1]), 0.5 * normal(shape[1])
    affine_dtype = affine_dtype or torch.promote_types(dtype, torch.float32)
    return Inputs(
        x=x.to(dtype).contiguous(memory_format=memory_format(x, layout)),
        weight=weight.to(affine_dtype) if affine in ("weight", "both") else None,
        bias=bias.to(affine_dtype) if affine in ("bias", "both") else None,
        residual=normal(*shape).to(dtype).contiguous(memory_format=memory_format(x, layout))
        if residual
        else None,
    )


def assert_near(
    actual: Tensor,
    expected: Tensor,
    what: str,
    *,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """`actual` is within its storage type's rounding of the float64 `expected`."""
    if atol is None:
        finite = expected[expected.isfinite()].abs()
        largest = float(finite.max()) if finite.numel() else 0.0
        atol = (1e-12 if actual.dtype == torch.float64 else ATOL) * max(1.0, largest)
    torch.testing.assert_close(
        actual.double(),
        expected,
        rtol=RTOL[actual.dtype] if rtol is None else rtol,
        atol=atol,
        equal_nan=True,
        msg=lambda text: f"{what}: {text}",
    )


def random_grad_y(y: Tensor, z: Tensor, activation: str, seed: int = 1) -> Tensor:
    """A gradient that is 0 where z stands so near a kink that either side's slope is right: those
    elements then tell nothing, and all others are compared."""
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y)
    if activation != "none":
        grad_y[z.abs() < KINK] = 0
    return torch.empty_like(y).copy_(grad_y)


def compare(
    operator: Callable[..., Tensor],
    inputs: Inputs,
    *,
    activation: str = "none",
    slope: float = 0.2,
    eps: float = 1e-5,
    grad_y: Callable[[Tensor], Tensor] = lambda g: g,
    rtol: float | None = None,
    atol: float | None = None,
    **options: object,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Holds operator(x, weight, bias, residual=…) against the reference: y, and the gradient to
    each input given. grad_y may lay the gradient out anew. Returns y and the gradients."""
    how = {"activation": activation, "slope": slope, "eps": eps}

    exact = inputs.map(Tensor.double).leaves()
    expected, z = reference(exact.x, exact.weight, exact.bias, exact.residual, **how)

    leaves = inputs.leaves()
    y = apply(operator, leaves, **how, **options)
    assert y.shape == leaves.x.shape
    assert y.dtype == leaves.x.dtype
    assert_near(y.detach(), expected.detach(), "y", rtol=rtol, atol=atol)

    gradient = grad_y(random_grad_y(y.detach(), z.detach(), activation))
    names = list(leaves.present())
    actual = torch.autograd.grad(y, leaves.tensors(), gradient)
    wanted = torch.autograd.grad(expected, exact.tensors(), gradient.double())
    for name, got, want in zip(names, actual, wanted, strict=True):
        leaf = leaves.present()[name]
        assert got.shape == leaf.shape, name
        assert got.dtype == leaf.dtype, name
        assert_near(got, want, f"gradient to {name}", rtol=rtol, atol=atol)
    return y.detach(), dict(zip(names, actual, strict=True))


# What a process of another instruction set runs through: every code path, in a second or two.
BRIEF_SHAPES = [(2, 3, 1, 1), (1, 5, 1, 7), (3, 2, 5, 3), (2, 33, 7, 7), (1, 2, 181, 217)]


def compare_briefly(operator: Callable[..., Tensor]) -> int:
    """Layout x dtype x shape, with affine, residual and activation taking turns; the count."""
    cases = [
        (shape, dtype, layout)
        for shape in [*BRIEF_SHAPES, (2, 3, 4, 5, 6)]
        for dtype in (torch.float32, torch.bfloat16)
        for layout in ("contiguous", "channels_last")
    ]
    turns = [("none", "none", False), ("relu", "both", False), ("leaky_relu", "both", True)]
    for shape, dtype, layout in cases:
        for activation, affine, residual in turns:
            inputs = random_inputs(shape, dtype, layout, affine=affine, residual=residual)
            compare(operator, inputs, activation=activation, backend="native")
    return len(cases) * len(turns)
