"""What PyTorch does to operators beyond one backward: tangents, transforms, higher derivatives, and
tensors that are more than their memory. Always against the plain twin, which PyTorch differentiates
by itself."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.autograd import forward_ad, functional

from fastmrigan.ops import instance_norm, instance_norm_torch

SHAPE = (2, 3, 5, 4)
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randn(SHAPE)


def cubed(norm, x):
    return norm(x, activation="leaky_relu").pow(3).sum()


def test_tangents(x):
    v = torch.randn(SHAPE)
    for wrong, right in zip(
        torch.func.jvp(instance_norm, (x,), (v,)),
        torch.func.jvp(instance_norm_torch, (x,), (v,)),
        strict=True,
    ):
        close(wrong, right)
    weight, direction = torch.rand(3), torch.rand(3)
    with forward_ad.dual_level():
        for norm in (instance_norm, instance_norm_torch):
            y = norm(x, forward_ad.make_dual(weight, direction))
            assert forward_ad.unpack_dual(y).tangent.abs().max() > 0.1


def test_the_native_kernel_refuses_tangents(x):
    with (
        forward_ad.dual_level(),
        pytest.raises(TypeError, match=r"no forward-mode derivative.*take backend"),
    ):
        instance_norm(forward_ad.make_dual(x, x), backend="native")


def test_transforms_of_torch_func(x):
    for transform in (torch.func.grad, torch.func.hessian):
        close(
            transform(partial(cubed, instance_norm))(x),
            transform(partial(cubed, instance_norm_torch))(x),
        )
    many = torch.randn(4, *SHAPE)
    close(torch.vmap(instance_norm)(many), torch.stack([instance_norm(one) for one in many]))


def test_second_derivative_by_hvp(x):
    v = torch.randn(SHAPE)
    ours = functional.hvp(partial(cubed, instance_norm), x, v)[1]
    close(ours, functional.hvp(partial(cubed, instance_norm_torch), x, v)[1])
    assert ours.abs().max() > 0.1


def test_third_derivative(x):
    def third(norm):
        z, weight = x.clone().requires_grad_(), torch.full((3,), 0.5, requires_grad=True)
        y = norm(z, weight, activation="leaky_relu").pow(3).sum()
        (first,) = torch.autograd.grad(y, z, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), z, create_graph=True)
        return torch.autograd.grad((second * z).sum(), (z, weight))

    for ours, expected in zip(third(instance_norm), third(instance_norm_torch), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-2)


def test_a_batch_of_gradients_at_once(x):
    x.requires_grad_()
    grads = torch.randn(3, *SHAPE)
    (ours,) = torch.autograd.grad(instance_norm(x), x, grads, is_grads_batched=True)
    for mine, grad in zip(ours, grads, strict=True):
        close(mine, torch.autograd.grad(instance_norm_torch(x), x, grad)[0])


@pytest.mark.parametrize("which", ["x", "weight", "residual", "grad"])
def test_lazy_negation(x, which):
    tensors = {
        "x": x,
        "weight": torch.rand(3),
        "residual": torch.randn(SHAPE),
        "grad": torch.randn(SHAPE),
    }
    tensors[which] = torch._neg_view(tensors[which])
    assert tensors[which].is_neg()

    def both(norm):
        z = tensors["x"].detach().requires_grad_()
        y = norm(z, tensors["weight"], residual=tensors["residual"], activation="relu")
        return y, torch.autograd.grad(y, z, tensors["grad"])[0]

    for ours, expected in zip(both(instance_norm), both(instance_norm_torch), strict=True):
        close(ours, expected)


def test_lazy_zeros():
    y = instance_norm(torch._efficientzerotensor(SHAPE), bias=torch.ones(3))
    close(y, torch.ones(SHAPE))
