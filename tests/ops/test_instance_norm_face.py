"""What the operator's face promises: autograd's books, out=, and errors that say what came."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from instance_norm_reference import assert_near, random_inputs, reference
from instance_norm_tables import backends, dtypes, layouts

from fastmrigan.ops import instance_norm


def test_the_output_is_no_view_and_may_be_changed_in_place():
    """F.instance_norm returns a view, and an in-place ReLU after it then costs copies."""
    x = random_inputs((2, 3, 6, 6)).x.requires_grad_()
    y = instance_norm(x, backend="native")
    assert not y._is_view()
    (grad,) = torch.autograd.grad(y.relu_().square().sum(), x)
    exact = x.detach().double().requires_grad_()
    expected_y = F.relu(reference(exact)[0])
    (expected,) = torch.autograd.grad(expected_y.square().sum(), exact)
    assert_near(grad, expected, "gradient to x")


def test_a_residual_may_be_changed_after_the_forward():
    inputs = random_inputs((2, 3, 6, 6), residual=True)
    x, residual = inputs.x.requires_grad_(), inputs.residual
    y = instance_norm(x, residual=residual, activation="relu", backend="native")
    grad_y = torch.ones_like(y)
    expected = torch.autograd.grad(y, x, grad_y, retain_graph=True)[0]
    residual.zero_()
    assert torch.equal(torch.autograd.grad(y, x, grad_y)[0], expected)


def test_x_changed_after_the_forward_is_an_error_in_the_backward():
    x = random_inputs((2, 3, 6, 6)).x.requires_grad_()
    y = instance_norm(x, backend="native")
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@backends
@layouts
@dtypes
def test_out_holds_the_result(layout, dtype, backend):
    inputs = random_inputs((2, 5, 7, 9), dtype, layout, affine="both", residual=True)
    arguments = (inputs.x, inputs.weight, inputs.bias)
    options = {"residual": inputs.residual, "activation": "relu", "backend": backend}
    expected = instance_norm(*arguments, **options)
    out = torch.full_like(inputs.x, float("nan"))
    assert instance_norm(*arguments, **options, out=out) is out
    assert torch.equal(out, expected)


@backends
@layouts
@dtypes
@pytest.mark.parametrize("buffer", ["x", "residual"])
def test_out_may_be_an_input(buffer, layout, dtype, backend):
    inputs = random_inputs((2, 5, 7, 9), dtype, layout, residual=True)
    options = {"residual": inputs.residual, "activation": "leaky_relu", "backend": backend}
    expected = instance_norm(inputs.x, **options)
    out = inputs.present()[buffer]
    assert instance_norm(inputs.x, **options, out=out) is out
    assert torch.equal(out, expected)


@backends
def test_out_is_a_change_that_autograd_sees(backend):
    x, other = random_inputs((1, 2, 4, 4)).x, torch.ones(1, 2, 4, 4, requires_grad=True)
    product = other * x  # keeps x for the gradient to `other`
    instance_norm(x, backend=backend, out=x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_out_with_a_gradient_needed_is_refused():
    x = torch.zeros(1, 2, 4, 4)
    leaf = torch.zeros(1, 2, 4, 4, requires_grad=True)
    with pytest.raises(ValueError, match=r"^instance_norm: .*out"):
        instance_norm(x, out=leaf)
    with pytest.raises(ValueError, match=r"^instance_norm: .*out"):
        instance_norm(leaf, out=torch.empty(1, 2, 4, 4))
    with pytest.raises(ValueError, match=r"^instance_norm: .*out"):
        instance_norm(x, torch.ones(2, requires_grad=True), out=torch.empty(1, 2, 4, 4))
    with torch.no_grad():
        out = torch.empty(1, 2, 4, 4)
        assert instance_norm(leaf, out=out) is out


X = torch.zeros(2, 3, 4, 5)
STORAGE = torch.zeros(121)
REFUSED: dict[str, tuple[tuple[object, ...], dict[str, object], str]] = {
    "whole numbers": ((X.long(),), {}, "int64"),
    "complex numbers": ((X.to(torch.complex64),), {}, "complex64"),
    "boolean": ((X.bool(),), {}, "bool"),
    "two axes": ((X[0, 0],), {}, r"4, 5"),
    "three axes": ((X[0],), {}, r"3, 4, 5"),
    "six axes": ((X[None, None],), {}, r"1, 1, 2, 3, 4, 5"),
    "empty planes": ((torch.zeros(2, 3, 0, 5),), {}, r"2, 3, 0, 5"),
    "no tensor": (([[1.0]],), {}, "list"),
    "weight too long": ((X, torch.ones(4)), {}, r"weight.*4"),
    "weight of two axes": ((X, torch.ones(3, 1)), {}, r"weight.*3, 1"),
    "weight of whole numbers": ((X, torch.ones(3).long()), {}, "weight.*int64"),
    "weight of another type": ((X, torch.ones(3).half()), {}, "weight.*float16"),
    "weight elsewhere": ((X, torch.ones(3, device="meta")), {}, "weight.*meta"),
    "bias too short": ((X, None, torch.ones(2)), {}, r"bias.*2"),
    "bias of another type": ((X, None, torch.ones(3).double()), {}, "bias.*float64"),
    "bias elsewhere": ((X, None, torch.ones(3, device="meta")), {}, "bias.*meta"),
    "residual that broadcasts": ((X,), {"residual": X[:1]}, r"residual.*1, 3, 4, 5"),
    "residual of another type": ((X,), {"residual": X.bfloat16()}, "residual.*bfloat16"),
    "residual elsewhere": ((X,), {"residual": X.to("meta")}, "residual.*meta"),
    "unknown activation": ((X,), {"activation": "gelu"}, "activation.*gelu"),
    "unknown backend": ((X,), {"backend": "cudnn"}, "backend.*cudnn"),
    "negative eps": ((X,), {"eps": -1e-5}, "eps.*-1e-05"),
    "eps of NaN": ((X,), {"eps": float("nan")}, "eps.*nan"),
    "eps of None": ((X,), {"eps": None}, "expected eps as a number of at least 0, got None"),
    "eps as text": ((X,), {"eps": "1e-5"}, "expected eps as a number of at least 0, got '1e-5'"),
    "eps as a tensor": ((X,), {"eps": torch.tensor(1e-5)}, "eps as a number.*got Tensor"),
    "eps as a switch": ((X,), {"eps": True}, "eps as a number.*got True"),
    "infinite slope": ((X,), {"slope": float("inf")}, "slope.*inf"),
    "slope of None": ((X,), {"slope": None}, "expected slope as a finite number, got None"),
    "slope as text": ((X,), {"slope": "0.2"}, "slope as a finite number, got '0.2'"),
    "slope as a tensor": ((X,), {"slope": torch.ones(1)}, "slope as a finite number, got Tensor"),
    "slope as a switch": ((X,), {"slope": False}, "slope as a finite number, got False"),
    "out of another shape": ((X,), {"out": torch.empty(2, 3, 4, 4)}, r"out.*2, 3, 4, 4"),
    "out of another type": ((X,), {"out": X.bfloat16()}, "out.*bfloat16"),
    "out elsewhere": ((X,), {"out": X.to("meta")}, "out.*meta"),
    "out of another layout": (
        (X,),
        {"out": torch.empty(X.shape).contiguous(memory_format=torch.channels_last)},
        "out.*strides",
    ),
    "out that overlaps x": (
        (STORAGE[:120].view(2, 3, 4, 5),),
        {"out": STORAGE[1:].view(2, 3, 4, 5)},
        "out.*overlap",
    ),
}


@backends
@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_that_says_what_came(case, backend):
    arguments, options, came = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=rf"^instance_norm: .*{came}") as error:
        instance_norm(*arguments, **({"backend": backend} | options))
    assert "\n" not in str(error.value)
    assert "expected" in str(error.value)


@backends
@pytest.mark.parametrize("number", [1, np.float32(0.5), np.float64(0.5), Fraction(1, 2)], ids=repr)
def test_a_number_need_not_be_a_float(number, backend):
    x = random_inputs((2, 3, 4, 5)).x
    options = {"activation": "leaky_relu", "backend": backend}
    expected = instance_norm(x, eps=float(number), slope=float(number), **options)
    assert torch.equal(instance_norm(x, eps=number, slope=number, **options), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_native_says_what_to_do_about_a_type_it_lacks(dtype):
    name = str(dtype).removeprefix("torch.")
    with pytest.raises((ValueError, TypeError), match=rf"^instance_norm: .*{name}.*torch"):
        instance_norm(X.to(dtype), backend="native")


def test_auto_logs_once_what_runs_and_why(fresh_process):
    code = (
        "import logging, sys, torch\n"
        "logging.basicConfig(level=logging.DEBUG, stream=sys.stdout,\n"
        "                    format='%(name)s|%(message)s')\n"
        "from fastmrigan.ops import instance_norm\n"
        "for _ in range(3): instance_norm(torch.zeros(1, 2, 4, 4))\n"
        "print('--')\n"
        "for _ in range(3): instance_norm(torch.zeros(1, 2, 4, 4, dtype=torch.float64))\n"
    )
    native, twin = (
        [line for line in part.splitlines() if line.startswith("fastmrigan.ops")]
        for part in fresh_process(code).split("--\n")
    )
    assert len(native) == 1, native
    assert "native" in native[0]
    assert len(twin) == 1, twin
    assert "torch" in twin[0]
    assert "float64" in twin[0]


def test_a_copy_of_x_is_logged(caplog):
    x = torch.randn(1, 2, 11, 37)[..., ::3]
    with caplog.at_level("INFO", "fastmrigan.ops"):
        instance_norm(x, backend="native")
        instance_norm(x, backend="native")
    assert caplog.text.count("copied") == 1
