"""Mahajan's networks: the tutorial's counts, shapes of every layer, and the dead 1x1 bottleneck."""

import itertools
import math

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmrigan.export.onnx import GeneratorFacts, build_graph, check_graph
from fastmrigan.models.t1t2_unet import T1T2Discriminator, T1T2UnetGenerator
from fastmrigan.ops import FusedInstanceNorm2d

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def ready(network):
    torch.manual_seed(0)
    network.initialise()
    return network


def generator_count(channels, downs, width):
    """4x4 kernels, scale and offset of each norm; the last layer alone has a bias."""
    widths = [width * 2 ** min(i, 3) for i in range(downs + 1)]
    total = 16 * channels * widths[0]
    for inner, outer in itertools.pairwise(widths):
        total += 16 * inner * outer + 2 * outer  # a down, or the bottleneck
    into = widths[-1]
    for outer in reversed(widths[:-1]):
        total += 16 * into * outer + 2 * outer
        into = 2 * outer
    return total + 16 * into * channels + channels


def discriminator_count(channels, downs, width):
    total = 16 * channels * width
    for i in range(1, downs + 1):
        total += 16 * (width << (i - 1)) * (width << i) + 2 * (width << i)
    return total + 16 * (width << downs) + 1


def test_the_tutorials_parameter_counts():
    """The pix2pix tutorial prints 54,425,859, of which 10,880 are batch norm's running statistics,
    and for its discriminator of pairs 2,768,641 trainable: 3 * 64 * 16 more than of single ones."""
    with torch.device("meta"):
        generator, discriminator = T1T2UnetGenerator(channels=3), T1T2Discriminator(channels=3)
    assert count(generator) == generator_count(3, 7, 64) == 54_425_859 - 10_880
    assert count(discriminator) == discriminator_count(3, 3, 64) == 2_768_641 - 3 * 64 * 16


@pytest.mark.parametrize(
    ("size", "channels", "downs", "width"),
    [(128, 1, 4, 64), (256, 1, 4, 64), (256, 1, 7, 64), (256, 3, 7, 8)],
)
def test_parameter_counts_of_the_variants(size, channels, downs, width):
    options = {"size": size, "channels": channels, "width": width}
    with torch.device("meta"):
        generator = T1T2UnetGenerator(downs=downs, **options)
        discriminator = T1T2Discriminator(downs=2 if downs == 4 else 3, **options)
    assert count(generator) == generator_count(channels, downs, width)
    assert count(discriminator) == discriminator_count(channels, 2 if downs == 4 else 3, width)


def shapes(network, x):
    """(channels, side) behind every convolution."""
    found = []
    hooks = [
        layer.register_forward_hook(lambda _, __, y: found.append((y.shape[1], y.shape[-1])))
        for layer in network.modules()
        if isinstance(layer, CONVOLUTIONS)
    ]
    y = network(x)
    for hook in hooks:
        hook.remove()
    return found, tuple(y.shape)


@pytest.mark.parametrize(
    ("size", "downs", "down_shapes", "up_shapes"),
    [
        (128, 4, [(2, 64), (4, 32), (8, 16), (16, 8), (16, 4)],
         [(16, 8), (8, 16), (4, 32), (2, 64), (1, 128)]),
        (256, 4, [(2, 128), (4, 64), (8, 32), (16, 16), (16, 8)],
         [(16, 16), (8, 32), (4, 64), (2, 128), (1, 256)]),
        (256, 7, [(2, 128), (4, 64), (8, 32), (16, 16), (16, 8), (16, 4), (16, 2), (16, 1)],
         [(16, 2), (16, 4), (16, 8), (16, 16), (8, 32), (4, 64), (2, 128), (1, 256)]),
    ],
)  # fmt: skip
def test_shapes_of_every_layer_of_the_generator(size, downs, down_shapes, up_shapes):
    generator = ready(T1T2UnetGenerator(size=size, downs=downs, width=2))
    found, made = shapes(generator, torch.randn(1, 1, size, size))
    assert found == down_shapes + up_shapes
    assert made == (1, 1, size, size)


