"""The fused instance norm on the CPU against float64, forward and gradients."""

from __future__ import annotations

import pytest
import torch
from instance_norm_reference import apply, compare, random_grad_y, random_inputs, reference
from instance_norm_tables import AFFINE, activations, backends, dtypes, layouts

from fastmrigan import _core
from fastmrigan.ops import instance_norm, instance_norm_torch

# The set in use is the one that all other tests run on.
OTHER_ISAS = [
    name
    for name in ("baseline", "avx2", "avx512")
    if _core.isa_supported(name) and name != _core.isa()
]
SMALL = [
    (2, 3, 1, 1),
    (1, 5, 1, 7),
    (2, 4, 7, 1),
    (3, 2, 5, 3),
    (2, 4, 7, 7),
    (1, 1, 9, 11),
    (2, 33, 6, 5),
    (0, 3, 4, 4),
    (2, 0, 4, 4),
    (2, 3, 4, 5, 6),
]
LARGE = [(1, 2, 181, 217), (1, 3, 256, 256), (2, 65, 31, 33), (1, 256, 64, 64), (1, 3, 9, 40, 41)]


@backends
@activations
@layouts
@dtypes
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_equals_the_reference(shape, dtype, layout, activation, backend):
    for affine in AFFINE:
        for residual in (False, True):
            inputs = random_inputs(shape, dtype, layout, affine=affine, residual=residual)
            compare(instance_norm, inputs, activation=activation, backend=backend)


@layouts
@dtypes
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_equals_the_reference_on_large_planes(shape, dtype, layout):
    plain = random_inputs(shape, dtype, layout)
    compare(instance_norm, plain, backend="native")
    full = random_inputs(shape, dtype, layout, affine="both", residual=True)
    compare(instance_norm, full, activation="leaky_relu", backend="native")


@pytest.mark.slow
@backends
@activations
@layouts
@dtypes
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_equals_the_reference_on_large_planes_throughout(shape, dtype, layout, activation, backend):
    for affine in AFFINE:
        for residual in (False, True):
            inputs = random_inputs(shape, dtype, layout, affine=affine, residual=residual)
            compare(instance_norm, inputs, activation=activation, backend=backend)


@backends
@layouts
def test_affine_parameters_may_have_the_storage_type(layout, backend):
    inputs = random_inputs(
        (2, 5, 7, 9), torch.bfloat16, layout, affine="both", affine_dtype=torch.bfloat16
    )
    _, gradients = compare(instance_norm, inputs, activation="relu", backend=backend)
    assert gradients["weight"].dtype == torch.bfloat16


@backends
@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
def test_slope_is_that_of_leaky_relu(slope, backend):
    inputs = random_inputs((2, 3, 8, 8), affine="both")
    compare(instance_norm, inputs, activation="leaky_relu", slope=slope, backend=backend)


@backends
@pytest.mark.parametrize("eps", [1e-12, 1e-3, 10.0])
def test_eps_is_added_to_the_variance(eps, backend):
    compare(instance_norm, random_inputs((2, 3, 8, 8)), eps=eps, backend=backend)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@layouts
@activations
def test_the_twin_takes_every_floating_type(dtype, layout, activation):
    inputs = random_inputs((2, 3, 7, 5), dtype, layout, affine="both", residual=True)
    compare(instance_norm, inputs, activation=activation, backend="torch")
    compare(instance_norm_torch, inputs, activation=activation)


@pytest.mark.parametrize("isa", OTHER_ISAS)
def test_every_other_instruction_set_equals_the_reference(isa, fresh_process):
    code = (
        "from instance_norm_reference import compare_briefly\n"
        "from fastmrigan import _core\n"
        "from fastmrigan.ops import instance_norm\n"
        "print(_core.isa(), compare_briefly(instance_norm))"
    )
    ran, count = fresh_process(code, FASTMRIGAN_ISA=isa, OMP_NUM_THREADS="1").split()
    assert ran == isa
    assert int(count) > 0


@dtypes
@layouts
@pytest.mark.parametrize(
    "shape", [(8, 64, 32, 32), (1, 3, 256, 256), (3, 7, 61, 67), (1, 1, 512, 512)], ids=str
)
def test_thread_counts_give_the_same_bits(shape, layout, dtype):
    inputs = random_inputs(shape, dtype, layout, affine="both", residual=True)
    leaves = inputs.leaves()
    grad_y = random_inputs(shape, dtype, layout, seed=9).x
    runs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        y = apply(instance_norm, leaves, activation="leaky_relu", backend="native")
        runs.append([y, *torch.autograd.grad(y, leaves.tensors(), grad_y)])
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@backends
def test_only_the_gradients_asked_for_are_made(backend):
    inputs = random_inputs((2, 3, 7, 7), affine="both", residual=True)
    expected = compare(instance_norm, inputs, activation="relu", backend=backend)[1]
    y, z = reference(*inputs.present().values(), activation="relu")
    grad_y = random_grad_y(y.float(), z, "relu")
    for name in inputs.present():
        tensors = inputs.map(torch.clone)
        leaf = tensors.present()[name].requires_grad_()
        y = apply(instance_norm, tensors, activation="relu", backend=backend)
        y.backward(grad_y)
        torch.testing.assert_close(leaf.grad, expected[name], rtol=1e-6, atol=1e-6)
        assert all(t.grad is None for t in tensors.present().values() if t is not leaf)


@backends
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_graph_is_kept_where_no_gradient_is_wanted(mode, backend):
    x = random_inputs((1, 2, 4, 4)).x.requires_grad_()
    with mode():
        assert not instance_norm(x, backend=backend).requires_grad
    assert not instance_norm(x.detach(), backend=backend).requires_grad
