"""FusedInstanceNorm2d and 3d in the place of PyTorch's."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from instance_norm_reference import assert_near, random_inputs, reference
from torch import nn

from fastmrigan.ops import FusedInstanceNorm2d, FusedInstanceNorm3d

PAIRS = [
    (FusedInstanceNorm2d, nn.InstanceNorm2d, (2, 6, 7, 9)),
    (FusedInstanceNorm3d, nn.InstanceNorm3d, (2, 6, 3, 5, 7)),
]
pairs = pytest.mark.parametrize(("fused", "plain", "shape"), PAIRS, ids=["2d", "3d"])
affines = pytest.mark.parametrize("affine", [False, True])


def randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


@pairs
@affines
def test_state_dicts_load_both_ways(fused, plain, shape, affine):
    ours, theirs = fused(shape[1], affine=affine), plain(shape[1], affine=affine)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=0)
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = random_inputs(shape).x
    torch.testing.assert_close(ours(x), theirs(x))
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


@pairs
def test_defaults_are_those_of_pytorch(fused, plain, shape):
    ours, theirs = fused(shape[1]), plain(shape[1])
    assert (ours.num_features, ours.eps, ours.affine) == (6, theirs.eps, theirs.affine)
    assert len(list(ours.parameters())) == len(list(ours.buffers())) == 0


@pairs
@pytest.mark.parametrize("backend", ["auto", "native", "torch"])
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
def test_forward_takes_a_residual(fused, plain, shape, activation, backend):
    module = fused(6, eps=1e-3, affine=True, activation=activation, slope=0.1, backend=backend)
    randomise(module)
    inputs = random_inputs(shape, residual=True)
    for residual in (None, inputs.residual):
        y = module(inputs.x) if residual is None else module(inputs.x, residual)
        expected, _ = reference(
            inputs.x,
            module.weight,
            module.bias,
            residual,
            activation=activation,
            slope=0.1,
            eps=1e-3,
        )
        assert_near(y.detach(), expected.detach(), "y")


def test_gradients_reach_the_parameters():
    module = FusedInstanceNorm2d(6, affine=True, activation="relu")
    plain = nn.InstanceNorm2d(6, affine=True)
    x = random_inputs((2, 6, 7, 9)).x
    grad_y = torch.randn(2, 6, 7, 9, generator=torch.Generator().manual_seed(1))
    module(x).backward(grad_y)
    F.relu(plain(x)).backward(grad_y)
    torch.testing.assert_close(module.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-4)


def test_training_and_evaluation_are_the_same():
    module = FusedInstanceNorm2d(3, activation="relu")
    x = random_inputs((2, 3, 5, 5)).x
    assert torch.equal(module.train()(x), module.eval()(x))


def test_hooks_run():
    module = FusedInstanceNorm2d(3, affine=True)
    seen = []
    module.register_forward_hook(lambda *_: seen.append("forward"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    module(random_inputs((2, 3, 5, 5)).x.requires_grad_()).sum().backward()
    assert seen == ["forward", "backward"]


@pairs
def test_one_item_without_a_batch_axis(fused, plain, shape):
    """[C, …], as PyTorch's take it; and hooks run once."""
    module = fused(shape[1], activation="relu")
    seen = []
    module.register_forward_hook(lambda _, given, y: seen.append(y.shape))
    inputs = random_inputs(shape, residual=True)
    x, residual = inputs.x[0], inputs.residual[0]
    expected = F.relu(plain(shape[1])(x)) + residual
    torch.testing.assert_close(module(x, residual), expected, rtol=1e-4, atol=1e-5)
    assert seen == [x.shape]


def test_a_module_can_be_copied_saved_and_shown():
    module = FusedInstanceNorm2d(3, affine=True, activation="leaky_relu", slope=0.3)
    randomise(module)
    x = random_inputs((2, 3, 5, 5)).x
    assert torch.equal(copy.deepcopy(module)(x), module(x))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), module(x))
    assert all(part in repr(module) for part in ("3", "affine=True", "leaky_relu", "0.3"))


def test_a_module_moves_to_double():
    module = FusedInstanceNorm2d(3, affine=True, backend="torch").double()
    assert module(random_inputs((2, 3, 5, 5), torch.float64).x).dtype == torch.float64


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"expected activation .*gelu"):
        FusedInstanceNorm2d(3, activation="gelu")(random_inputs((2, 3, 5, 5)).x)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (FusedInstanceNorm2d(3, affine=True), (2, 4, 5, 5)),
        (FusedInstanceNorm2d(3, affine=True), (2, 3, 4, 5, 5)),
        (FusedInstanceNorm2d(3, affine=True), (4, 5, 5)),
        (FusedInstanceNorm3d(3, affine=True), (2, 3, 5, 5)),
    ],
)
def test_another_shape_is_refused(module, shape):
    came = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"^{type(module).__name__}: expected .*got .*{came}"):
        module(torch.zeros(shape))


def test_without_weights_any_number_of_channels_goes_as_in_pytorch():
    x = torch.randn(1, 8, 4, 4)
    with pytest.warns(UserWarning, match="num_features"):
        expected = nn.InstanceNorm2d(4)(x)
    torch.testing.assert_close(FusedInstanceNorm2d(4)(x), expected)


def test_an_unknown_activation_is_refused_at_once():
    with pytest.raises(ValueError, match=r"expected activation none, relu, leaky_relu, got 'gelu'"):
        FusedInstanceNorm2d(4, activation="gelu")
