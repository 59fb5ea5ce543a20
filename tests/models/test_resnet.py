"""CycleGAN's ResNet generator against its published counts and a twin of torch's own layers."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from fastmrigan.export.onnx import GeneratorFacts, build_graph, check_graph
from fastmrigan.models.resnet import ResnetGenerator
from fastmrigan.ops import FusedInstanceNorm2d


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def small(**keywords):
    torch.manual_seed(0)
    network = ResnetGenerator(**{"size": 16, "width": 4, "blocks": 2} | keywords)
    network.initialise()
    with torch.no_grad():  # 0.02 a weight would make slices of nearly zero
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return network


def slices(channels=1, batch=2, size=16):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


def twin(channels, width, blocks, dropout):
    """The same from torch's own layers, written flat."""

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.inner = nn.Sequential(
                nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
                nn.ReLU(), nn.Dropout(dropout),
                nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
            )  # fmt: skip

        def forward(self, x):
            return x + self.inner(x)

    def after(layer, width):
        return [layer, nn.InstanceNorm2d(width), nn.ReLU()]

    return nn.Sequential(
        nn.ReflectionPad2d(3),
        *after(nn.Conv2d(channels, width, 7), width),
        *after(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), 2 * width),
        *after(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), 4 * width),
        *(Block(4 * width) for _ in range(blocks)),
        *after(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, output_padding=1), 2 * width),
        *after(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1), width),
        nn.ReflectionPad2d(3),
        nn.Conv2d(width, channels, 7),
        nn.Tanh(),
    )


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, 11_365_633),
        ({"blocks": 6}, 7_825_153),
        ({"channels": 3}, 11_378_179),
        ({"inert_bias": False}, 11_365_633 - (64 + 128 + 256 + 18 * 256 + 128 + 64)),
    ],
)
def test_parameter_counts(keywords, expected):
    with torch.device("meta"):
        assert count(ResnetGenerator(size=256, **keywords)) == expected


def test_activation_shapes():
    with torch.device("meta"):
        generator = ResnetGenerator(size=256)
        found = []
        for layer in (*generator.stem, *generator.downs, *generator.blocks, *generator.ups,
                      *generator.head):  # fmt: skip
            layer.register_forward_hook(lambda layer, _, y: found.append((type(layer), y.shape)))
        generator(torch.zeros(1, 1, 256, 256))
    assert [tuple(shape) for kind, shape in found if kind is not FusedInstanceNorm2d] == [
        (1, 64, 256, 256), (1, 128, 128, 128), (1, 256, 64, 64),
        *[(1, 256, 64, 64)] * 9,
        (1, 128, 128, 128), (1, 64, 256, 256), (1, 1, 256, 256), (1, 1, 256, 256),
    ]  # fmt: skip


def test_every_activation_behind_a_norm_is_fused():
    with torch.device("meta"):
        layers = list(ResnetGenerator(size=256).modules())
    fused = [layer.activation for layer in layers if isinstance(layer, FusedInstanceNorm2d)]
    assert fused == ["relu"] * 3 + ["relu", "none"] * 9 + ["relu"] * 2
    assert not [layer for layer in layers if isinstance(layer, nn.InstanceNorm2d | nn.ReLU)]


@pytest.mark.parametrize(("channels", "dropout"), [(1, 0.0), (3, 0.0), (1, 0.5)])
def test_equals_a_twin_of_torchs_layers(channels, dropout):
    generator = small(channels=channels, dropout=dropout)
    plain = twin(channels, 4, 2, dropout)
    values = generator.state_dict().values()
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    x = slices(channels)
    torch.manual_seed(2)  # the same dropout in both
    ours = generator(x)
    torch.manual_seed(2)
    torch.testing.assert_close(ours, plain(x), rtol=0, atol=1e-4)
    assert ours.shape == x.shape
    assert ours.std() > 0.1


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


@pytest.mark.parametrize("size", [8, 12, 64])
def test_other_sizes(size):
    x = slices(size=size)
    came = small(size=size)(x)
    assert came.shape == x.shape
    assert came.isfinite().all()


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        (
            {"size": 4},
            "ResnetGenerator: expected a size that is a multiple of 4, at least 8",
        ),
        ({"size": 30}, "multiple of 4, at least 8, got 30"),
        ({"blocks": 0}, "ResnetGenerator: expected at least 1 block, got 0"),
        ({"dropout": 1.5}, "dropout probability has to be between 0 and 1, but got 1.5"),
    ],
)
def test_refusals(keywords, text):
    with pytest.raises(ValueError, match=text):
        ResnetGenerator(**{"size": 16} | keywords)


def test_initialise():
    generator = ResnetGenerator(size=16, width=16, blocks=2)
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
    facts = GeneratorFacts("translate", "test", (16, 16))
    generator = small().eval()
    graph = build_graph(generator, facts)
    check_graph(graph, facts)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    x = slices(batch=3)
    (came,) = session.run(None, {"source": x.numpy()})
    np.testing.assert_allclose(came, generator(x).detach().numpy(), rtol=0, atol=1e-4)
