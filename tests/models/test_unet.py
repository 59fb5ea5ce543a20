"""pix2pix's U-Net against its published counts and a recursive twin of torch's own layers."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from fastmrigan.export.onnx import GeneratorFacts, build_graph, check_graph
from fastmrigan.models.unet import UnetGenerator
from fastmrigan.ops import FusedInstanceNorm2d


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def small(**keywords):
    torch.manual_seed(0)
    network = UnetGenerator(**{"size": 32, "width": 4} | keywords)
    network.initialise()
    with torch.no_grad():  # 0.02 a weight would make slices of nearly zero
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return network


def slices(channels=1, batch=2, size=32):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


class Twin(nn.Module):
    """One level around the level inside it; activations stand before the convolutions."""

    def __init__(self, outer, inner, inside, *, inputs, norm, dropout=0.0, outermost=False):
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        self.outermost = outermost
        self.down = [] if outermost else [nn.LeakyReLU(0.2)]
        self.down.append(nn.Conv2d(inputs, inner, 4, 2, 1, bias=bias))
        if inside is not None and not outermost:
            self.down.append(norm(inner))
        self.down = nn.Sequential(*self.down)
        self.inside = inside or nn.Identity()
        self.up = [nn.ReLU()]
        deep = inner if inside is None else 2 * inner
        self.up.append(nn.ConvTranspose2d(deep, outer, 4, 2, 1, bias=bias or outermost))
        self.up += [nn.Tanh()] if outermost else [norm(outer), nn.Dropout(dropout)]
        self.up = nn.Sequential(*self.up)

    def forward(self, x):
        made = self.up(self.inside(self.down(x)))
        return made if self.outermost else torch.cat([x, made], 1)


def twin(size, channels, width, norm, dropout):
    downs = int(math.log2(size))
    deepest = 8 * width
    level = Twin(deepest, deepest, None, inputs=deepest, norm=norm)
    for _ in range(downs - 5):
        level = Twin(deepest, deepest, level, inputs=deepest, norm=norm, dropout=dropout)
    for outer in (4 * width, 2 * width, width):
        level = Twin(outer, 2 * outer, level, inputs=outer, norm=norm)
    return Twin(channels, width, level, inputs=channels, norm=norm, outermost=True)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, 54_403_457),
        ({"size": 128}, 41_819_521),
        ({"inert_bias": False}, 54_403_457 - (2 * (128 + 256 + 4 * 512) + 64)),
        ({"channels": 3, "norm": "batch"}, 54_413_955),  # pix2pix's own
        ({"channels": 3, "norm": "batch", "size": 128}, 41_828_995),  # pix2pix's own
    ],
)
def test_parameter_counts(keywords, expected):
    with torch.device("meta"):
        assert count(UnetGenerator(**keywords)) == expected


@pytest.mark.parametrize("size", [256, 128])
def test_activation_shapes(size):
    found = []
    with torch.device("meta"):
        generator = UnetGenerator(size=size)
        for layer in generator.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(lambda layer, x, y: found.append((x[0].shape, y.shape)))
        generator(torch.zeros(1, 1, size, size))
    deep = [512] * (5 if size == 256 else 4)
    downs = [(width, size >> step) for step, width in enumerate([64, 128, 256, *deep], 1)]
    sides = [side for _, side in reversed(downs[:-1])]
    ups = list(zip([*deep[1:], 256, 128, 64], sides, strict=True))
    assert downs[-1] == (512, 1)
    expected = [*downs, *ups, (1, size)]
    assert [tuple(y) for _, y in found] == [(1, c, side, side) for c, side in expected]
    inputs = [x[1] for x, _ in found]
    assert inputs[len(downs) :] == [512, *(2 * c for c, _ in ups)]  # a skip beside all but one


@pytest.mark.parametrize(
    ("norm", "plain_norm"), [("instance", nn.InstanceNorm2d), ("batch", nn.BatchNorm2d)]
)
@pytest.mark.parametrize(
    ("size", "channels", "dropout"), [(32, 1, 0.0), (32, 3, 0.0), (128, 1, 0.5)]
)
def test_equals_a_recursive_twin(norm, plain_norm, size, channels, dropout):
    generator = small(size=size, channels=channels, norm=norm, dropout=dropout)
    plain = twin(size, channels, 4, plain_norm, dropout)
    values = generator.state_dict().values()
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    x = slices(channels, size=size)
    torch.manual_seed(2)  # the same dropout in both
    ours = generator(x)
    torch.manual_seed(2)
    torch.testing.assert_close(ours, plain(x), rtol=0, atol=1e-4)
    assert ours.shape == x.shape
    assert ours.std() > 0.1


def test_places_of_dropout():
    with torch.device("meta"):
        generator = UnetGenerator(width=4, dropout=0.5)
        sides = []
        for layer in generator.modules():
            if isinstance(layer, nn.Dropout):
                assert layer.p == 0.5
                layer.register_forward_hook(lambda layer, _, y: sides.append(y.shape[-1]))
        generator(torch.zeros(1, 1, 256, 256))
    assert sides == [4, 8, 16]


def test_every_activation_behind_a_norm_is_fused():
    with torch.device("meta"):
        layers = list(UnetGenerator().modules())
    fused = [layer for layer in layers if isinstance(layer, FusedInstanceNorm2d)]
    assert [layer.activation for layer in fused] == ["leaky_relu"] * 6 + ["relu"] * 7
    assert all(layer.slope == 0.2 for layer in fused)
    assert not [layer for layer in layers if isinstance(layer, nn.InstanceNorm2d)]


def test_without_inert_biases_the_slices_are_the_same():
    generator, bare = small(), small(inert_bias=False)
    bare.load_state_dict({k: v for k, v in generator.state_dict().items() if k in
                          bare.state_dict()})  # fmt: skip
    kept = [k for k in bare.state_dict() if k.endswith("bias")]
    assert kept == ["downs.0.0.bias", "downs.4.0.bias", "head.0.bias"]
    torch.testing.assert_close(bare(slices()), generator(slices()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_gradients_reach_every_parameter(norm):
    generator = small(inert_bias=False, norm=norm, size=64)
    generator(slices(batch=1 if norm == "instance" else 2, size=64)).square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_channels_last():
    generator = small()
    expected = generator(slices())
    generator = generator.to(memory_format=torch.channels_last)
    came = generator(slices().to(memory_format=torch.channels_last))
    torch.testing.assert_close(came, expected, rtol=0, atol=1e-5)


def test_autocast():
    generator = small(channels=3)
    x = slices(3, batch=1)
    with torch.autocast("cpu", torch.bfloat16):
        came = generator(x)
    assert came.dtype == torch.bfloat16
    assert (came.float() - generator(x)).abs().mean() < 0.05
    came.float().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in generator.parameters())


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        (
            {"size": 16},
            "UnetGenerator: expected a size that is a power of two, at least 32",
        ),
        ({"size": 96}, "a power of two, at least 32, got 96"),
        ({"norm": "layer"}, "UnetGenerator: expected norm instance or batch, got 'layer'"),
        ({"size": 32, "dropout": 0.5}, "expected dropout 0 at size 32, where no up has a place"),
        ({"dropout": 1.5}, "dropout probability has to be between 0 and 1, but got 1.5"),
    ],
)
def test_refusals(keywords, text):
    with pytest.raises(ValueError, match=text):
        UnetGenerator(**{"size": 64, "width": 4} | keywords)


def test_initialise():
    generator = UnetGenerator(size=32, width=8, norm="batch")
    torch.manual_seed(0)
    generator.initialise()
    first = {name: value.clone() for name, value in generator.state_dict().items()}
    for name, value in generator.named_parameters():
        if name.endswith("bias"):
            assert not value.any()
        else:  # five standard errors of the mean and of the standard deviation
            centre = 1.0 if value.dim() == 1 else 0.0
            assert abs(value.mean() - centre) < 5 * 0.02 / value.numel() ** 0.5
            assert abs(value.std() - 0.02) < 5 * 0.02 / (2 * value.numel()) ** 0.5
    torch.manual_seed(0)
    generator.initialise()
    assert all(torch.equal(value, first[name]) for name, value in generator.state_dict().items())


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_onnx(norm):
    facts = GeneratorFacts("translate", "test", (64, 64))
    generator = small(size=64, norm=norm, dropout=0.5).eval()
    graph = build_graph(generator, facts)
    check_graph(graph, facts)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    x = slices(batch=3, size=64)
    (came,) = session.run(None, {"source": x.numpy()})
    np.testing.assert_allclose(came, generator(x).detach().numpy(), rtol=0, atol=1e-4)
