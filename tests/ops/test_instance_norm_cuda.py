"""The CUDA kernels through the Python face, on a real GPU. tests/cpp/instance_norm_cuda_tests.cpp
runs the same kernels emulated on the host."""

from __future__ import annotations

import pytest
import torch
from instance_norm_reference import Inputs, compare, memory_format, random_inputs
from instance_norm_tables import layouts

from fastmrigan.ops import instance_norm

pytestmark = pytest.mark.gpu

dtypes = pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, torch.float16],
    ids=["float32", "bfloat16", "float16"],
)
# A part of a warp, a block, a cluster of blocks, and more than any of them holds; odd and even.
SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 1, 7),
    (3, 5, 7, 7),
    (4, 64, 16, 16),
    (2, 8, 33, 31),
    (2, 64, 64, 64),
    (2, 3, 64, 64),
    (1, 16, 128, 128),
    (1, 3, 181, 217),
    (1, 8, 256, 256),
    (1, 8, 768, 1024),
    (2, 4, 5, 6, 7),
    (1, 8, 32, 64, 64),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def on_gpu(*arguments: object, **options: object) -> Inputs:
    return random_inputs(*arguments, **options).map(lambda t: t.cuda())


@pytest.mark.parametrize(
    ("activation", "affine", "residual"),
    [("none", "none", False), ("relu", "both", False), ("leaky_relu", "both", True)],
)
@shapes
@layouts
@dtypes
def test_against_the_reference(dtype, layout, shape, activation, affine, residual):
    inputs = on_gpu(shape, dtype, layout, affine=affine, residual=residual)
    y, gradients = compare(instance_norm, inputs, activation=activation, backend="native")
    assert y.is_contiguous(memory_format=memory_format(y, layout))
    again, gradients_again = compare(instance_norm, inputs, activation=activation, backend="native")
    assert torch.equal(y, again)
    for name, gradient in gradients.items():
        assert torch.equal(gradient, gradients_again[name]), name


@layouts
@dtypes
@pytest.mark.parametrize("shape", [(2, 4, 7, 7), (2, 16, 64, 64), (1, 8, 256, 256)], ids=str)
def test_slices_and_unaligned_pointers(shape, layout, dtype):
    n, c, h, w = shape
    larger = on_gpu((n + 1, c + 3, h, w), dtype, layout).x
    for x in (larger[1:, 3:], larger[1:, 1 : c + 1], larger[:n, :c]):
        compare(instance_norm, Inputs(x), activation="relu", backend="native")
    flat = torch.zeros(n * c * h * w + 1, dtype=dtype, device="cuda")
    x = flat[1:].view(n, h, w, c).permute(0, 3, 1, 2) if layout == "channels_last" else None
    x = flat[1:].view(n, c, h, w) if x is None else x
    x.copy_(larger[:n, :c])
    compare(instance_norm, Inputs(x), activation="leaky_relu", backend="native")


@layouts
@pytest.mark.parametrize("shape", [(2, 8, 16, 16), (1, 8, 256, 256), (1, 8, 768, 1024)], ids=str)
def test_a_mean_of_1e4_holds_to_1e_3(shape, layout):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1e4
    x = x.contiguous(memory_format=memory_format(x, layout)).cuda()
    compare(instance_norm, Inputs(x), rtol=1e-3, atol=1e-3, backend="native")


@layouts
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("size", [7, 64, 256])
def test_what_is_not_finite_stays_in_its_plane(size, value, layout):
    x = on_gpu((1, 8, size, size), layout=layout).x
    x[0, 3, 2, 5] = value
    y = instance_norm(x, activation="relu", backend="native")
    assert y[0, 3].isnan().all()
    assert y[0, [0, 1, 2, 4, 5, 6, 7]].isfinite().all()


@layouts
@dtypes
@pytest.mark.parametrize("size", [7, 64, 256])
def test_out_may_be_x_or_the_residual(size, dtype, layout):
    inputs = on_gpu((2, 8, size, size), dtype, layout, affine="both", residual=True)
    x, residual = inputs.x, inputs.residual
    y = instance_norm(x, inputs.weight, inputs.bias, residual=residual, backend="native")
    affine, native = (inputs.weight, inputs.bias), {"backend": "native"}
    over_x, over_residual = x.clone(), residual.clone()
    instance_norm(over_x, *affine, residual=residual, out=over_x, **native)
    instance_norm(x, *affine, residual=over_residual, out=over_residual, **native)
    assert torch.equal(over_x, y)
    assert torch.equal(over_residual, y)


def both_ways(inputs: Inputs, grad_y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """y, and the gradients to x, weight and bias, straight from the operators."""
    how = ("relu", 0.2, 1e-5)
    y, statistics = torch.ops.fastmrigan.instance_norm(
        inputs.x, inputs.weight, inputs.bias, inputs.residual, *how
    )
    return y, *torch.ops.fastmrigan.instance_norm_backward(
        grad_y, inputs.x, statistics, inputs.weight, inputs.bias, *how, True
    )


@layouts
@pytest.mark.parametrize("size", [16, 64, 256])
def test_in_a_cuda_graph(size, layout):
    inputs = on_gpu((2, 8, size, size), layout=layout, affine="both", residual=True)
    grad_y = torch.randn_like(inputs.x)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        both_ways(inputs, grad_y)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both_ways(inputs, grad_y)
    for _ in range(2):
        inputs.x.copy_(torch.randn_like(inputs.x))
        graph.replay()
        for got, expected in zip(captured, both_ways(inputs, grad_y), strict=True):
            assert torch.equal(got, expected)


@layouts
@pytest.mark.parametrize("size", [16, 64, 256])
def test_on_the_current_stream(size, layout):
    inputs = on_gpu((2, 8, size, size), layout=layout, affine="both", residual=True)
    grad_y = torch.randn_like(inputs.x)
    expected = both_ways(inputs, grad_y)
    late = torch.zeros_like(inputs.x)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)  # a kernel on another stream would see zeros
        late.copy_(inputs.x)
        got = both_ways(Inputs(late, inputs.weight, inputs.bias, inputs.residual), grad_y)
    torch.cuda.synchronize()
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)


@layouts
@pytest.mark.parametrize("size", [16, 64, 256])
def test_allocates_its_outputs_alone(size, layout):
    x = on_gpu((2, 8, size, size), layout=layout).x
    instance_norm(x, activation="relu", backend="native")

    def allocations() -> int:
        return torch.cuda.memory_stats()["allocation.all.allocated"]

    before = allocations()
    y = instance_norm(x, activation="relu", backend="native")
    assert allocations() - before == 2  # y and the statistics
    before = allocations()
    instance_norm(x, activation="relu", backend="native", out=y)
    assert allocations() - before == 1


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@layouts
@pytest.mark.parametrize("size", [16, 64, 256])
def test_waits_for_nothing(size, layout):
    inputs = on_gpu((2, 8, size, size), layout=layout, affine="both", residual=True)
    grad_y = torch.randn_like(inputs.x)
    both_ways(inputs, grad_y)
    torch.cuda.set_sync_debug_mode("error")
    try:
        both_ways(inputs, grad_y)
    finally:
        torch.cuda.set_sync_debug_mode("default")
