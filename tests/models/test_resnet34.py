"""The ResNet-34 generator against a count by hand and a twin of torch's own layers."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from fastmrigan.export.onnx import GeneratorFacts, build_graph, check_graph
from fastmrigan.models.resnet34 import Resnet34Generator
from fastmrigan.ops import FusedInstanceNorm2d


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def small(**keywords):
    torch.manual_seed(0)
    network = Resnet34Generator(**{"size": 64, "width": 4} | keywords)
    network.initialise()
    with torch.no_grad():  # the biases are to count; larger weights would saturate the tanh
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)
    return network


def slices(channels=1, batch=2, size=64):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


def by_hand(channels, width, inert):
    """Weights of every convolution as (outputs, inputs, kernel), and biases where `inert`."""
    layers = [(width, channels, 7)]
    inner = width
    for blocks, outer in ((3, width), (4, 2 * width), (6, 4 * width), (3, 8 * width)):
        layers += [(outer, inner, 3)] + (2 * blocks - 1) * [(outer, outer, 3)]
        layers += [(outer, inner, 1)] if outer != inner else []
        inner = outer
    for outer in (4 * width, 2 * width, width, width, width):
        layers.append((outer, inner, 3))
        inner = outer
    head = channels * width * 49 + channels
    return head + sum(o * i * kernel**2 + inert * o for o, i, kernel in layers)


class TwinBlock(nn.Module):
    def __init__(self, inner, outer, stride):
        super().__init__()
        self.inside = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1), nn.InstanceNorm2d(outer), nn.ReLU(),
            nn.Conv2d(outer, outer, 3, 1, 1), nn.InstanceNorm2d(outer),
        )  # fmt: skip
        self.beside = nn.Sequential()
        if inner != outer:
            self.beside = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride), nn.InstanceNorm2d(outer)
            )

    def forward(self, x):
        return torch.relu(self.inside(x) + self.beside(x))


def twin(channels, width):
    """The same from torch's own layers, written flat."""

    def up(inner, outer):
        return [
            nn.ConvTranspose2d(inner, outer, 3, 2, 1, output_padding=1),
            nn.InstanceNorm2d(outer),
            nn.ReLU(),
        ]

    def stage(inner, outer, stride, blocks):
        rest = (TwinBlock(outer, outer, 1) for _ in range(blocks - 1))
        return [TwinBlock(inner, outer, stride), *rest]

    return nn.Sequential(
        nn.Conv2d(channels, width, 7, 2, 3), nn.InstanceNorm2d(width), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        *stage(width, width, 1, 3),
        *stage(width, 2 * width, 2, 4),
        *stage(2 * width, 4 * width, 2, 6),
        *stage(4 * width, 8 * width, 2, 3),
        *up(8 * width, 4 * width), *up(4 * width, 2 * width), *up(2 * width, width),
        *up(width, width), *up(width, width),
        nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, by_hand(1, 64, inert=True)),
        ({"channels": 3}, by_hand(3, 64, inert=True)),
        ({"width": 16, "inert_bias": False}, by_hand(1, 16, inert=False)),
    ],
)
def test_parameter_counts(keywords, expected):
    with torch.device("meta"):
        assert count(Resnet34Generator(size=256, **keywords)) == expected


def test_the_encoder_is_resnet_34s():
    """He et al.: 21,797,672 parameters with the classifier (513,000) and the batch norms' (17,024).

    Ours has one input channel instead of three.
    """
    with torch.device("meta"):
        generator = Resnet34Generator(size=256, inert_bias=False)
    encoder = count(generator.stem) + count(generator.blocks)
    assert encoder == 21_797_672 - 513_000 - 17_024 - 2 * 64 * 49
    convolutions = [
        layer
        for name, layer in (*generator.stem.named_modules(), *generator.blocks.named_modules())
        if isinstance(layer, nn.Conv2d) and "shortcut" not in name
    ]
    assert len(convolutions) == 33  # the 34th layer is the classifier


