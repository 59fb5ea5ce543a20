"""What PyTorch does to operators: opcheck, gradcheck, compile, export, autocast, DDP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import instance_norm_ddp
import pytest
import torch
from instance_norm_reference import (
    KINK,
    apply,
    assert_near,
    compare,
    random_inputs,
    reference,
)
from instance_norm_tables import activations, layouts
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastmrigan.ops import FusedInstanceNorm2d, instance_norm


class Recorder(TorchDispatchMode):
    """Keeps the calls to this project's operators: (operator, arguments, keyword arguments)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch._ops.OpOverload, tuple[object, ...], dict[str, object]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "fastmrigan":
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


OPCHECKS = {
    "plain": ((2, 3, 4, 5), torch.float32, "contiguous", "none", False),
    "full": ((2, 3, 4, 5), torch.float32, "channels_last", "both", True),
    "bfloat16": ((2, 3, 4, 5), torch.bfloat16, "channels_last", "weight", True),
    "volume": ((2, 3, 2, 4, 5), torch.float32, "contiguous", "bias", False),
    "no batch": ((0, 3, 4, 5), torch.float32, "contiguous", "both", False),
}


@pytest.mark.parametrize("case", OPCHECKS)
def test_opcheck(case):
    """On the very arguments that a forward, a backward and a forward into `out` hand over."""
    shape, dtype, layout, affine, residual = OPCHECKS[case]
    inputs = random_inputs(shape, dtype, layout, affine=affine, residual=residual)
    leaves = inputs.leaves()
    options = {"activation": "leaky_relu", "backend": "native"}
    with Recorder() as recorder:
        y = apply(instance_norm, leaves, **options)
        torch.autograd.grad(y, leaves.tensors(), torch.ones_like(y))
        apply(instance_norm, inputs, **options, out=torch.empty_like(inputs.x))
    names = [func._schema.name for func, _, _ in recorder.calls]
    assert names == [
        "fastmrigan::instance_norm",
        "fastmrigan::instance_norm_backward",
        "fastmrigan::instance_norm_out",
    ]
    for func, args, kwargs in recorder.calls:
        torch.library.opcheck(func, *as_leaves(func, args, kwargs))


def as_leaves(func, args, kwargs):
    """The arguments without their history; those that a gradient may go to require one."""
    differentiable = {"grad_y", "x", "weight", "bias", "residual"}
    mutates = any(argument.is_write for argument in func._schema.arguments)

    def leaf(name, value):
        if not isinstance(value, Tensor):
            return value
        return value.detach().requires_grad_(name in differentiable and not mutates)

    names = [argument.name for argument in func._schema.arguments]
    positional = tuple(leaf(name, value) for name, value in zip(names, args, strict=False))
    return positional, {name: leaf(name, value) for name, value in kwargs.items()}


@layouts
@activations
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_gradcheck_in_float64(backend, activation, layout):
    inputs = random_inputs((2, 2, 3, 4), torch.float64, layout, affine="both", residual=True)
    leaves = inputs.leaves()

    def call(x, weight, bias, residual):
        return instance_norm(
            x, weight, bias, residual=residual, activation=activation, backend=backend
        )

    assert torch.autograd.gradcheck(call, leaves.tensors())
    assert torch.autograd.gradgradcheck(call, leaves.tensors())


@pytest.mark.parametrize("affine", ["none", "both"])
@activations
def test_a_gradient_of_a_gradient(activation, affine):
    """What a gradient penalty needs; against the reference, whose autograd differentiates twice."""
    inputs = random_inputs((2, 2, 5, 5), affine=affine, seed=5)
    leaves, exact = inputs.leaves(), inputs.map(Tensor.double).leaves()
    y = apply(instance_norm, leaves, activation=activation, backend="native")
    expected, z = reference(exact.x, exact.weight, exact.bias, activation=activation)
    assert z.abs().min() > KINK, "take another seed: an element may fall on either side of 0"
    (grad,) = torch.autograd.grad(y.pow(3).sum(), leaves.x, create_graph=True)
    (wanted,) = torch.autograd.grad(expected.pow(3).sum(), exact.x, create_graph=True)
    second = torch.autograd.grad(grad.square().sum(), leaves.tensors())
    expected_second = torch.autograd.grad(wanted.square().sum(), exact.tensors())
    for name, got, want in zip(leaves.present(), second, expected_second, strict=True):
        assert_near(got, want, f"second gradient to {name}", rtol=1e-4, atol=1e-4)