@pytest.mark.parametrize(
    ("size", "downs", "expected"),
    [
        (128, 2, [(2, 64), (4, 32), (8, 31), (1, 30)]),
        (256, 2, [(2, 128), (4, 64), (8, 63), (1, 62)]),
        (256, 3, [(2, 128), (4, 64), (8, 32), (16, 31), (1, 30)]),
    ],
)
def test_shapes_of_every_layer_of_the_discriminator(size, downs, expected):
    discriminator = ready(T1T2Discriminator(size=size, downs=downs, width=2))
    found, judged = shapes(discriminator, torch.randn(2, 1, size, size))
    assert found == expected
    assert judged == (2, *expected[-1], expected[-1][1])


def reference(generator, x):
    """The tutorial's order (norm, dropout, ReLU), from torch's own functions, in evaluation."""

    def norm(y, layer):
        mean = y.mean(dim=(2, 3), keepdim=True)
        variance = y.var(dim=(2, 3), keepdim=True, unbiased=False)
        y = (y - mean) / (variance + 1e-5).sqrt()
        return y * layer.weight[:, None, None] + layer.bias[:, None, None]

    skips = []
    for i, (conv, after) in enumerate([*generator.downs, generator.bottleneck]):
        x = F.conv2d(x, conv.weight, None, 2, 1)
        x = F.leaky_relu(norm(x, after) if i else x, 0.3)
        skips.append(x)
    skips.pop()
    for up in generator.ups:
        x = F.relu(norm(F.conv_transpose2d(x, up.conv.weight, None, 2, 1), up.norm))
        x = torch.cat((x, skips.pop()), dim=1)
    return F.conv_transpose2d(x, generator.last.weight, generator.last.bias, 2, 1).tanh()


@pytest.mark.parametrize(("size", "downs"), [(32, 4), (16, 3)])
def test_values_against_plain_functions(size, downs):
    generator = ready(T1T2UnetGenerator(size=size, downs=downs, width=4)).eval()
    with torch.no_grad():
        for norm in generator.modules():
            if isinstance(norm, FusedInstanceNorm2d):
                nn.init.normal_(norm.bias)
        x = torch.randn(2, 1, size, size)
        torch.testing.assert_close(generator(x), reference(generator, x), atol=1e-4, rtol=1e-4)


def test_layers():
    generator = T1T2UnetGenerator(width=2)
    dropped = [[type(m) for m in up].count(nn.Dropout) for up in generator.ups]
    assert dropped == [1, 1, 1, 0, 0, 0, 0]
    assert all(up.dropout.p == 0.5 for up in generator.ups[:3])
    undropped = T1T2UnetGenerator(width=2, dropout=0.0)
    assert not any(isinstance(m, nn.Dropout) for m in undropped.modules())
    for network in (generator, T1T2Discriminator(width=2)):
        norms = [m for m in network.modules() if isinstance(m, FusedInstanceNorm2d)]
        convolutions = [m for m in network.modules() if isinstance(m, CONVOLUTIONS)]
        assert len(norms) == len(convolutions) - 2  # not behind the first and the last
        assert all(norm.affine for norm in norms)
        assert [m for m in convolutions if m.bias is not None] == [network.last]
        plain = [m for m in network.modules() if isinstance(m, nn.LeakyReLU)]
        assert [m.negative_slope for m in plain] == [0.3]


@pytest.mark.parametrize("activation", ["leaky_relu", "relu"])
@pytest.mark.parametrize("network", [T1T2UnetGenerator, T1T2Discriminator])
def test_activation(network, activation):
    made = network(width=2, activation=activation)
    norms = [m for m in made.modules() if isinstance(m, FusedInstanceNorm2d)]
    ups = len(getattr(made, "ups", []))
    assert [m.activation for m in norms] == [activation] * (len(norms) - ups) + ["relu"] * ups
    plain = nn.ReLU if activation == "relu" else nn.LeakyReLU
    assert sum(type(m) is plain for m in made.modules()) == 1


def test_initial_weights():
    for network in (ready(T1T2UnetGenerator(width=16)), ready(T1T2Discriminator(width=16))):
        for layer in network.modules():
            if not isinstance(layer, (*CONVOLUTIONS, FusedInstanceNorm2d)):
                continue
            weight = layer.weight
            centre = 1.0 if isinstance(layer, FusedInstanceNorm2d) else 0.0
            n = weight.numel()
            assert abs(weight.mean() - centre) < 5 * 0.02 / math.sqrt(n)
            assert abs(weight.std() - 0.02) < 5 * 0.02 / math.sqrt(2 * n)
            assert layer.bias is None or not layer.bias.any()


def without_gradient(network, loss):
    network.zero_grad()
    loss.backward()
    return {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}


