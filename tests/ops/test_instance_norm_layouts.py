"""Wherever the elements of x, residual and gradient stand: the same values, and no copies."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from instance_norm_reference import Inputs, apply, compare, memory_format, random_inputs
from instance_norm_tables import ACTIVATIONS, AFFINE, backends, dtypes, layouts
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from fastmrigan.ops import instance_norm


def base(dtype: torch.dtype, layout: str, shape: tuple[int, ...] = (4, 9, 12, 10)) -> Tensor:
    return random_inputs(shape, dtype, layout, seed=3).x


def offset(x: Tensor) -> Tensor:
    """The same values one element into a storage: a pointer that no vector load is aligned to."""
    storage = torch.empty(x.numel() + 1, dtype=x.dtype)
    return torch.as_strided(storage, x.shape, x.stride(), 1).copy_(x)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "channel slice": lambda x: x[:, 2:7],
    "every other channel": lambda x: x[:, ::2],
    "one channel": lambda x: x[:, 4:5],
    "batch slice": lambda x: x[::2],
    "last batch entry": lambda x: x[3:],
    "columns": lambda x: x[..., 1:],
    "every other column": lambda x: x[..., ::2],
    "rows": lambda x: x[:, :, 2:-1],
    "transposed plane": lambda x: x.transpose(2, 3),
    "transposed batch and channel": lambda x: x.transpose(0, 1),
    "flipped axes": lambda x: x.permute(3, 2, 1, 0),
    "expanded batch": lambda x: x[:1].expand(3, -1, -1, -1),
    "expanded channel": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "expanded plane": lambda x: x[..., :1].expand(-1, -1, -1, 6),
    "expanded rows": lambda x: x[:, :, :1].expand(-1, -1, 8, -1),
    "one element in": offset,
}
views = pytest.mark.parametrize("view", VIEWS)


@views
@layouts
@dtypes
def test_a_view_equals_its_copy(view, layout, dtype):
    x = VIEWS[view](base(dtype, layout))
    channels = x.shape[1]
    affine = random_inputs((1, channels, 1, 1), dtype, affine="both")
    inputs = Inputs(x, affine.weight, affine.bias)
    before = x.clone()
    compare(instance_norm, inputs, activation="leaky_relu", backend="native")
    assert torch.equal(x, before)


@views
@layouts
def test_a_residual_may_be_a_view(view, layout):
    residual = VIEWS[view](base(torch.float32, layout))
    x = random_inputs(tuple(residual.shape), layout=layout).x
    compare(instance_norm, Inputs(x, residual=residual), activation="relu", backend="native")


GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda g: g.contiguous(),
    "channels_last": lambda g: g.contiguous(memory_format=torch.channels_last),
    "expanded": lambda g: g[:, :1, :1, :1].expand_as(g),
    "channel slice": lambda g: torch.cat([g, g], 1)[:, : g.shape[1]],
    "batch slice": lambda g: g.repeat_interleave(2, 0)[::2],
    "column slice": lambda g: F.pad(g, (1, 0))[..., 1:],
    "one element in": offset,
}


@pytest.mark.parametrize("gradient", GRADIENTS)
@layouts
@dtypes
def test_a_gradient_may_be_laid_out_in_any_way(gradient, layout, dtype):
    inputs = random_inputs((3, 5, 7, 6), dtype, layout, affine="both", residual=True)
    compare(instance_norm, inputs, grad_y=GRADIENTS[gradient], backend="native")


@pytest.mark.parametrize("view", [lambda w: w[::2], lambda w: w[:1].expand(5), lambda w: w[3:8]])
@dtypes
def test_affine_parameters_may_be_views(view, dtype):
    rest = random_inputs((2, 5, 7, 6), dtype, affine="both")
    weight, bias = (view(torch.linspace(start, 2, 10)) for start in (0.5, -1))
    compare(instance_norm, Inputs(rest.x, weight, bias), activation="relu", backend="native")


@layouts
def test_sum_backward(layout):
    """The gradient of a sum has stride 0 throughout; that to x without affine is 0."""
    x = random_inputs((2, 3, 16, 16), layout=layout).x.requires_grad_()
    instance_norm(x, backend="native").sum().backward()
    assert x.grad.abs().max() < 1e-5


@pytest.mark.parametrize("other", ["contiguous", "channels_last"])
@layouts
@dtypes
def test_x_and_residual_need_not_share_a_layout(layout, other, dtype):
    x = random_inputs((2, 6, 7, 9), dtype, layout).x
    residual = random_inputs((2, 6, 7, 9), dtype, other, seed=1).x
    y, gradients = compare(instance_norm, Inputs(x, residual=residual), backend="native")
    assert y.stride() == x.stride()
    assert gradients["x"].stride() == x.stride()


@backends
@layouts
@dtypes
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 33, 8, 8), (2, 3, 4, 5, 6)], ids=str)
def test_the_memory_format_is_kept(shape, dtype, layout, backend):
    inputs = random_inputs(shape, dtype, layout, affine="both", residual=True)
    y, gradients = compare(instance_norm, inputs, activation="relu", backend=backend)
    assert y.is_contiguous(memory_format=memory_format(y, layout))
    assert gradients["x"].is_contiguous(memory_format=memory_format(y, layout))


@layouts
def test_a_channel_slice_keeps_the_memory_format(layout):
    x = base(torch.float32, layout)[:, 2:7]
    y = instance_norm(x, backend="native")
    assert y.is_contiguous(memory_format=memory_format(y, layout))


COPIES = {"aten::clone", "aten::copy_", "aten::_to_copy", "aten::contiguous", "aten::cat"}


def ops_and_bytes(call: Callable[[], object]) -> tuple[set[str], int]:
    """The operators that `call` runs, at any depth, and the bytes of tensor it allocates."""
    call()  # what is made once and kept does not count
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        kept = call()
    del kept
    events = trace.events()
    names = {event.name for event in events}
    return names, sum(max(0, event.self_cpu_memory_usage) for event in events)


@layouts
@dtypes
@pytest.mark.parametrize("view", ["whole", "channel slice", "batch slice"])
def test_nothing_is_copied(view, layout, dtype):
    inputs = random_inputs((4, 16, 64, 64), dtype, layout, affine="both", residual=True)
    if view != "whole":
        inputs = Inputs(VIEWS[view](inputs.x), residual=VIEWS[view](inputs.residual))
    leaves = inputs.leaves()
    x = leaves.x

    def forward() -> Tensor:
        return apply(instance_norm, leaves, activation="relu", backend="native")

    names, size = ops_and_bytes(forward)
    assert not names & COPIES
    tensor = x.numel() * x.element_size()
    assert size < 1.02 * tensor, "more than y and its statistics was allocated"

    y = forward()
    grad_y = torch.randn_like(y)
    wanted = leaves.tensors()
    names, size = ops_and_bytes(lambda: torch.autograd.grad(y, wanted, grad_y, retain_graph=True))
    assert not names & COPIES
    assert size < 1.02 * tensor, "more than the gradient to x and some sums was allocated"


@st.composite
def strided(draw: st.DrawFn, dtype: torch.dtype) -> Tensor:
    """A small tensor whose axes lie in any order, with gaps, offsets and repeats."""
    axes = draw(st.integers(4, 5))
    shape = [draw(st.integers(0, 3)), *(draw(st.integers(1, 6)) for _ in range(axes - 1))]
    order = draw(st.permutations(range(axes)))
    steps = [draw(st.integers(1, 3)) for _ in shape]
    starts = [draw(st.integers(0, 2)) for _ in shape]
    repeated = [draw(st.integers(0, 9)) == 0 for _ in shape]
    stored = [
        start + step * max(1 if again else n, 1)
        for n, step, start, again in zip(shape, steps, starts, repeated, strict=True)
    ]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    whole = torch.randn([stored[axis] for axis in order], generator=generator).to(dtype)
    whole = whole.permute(*(order.index(axis) for axis in range(axes)))
    view = whole[tuple(slice(a, None, s) for a, s in zip(starts, steps, strict=True))]
    view = view[
        tuple(slice(0, 1 if again else n) for n, again in zip(shape, repeated, strict=True))
    ]
    return view.expand(shape)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    x=st.sampled_from([torch.float32, torch.bfloat16]).flatmap(strided),
    activation=st.sampled_from(ACTIVATIONS),
    affine=st.sampled_from(AFFINE),
    residual=st.booleans(),
)
def test_any_strides_equal_the_reference(x, activation, affine, residual):
    rest = random_inputs(tuple(x.shape), x.dtype, affine=affine, residual=residual)
    inputs = Inputs(x, rest.weight, rest.bias, rest.residual)
    compare(instance_norm, inputs, activation=activation, backend="native")
