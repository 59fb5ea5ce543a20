"""Numbers that are hard on the arithmetic: large means, outliers, NaN, planes of one element."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from instance_norm_reference import (
    Inputs,
    apply,
    assert_near,
    compare,
    memory_format,
    random_grad_y,
    random_inputs,
    reference,
)
from instance_norm_tables import ACTIVATIONS, activations, backends, dtypes, layouts

from fastmrigan.ops import instance_norm


@layouts
@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (1, 4, 64, 64), (2, 3, 256, 256)], ids=str)
def test_a_mean_of_1e4_holds_to_1e_3(shape, layout):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1e4
    x = x.contiguous(memory_format=memory_format(x, layout))
    y, _ = compare(instance_norm, Inputs(x), rtol=1e-3, atol=1e-3, backend="native")
    assert_near(y, reference(x)[0], "y", rtol=0, atol=1e-3)


@layouts
@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("shape", [(1, 3, 7, 9), (2, 33, 64, 64), (1, 2, 256, 256)], ids=str)
def test_one_outlier_does_not_spoil_the_variance(shape, place, layout):
    """A variance shifted by the outlier would cancel: 4e-3 of it at 256x256."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    plane = shape[2] * shape[3]
    x.view(*shape[:2], plane)[..., {"first": 0, "middle": plane // 2, "last": -1}[place]] = 1e4
    x = x.contiguous(memory_format=memory_format(x, layout))
    compare(instance_norm, Inputs(x), rtol=1e-4, atol=1e-4, backend="native")


@layouts
@pytest.mark.parametrize(("mean", "pixels", "value"), [(0, 1, 1e8), (1e6, 8, 0)])
def test_an_odd_first_corner_does_not_spoil_the_variance(mean, pixels, value, layout):
    """The first values are what the sums are shifted by at first."""
    x = mean + torch.randn((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    x[:, :, 0, :pixels] = value
    x = x.contiguous(memory_format=memory_format(x, layout))
    compare(instance_norm, Inputs(x), rtol=2e-5, atol=2e-5, backend="native")


@backends
@layouts
@dtypes
@pytest.mark.parametrize("value", [0.0, 0.1, 3.0, -1e4])
def test_a_constant_plane_gives_the_bias(value, dtype, layout, backend):
    shape = (2, 3, 16, 16)
    inputs = random_inputs(shape, dtype, layout, affine="both")
    x = torch.full_like(inputs.x, value)
    y = instance_norm(x, inputs.weight, inputs.bias, backend=backend)
    bias = inputs.bias.double().view(1, 3, 1, 1).expand(shape)
    assert_near(y, bias, "y", rtol=2**-8 if dtype == torch.bfloat16 else 0, atol=1e-3)


@backends
@layouts
@dtypes
@activations
def test_one_element_a_plane_follows_the_definition(activation, dtype, layout, backend):
    """y is act(bias) + residual, and nothing flows to x; F.instance_norm raises there."""
    inputs = random_inputs((2, 5, 1, 1), dtype, layout, affine="both", residual=True)
    y, gradients = compare(instance_norm, inputs, activation=activation, backend=backend)
    z = inputs.bias.double().view(1, 5, 1, 1)
    act = {"none": z, "relu": F.relu(z), "leaky_relu": F.leaky_relu(z, 0.2)}[activation]
    assert_near(y, act + inputs.residual.double(), "y")
    assert torch.count_nonzero(gradients["x"]) == 0
    assert torch.count_nonzero(gradients["weight"]) == 0


@backends
@layouts
@pytest.mark.parametrize(("activation", "slope"), [("relu", 0.0), ("leaky_relu", 0.2)])
def test_the_slope_at_the_kink_is_the_one_of_pytorch(activation, slope, layout, backend):
    """z is exactly 0 in a plane of zeros; relu's slope there is 0, leaky_relu's is `slope`."""
    shape = (2, 3, 8, 8)
    x = torch.zeros(shape).contiguous(memory_format=memory_format(torch.empty(shape), layout))
    bias = torch.zeros(3, requires_grad=True)
    instance_norm(x, bias=bias, activation=activation, slope=0.2, backend=backend).sum().backward()
    torch.testing.assert_close(bias.grad, torch.full((3,), slope * 2 * 64))


@backends
@layouts
@dtypes
def test_an_empty_batch_has_gradients(layout, dtype, backend):
    inputs = random_inputs((0, 3, 4, 4), dtype, layout, affine="both", residual=True)
    y, gradients = compare(instance_norm, inputs, backend=backend)
    assert y.shape == (0, 3, 4, 4)
    assert gradients["weight"].tolist() == gradients["bias"].tolist() == [0, 0, 0]


@backends
@layouts
@dtypes
@activations
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_in_x_spoil_their_own_plane_alone(value, activation, dtype, layout, backend):
    inputs = random_inputs((2, 3, 13, 17), dtype, layout, affine="both", residual=True)
    clean = apply(instance_norm, inputs, activation=activation, backend=backend)
    inputs.x[0, 1, 2, 3] = value
    leaves = inputs.leaves()
    y = apply(instance_norm, leaves, activation=activation, backend=backend)
    exact = inputs.map(torch.Tensor.double).leaves()
    expected, z = reference(
        exact.x, exact.weight, exact.bias, exact.residual, activation=activation
    )
    spoilt = torch.zeros(y.shape, dtype=torch.bool)
    spoilt[0, 1] = True
    assert torch.equal(y.isnan(), spoilt)
    assert torch.equal(expected.isnan(), spoilt)
    assert torch.equal(y[~spoilt], clean[~spoilt])

    grad_y = random_grad_y(y.detach(), z.detach(), activation)
    wanted = torch.autograd.grad(expected, exact.tensors(), grad_y.double())
    actual = torch.autograd.grad(y, leaves.tensors(), grad_y)
    for name, got, want in zip(leaves.present(), actual, wanted, strict=True):
        assert_near(got, want, f"gradient to {name}")


@backends
@layouts
@activations
def test_nan_in_a_residual_stays_where_it_is(activation, layout, backend):
    inputs = random_inputs((2, 3, 5, 7), layout=layout, residual=True)
    inputs.residual[1, 2, 3, 4] = float("nan")
    inputs.residual[0, 0, 0, 0] = float("inf")
    y = instance_norm(inputs.x, residual=inputs.residual, activation=activation, backend=backend)
    assert y.isnan().nonzero().tolist() == [[1, 2, 3, 4]]
    assert y.isinf().nonzero().tolist() == [[0, 0, 0, 0]]


@backends
@layouts
def test_nan_in_a_weight_spoils_its_channel_alone(layout, backend):
    inputs = random_inputs((2, 3, 5, 7), layout=layout, affine="both")
    inputs.weight[1] = float("nan")
    for activation in ACTIVATIONS:
        y = instance_norm(
            inputs.x, inputs.weight, inputs.bias, activation=activation, backend=backend
        )
        assert y[:, 1].isnan().all(), activation
        assert y[:, [0, 2]].isfinite().all(), activation


@backends
@layouts
def test_nan_in_a_gradient_spoils_its_own_plane_alone(layout, backend):
    inputs = random_inputs((2, 3, 5, 7), layout=layout, affine="both")
    leaves = inputs.leaves()
    y = instance_norm(leaves.x, leaves.weight, leaves.bias, backend=backend)
    grad_y = torch.ones_like(y)
    grad_y[1, 2, 3, 4] = float("nan")
    x, weight, bias = torch.autograd.grad(y, leaves.tensors(), grad_y)
    spoilt = torch.zeros(2, 3, dtype=torch.bool)
    spoilt[1, 2] = True
    assert torch.equal(x.isnan().flatten(2).any(2), spoilt)
    assert weight.isnan().tolist() == bias.isnan().tolist() == [False, False, True]