@pytest.mark.parametrize("activation", ["leaky_relu", "relu"])
def test_gradients_reach_every_parameter_where_the_bottleneck_has_pixels(activation):
    generator = ready(
        T1T2UnetGenerator(size=32, downs=3, width=4, activation=activation, dropout=0.2)
    )
    discriminator = ready(T1T2Discriminator(size=32, downs=2, width=4, activation=activation))
    logits = discriminator(generator(torch.randn(2, 1, 32, 32)))
    assert without_gradient(generator, logits.square().sum()) == set()
    assert all(p.grad.any() for p in discriminator.parameters())


@pytest.mark.parametrize("activation", ["leaky_relu", "relu"])
def test_a_bottleneck_of_one_pixel_yields_its_offset_and_never_trains(activation):
    generator = ready(
        T1T2UnetGenerator(size=16, downs=3, width=4, activation=activation, dropout=0)
    )
    yielded = []
    generator.bottleneck.register_forward_hook(lambda _, __, y: yielded.append(y.detach()))
    dead = without_gradient(generator, generator(torch.randn(2, 1, 16, 16)).square().sum())
    assert dead == {
        "bottleneck.0.weight", "bottleneck.1.weight", "bottleneck.1.bias",
        "ups.0.conv.weight", "ups.0.norm.weight", "ups.0.norm.bias",
    }  # fmt: skip
    assert not yielded[-1].any()  # the offsets are 0
    offsets = torch.linspace(0.1, 1, 32)
    with torch.no_grad():
        generator.bottleneck[1].bias.copy_(offsets)
    alive = without_gradient(generator, generator(torch.randn(2, 1, 16, 16)).square().sum())
    torch.testing.assert_close(yielded[-1], offsets.reshape(1, 32, 1, 1).expand(2, -1, -1, -1))
    assert alive == {"bottleneck.0.weight", "bottleneck.1.weight"}  # the offset alone gets through


def test_dropout_is_for_training_alone():
    generator = ready(T1T2UnetGenerator(size=32, downs=3, width=4))
    x = torch.randn(1, 1, 32, 32)
    assert not torch.equal(generator(x), generator(x))
    generator.eval()
    assert torch.equal(generator(x), generator(x))


def test_channels_last_and_bfloat16_agree():
    generator = ready(T1T2UnetGenerator(size=32, downs=3, width=4)).eval()
    discriminator = ready(T1T2Discriminator(size=32, downs=2, width=4))
    x = torch.randn(1, 1, 32, 32)
    made, judged = generator(x), discriminator(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert generator(x).dtype == torch.bfloat16
        torch.testing.assert_close(generator(x).float(), made, atol=0.05, rtol=0.05)
        torch.testing.assert_close(discriminator(x).float(), judged, atol=0.05, rtol=0.05)
    for network in (generator, discriminator):
        network.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(generator(x), made, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(discriminator(x), judged, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: T1T2UnetGenerator(size=128, downs=7), "7 downs .* multiple of 256, got 128"),
        (lambda: T1T2UnetGenerator(size=100, downs=4), "4 downs .* multiple of 32, got 100"),
        (lambda: T1T2UnetGenerator(size=0), "multiple of 256, got 0"),
        (lambda: T1T2UnetGenerator(downs=0), "expected downs of at least 1, got 0"),
        (lambda: T1T2Discriminator(downs=0), "expected downs of at least 1, got 0"),
        (lambda: T1T2Discriminator(size=16), "3 downs expected size of at least 24, got 16"),
        (lambda: T1T2UnetGenerator(activation="elu"), "'leaky_relu' or 'relu', got 'elu'"),
        (lambda: T1T2Discriminator(activation="elu"), "'leaky_relu' or 'relu', got 'elu'"),
    ],
)
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize("size", [16, 32])  # the bottleneck of 16 is one pixel
def test_onnx(size):
    generator = ready(T1T2UnetGenerator(size=size, downs=3, width=4)).eval()
    facts = GeneratorFacts("translate", "test", (size, size))
    graph = build_graph(generator, facts)
    check_graph(graph, facts)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for batch in (1, 3):
        x = torch.randn(batch, 1, size, size)
        (got,) = session.run(None, {"source": x.numpy()})
        with torch.inference_mode():
            np.testing.assert_allclose(got, generator(x).numpy(), rtol=1e-4, atol=1e-5)