def test_activation_shapes():
    with torch.device("meta"):
        generator = Resnet34Generator(size=256)
        found = []
        for layer in (*generator.stem, *generator.blocks, *generator.ups, *generator.head):
            if not isinstance(layer, FusedInstanceNorm2d):
                layer.register_forward_hook(lambda layer, _, y: found.append(tuple(y.shape)))
        generator(torch.zeros(1, 1, 256, 256))
    assert found == [
        (1, 64, 128, 128), (1, 64, 64, 64),
        *[(1, 64, 64, 64)] * 3, *[(1, 128, 32, 32)] * 4, *[(1, 256, 16, 16)] * 6,
        *[(1, 512, 8, 8)] * 3,
        (1, 256, 16, 16), (1, 128, 32, 32), (1, 64, 64, 64), (1, 64, 128, 128), (1, 64, 256, 256),
        (1, 1, 256, 256), (1, 1, 256, 256),
    ]  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_a_twin_of_torchs_layers(channels):
    generator = small(channels=channels)
    plain = twin(channels, 4)
    values = generator.state_dict().values()
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    x = slices(channels)
    ours = generator(x)
    torch.testing.assert_close(ours, plain(x), rtol=0, atol=1e-4)
    assert ours.shape == x.shape
    assert ours.std() > 0.1
    # 41 norms, the deepest over four values, amplify float32's rounding; float64 leaves no doubt.
    exact = generator.double()(x.double())
    torch.testing.assert_close(exact, plain.double()(x.double()), rtol=0, atol=1e-9)


def test_without_inert_biases_the_slices_are_the_same():
    generator, bare = small(), small(inert_bias=False)
    bare.load_state_dict({k: v for k, v in generator.state_dict().items() if k in
                          bare.state_dict()})  # fmt: skip
    assert [k for k in bare.state_dict() if k.endswith("bias")] == ["head.0.bias"]
    torch.testing.assert_close(bare(slices()), generator(slices()), rtol=0, atol=1e-4)


def test_gradients_reach_every_parameter():
    generator = small(inert_bias=False)
    generator(slices(batch=1)).square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_channels_last():
    generator = small()
    expected = generator(slices())
    generator = generator.to(memory_format=torch.channels_last)
    came = generator(slices().to(memory_format=torch.channels_last))
    torch.testing.assert_close(came, expected, rtol=0, atol=1e-4)


def test_autocast():
    generator = small(channels=3)
    x = slices(3, batch=1)
    with torch.autocast("cpu", torch.bfloat16):
        came = generator(x)
    assert came.dtype == torch.bfloat16
    assert (came.float() - generator(x)).abs().mean() < 0.05
    came.float().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in generator.parameters())


def test_another_size():
    x = slices(size=96)
    came = small(size=96)(x)
    assert came.shape == x.shape
    assert came.isfinite().all()


@pytest.mark.parametrize("size", [0, 32, 100])
def test_size_must_be_a_multiple_of_32(size):
    text = f"Resnet34Generator: expected a size that is a multiple of 32, at least 64, got {size}"
    with pytest.raises(ValueError, match=text):
        Resnet34Generator(size=size)


def test_initialise():
    generator = Resnet34Generator(size=64, width=8)
    torch.manual_seed(0)
    generator.initialise()
    first = {name: value.clone() for name, value in generator.state_dict().items()}
    for name, value in first.items():
        if name.endswith("bias"):
            assert not value.any()
        else:  # five standard errors of the mean and of the standard deviation
            assert abs(value.mean()) < 5 * 0.02 / value.numel() ** 0.5
            assert abs(value.std() - 0.02) < 5 * 0.02 / (2 * value.numel()) ** 0.5
    torch.manual_seed(0)
    generator.initialise()
    assert all(torch.equal(value, first[name]) for name, value in generator.state_dict().items())


def test_onnx():
    facts = GeneratorFacts("translate", "test", (64, 64))
    generator = small().eval()
    graph = build_graph(generator, facts)
    check_graph(graph, facts)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    x = slices(batch=3)
    (came,) = session.run(None, {"source": x.numpy()})
    np.testing.assert_allclose(came, generator(x).detach().numpy(), rtol=0, atol=1e-4)
