"""The strided convolutions against PyTorch's own, in bf16 and against float64."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from fastmrigan.ops import strided_conv
from fastmrigan.ops.strided_conv import StridedConv2d, StridedConvTranspose2d, weight_gradient

NARROW, WIDE = 256, 128  # the fewest channels that take the product


def pair(transposed: bool, bias: bool = True) -> tuple[nn.Module, nn.Module]:
    """Ours, and PyTorch's with the same weights."""
    torch.manual_seed(3)
    if transposed:
        theirs: nn.Module = nn.ConvTranspose2d(NARROW, WIDE, 4, 2, 1, bias=bias)
        ours: nn.Module = StridedConvTranspose2d(NARROW, WIDE, bias=bias)
    else:
        theirs = nn.Conv2d(WIDE, NARROW, 4, 2, 1, bias=bias)
        ours = StridedConv2d(WIDE, NARROW, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def plane(transposed: bool, count: int = 2, height: int = 6, width: int = 4) -> torch.Tensor:
    shape = (NARROW, height, width) if transposed else (WIDE, 2 * height, 2 * width)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))


def gradients(
    module: nn.Module, x: torch.Tensor, *, bf16: bool, layout: torch.memory_format | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The output, and the gradients of the input and the weights of a loss that is not flat.
    layout: of the output's gradient."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = module(x)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        towards = torch.randn(y.shape).bfloat16().to(y.dtype)
    if layout is not None:
        towards = towards.contiguous(memory_format=layout)
    y.backward(towards)
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    return y.detach(), {"x": x.grad, **found}


@pytest.fixture
def products(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of the gradients that went through the product."""
    made: list[tuple[int, ...]] = []

    def counted(narrow, wide):
        made.append((*narrow.shape, *wide.shape))
        return weight_gradient(narrow, wide)

    monkeypatch.setattr(strided_conv, "weight_gradient", counted)
    return made


@pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transpose"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_the_convolution(products, transposed, bias, layout):
    ours, theirs = pair(transposed, bias)
    ours = ours.to(memory_format=layout)
    x = plane(transposed).bfloat16().float()  # values that bf16 holds
    with torch.no_grad():
        for module in (ours, theirs):
            for parameter in module.parameters():
                parameter.copy_(parameter.bfloat16().float())
    y, found = gradients(ours, x.contiguous(memory_format=layout), bf16=True, layout=layout)
    assert len(products) == 1
    assert y.dtype == torch.bfloat16
    exact_y, exact = gradients(copy.deepcopy(theirs).double(), x.double(), bf16=False)
    _, rounded = gradients(theirs, x, bf16=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(y, theirs(x))  # what is trained is what is used
    assert (y.double() - exact_y).abs().max() <= 0.01 * exact_y.abs().max()
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        assert found[name].dtype == torch.float32
        off = (found[name].double() - value).abs().max()
        usual = (rounded[name].double() - value).abs().max()  # PyTorch's own rounding
        assert off <= max(2 * usual, 1e-3 * value.abs().max()), name


ORDERS = tuple(itertools.permutations(range(4)))  # of the axes in memory


def laid_out(x: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """The same tensor, its axes in memory in that order."""
    return x.permute(order).contiguous().permute([order.index(axis) for axis in range(4)])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (2, 8, 1)])
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join("NCHW"[i] for i in order))
def test_the_product_itself(shape, order):
    """In float64, where nothing is rounded, for planes that are not square, down to one pixel, in
    every layout."""
    count, height, width = shape
    narrow = torch.randn(count, 7, height, width, dtype=torch.float64)
    wide = torch.randn(count, 5, 2 * height, 2 * width, dtype=torch.float64)
    narrow, wide = laid_out(narrow, order[::-1]), laid_out(wide, order)
    weight = torch.zeros(7, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.conv2d(wide, weight, None, 2, 1).backward(narrow)
    torch.testing.assert_close(weight_gradient(narrow, wide), weight.grad)


def test_a_frozen_input_and_a_frozen_weight(products):
    ours, theirs = pair(transposed=False)
    x = plane(transposed=False)
    for module in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x)  # as the first layer of a network has it
        y.float().square().sum().backward()
    assert len(products) == 1
    usual = theirs.weight.grad
    assert (ours.weight.grad - usual).norm() <= 0.01 * usual.norm()
    ours.weight.requires_grad_(False)
    theirs.weight.requires_grad_(False)  # as a discriminator while the generator learns
    _, ours_found = gradients(ours, x, bf16=True)
    _, theirs_found = gradients(theirs, x, bf16=True)
    assert torch.equal(ours_found["x"], theirs_found["x"])
    assert len(products) == 1


def test_elsewhere_it_is_the_convolution_to_the_bit(products):
    ours, theirs = pair(transposed=False)
    for x, bf16 in (
        (plane(False), False),  # fp32
        (plane(False, width=strided_conv.LONGEST + 1), True),  # long rows
        (plane(False, count=80, height=8, width=8), True),  # many pixels
        (plane(False)[:, :, :-1], True),  # odd sides
        (plane(False)[..., :-1], True),
    ):
        y, found = gradients(ours, x, bf16=bf16)
        expected_y, expected = gradients(theirs, x, bf16=bf16)
        assert torch.equal(y, expected_y)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        ours.zero_grad()
        theirs.zero_grad()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(plane(False)), theirs(plane(False)))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="type"):
        ours(plane(False).double())  # autocast leaves it alone
    few = StridedConv2d(WIDE, NARROW // 2)
    gradients(few, plane(False), bf16=True)
    assert not products


def test_the_gradient_can_be_differentiated_again():
    """As a gradient penalty does."""
    ours, theirs = pair(transposed=False)
    found = []
    for module in (ours, theirs):
        x = plane(False).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x)
        (of_x,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        of_x.square().sum().backward()
        found.append(module.weight.grad)
    assert (found[0] - found[1]).norm() <= 0.02 * found[1].norm()


def test_transforms_take_the_convolution(products):
    ours, theirs = pair(transposed=False)
    x = plane(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.func.vmap(ours)(x[:, None]), torch.func.vmap(theirs)(x[:, None]))
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            assert torch.autograd.forward_ad.unpack_dual(ours(dual)).tangent is not None
        traced = torch.fx.symbolic_trace(nn.Sequential(copy.deepcopy(ours)))
        assert torch.equal(traced(x), theirs(x))
    assert len(products) == 0


def test_every_halving_convolution_of_the_models_is_one():
    """So that none is left to oneDNN by an oversight."""
    from fastmrigan.training.recipe_file import load_recipe, shipped_recipes
    from fastmrigan.training.systems import system_of

    seen = 0
    for name in shipped_recipes():
        recipe = load_recipe(name, [])
        with torch.device("meta"):
            networks = system_of(recipe).make(recipe)
        for module in (each for network in networks.values() for each in network.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                shape = (module.kernel_size, module.stride, module.padding)
                if shape == ((4, 4), (2, 2), (1, 1)):
                    assert isinstance(module, StridedConv2d | StridedConvTranspose2d), name
                    seen += 1
    assert seen > 50