def norm_twice(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    """Two calls with work of PyTorch's own between and around them."""
    y = instance_norm(x * 2, weight, bias, activation="relu", backend="native")
    y = instance_norm(y + 1, activation="leaky_relu", residual=residual, backend="native")
    return y.square()


def compare_compiled(compiled: Callable[..., Tensor], layout: str, height: int = 8) -> None:
    inputs = random_inputs((2, 4, height, 6), layout=layout, affine="both", residual=True)
    results = []
    for function in (compiled, norm_twice):
        leaves = inputs.leaves()
        y = function(*leaves.tensors())
        results.append([y, *torch.autograd.grad(y.sum(), leaves.tensors())])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert results[0][0].stride() == results[1][0].stride()


@layouts
def test_one_graph_forward_and_backward(layout):
    torch.compiler.reset()
    compare_compiled(torch.compile(norm_twice, fullgraph=True, backend="aot_eager"), layout)


def test_one_graph_serves_every_size():
    torch.compiler.reset()
    compiled = torch.compile(norm_twice, fullgraph=True, backend="aot_eager", dynamic=True)
    for height in (8, 9, 12):
        compare_compiled(compiled, "contiguous", height)


@pytest.mark.parametrize("dynamic", [True, False])
def test_one_graph_takes_eps_and_slope_as_arguments(dynamic):
    def norm(x: Tensor, eps: float, slope: float) -> Tensor:
        return instance_norm(x, activation="leaky_relu", eps=eps, slope=slope, backend="native")

    torch.compiler.reset()
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    x = random_inputs((2, 4, 5, 6)).x
    for numbers in ((1e-5, 0.2), (1e-3, 0.1), (1, 2), (2, 3)):
        torch.testing.assert_close(compiled(x, *numbers), norm(x, *numbers))


@pytest.mark.slow
@layouts
def test_inductor_compiles_forward_and_backward(layout):
    torch.compiler.reset()
    compare_compiled(torch.compile(norm_twice, fullgraph=True), layout)


@pytest.mark.slow
def test_inductor_compiles_a_module_in_bfloat16():
    torch.compiler.reset()
    module = FusedInstanceNorm2d(4, affine=True, activation="relu", backend="native")
    x = random_inputs((2, 4, 8, 8), torch.bfloat16, "channels_last").x
    y = torch.compile(module, fullgraph=True)(x)
    assert torch.equal(y, module(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_export_keeps_one_operator_and_any_batch():
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), FusedInstanceNorm2d(4, affine=True, activation="relu")
    ).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (torch.randn(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert any("fastmrigan.instance_norm" in target for target in targets), targets
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(program.module()(x), module(x))


def test_autocast_runs_on_what_the_convolution_gives():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),  # the norm after it would take a bias away
        FusedInstanceNorm2d(8, affine=True, activation="relu", backend="native"),
        nn.Conv2d(8, 1, 3, padding=1),
    )
    x = torch.randn(2, 1, 16, 16)
    seen = []
    model[1].register_forward_hook(lambda module, given, y: seen.append((given[0].dtype, y.dtype)))
    expected = model(x)
    expected.square().mean().backward()
    exact = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    y.float().square().mean().backward()
    assert seen == [(torch.float32,) * 2, (torch.bfloat16,) * 2]
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        scale = float(exact[name].abs().max())
        torch.testing.assert_close(parameter.grad, exact[name], rtol=0.05, atol=0.05 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_the_type_of_x(dtype):
    inputs = random_inputs((2, 3, 8, 8), dtype, affine="both", residual=True)
    with torch.autocast("cpu", torch.bfloat16):
        compare(instance_norm, inputs, activation="relu", backend="native")


def test_autocast_takes_a_residual_of_another_type():
    """A skip connection from outside the convolutions is float32, what they give is bfloat16."""
    x = random_inputs((2, 3, 8, 8), torch.bfloat16).x.requires_grad_()
    residual = random_inputs((2, 3, 8, 8), seed=1).x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = instance_norm(x, residual=residual, backend="native")
    assert y.dtype == torch.bfloat16
    assert_near(y.detach(), reference(x, residual=residual.bfloat16())[0].detach(), "y")
    y.sum().backward()
    assert residual.grad.dtype == torch.float32


@pytest.mark.slow
def test_data_parallel_gradients_are_those_of_the_whole_batch(tmp_path):
    model = instance_norm_ddp.small_model()
    model(instance_norm_ddp.batch()).square().mean().backward()
    script, store, out = instance_norm_ddp.__file__, tmp_path / "store", tmp_path / "grads.pt"
    env = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(store), str(out)],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    gradients = torch.load(out, weights_only=True)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
