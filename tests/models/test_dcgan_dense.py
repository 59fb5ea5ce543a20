"""DCGAN with a dense layer: counts by hand, shapes of every layer, initial weights, export."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from fastmrigan.export.onnx import GeneratorFacts, build_graph, check_graph
from fastmrigan.models.dcgan_dense import DenseDcganDiscriminator, DenseDcganGenerator
from fastmrigan.ops.strided_conv import StridedConv2d, StridedConvTranspose2d

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def shapes(network, x):
    """Output of the dense layer and of every convolution."""
    found = []
    hooks = [
        layer.register_forward_hook(lambda _, __, y: found.append(tuple(y.shape)))
        for layer in network.modules()
        if isinstance(layer, WEIGHTED)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return found


def test_parameter_counts():
    with torch.device("meta"):
        generator, discriminator = DenseDcganGenerator(), DenseDcganDiscriminator()
    ups = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    dense = 100 * 16_384 + 16_384
    assert count(generator) == 12_800_897
    assert count(generator) == (
        dense + 2 * 1024 + sum(a * b * 16 + 2 * b for a, b in ups) + 64 * 16 + 1
    )
    assert count(discriminator) == 11_160_513
    assert count(discriminator) == (
        16 * 64 + 64 + sum(a * b * 16 + a for a, b in ups) + 1024 * 16 + 1
    )


def test_shapes_of_every_layer():
    generator, discriminator = DenseDcganGenerator(width=4), DenseDcganDiscriminator(width=4)
    assert shapes(generator, torch.rand(2, 100)) == [
        (2, 1024), (2, 32, 8, 8), (2, 16, 16, 16), (2, 8, 32, 32), (2, 4, 64, 64), (2, 1, 128, 128)
    ]  # fmt: skip
    assert shapes(discriminator, torch.rand(2, 1, 128, 128)) == [
        (2, 4, 64, 64), (2, 8, 32, 32), (2, 16, 16, 16), (2, 32, 8, 8), (2, 64, 4, 4), (2, 1, 1, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "channels", "batch"), [(16, 1, 2), (32, 3, 3), (128, 3, 2)])
def test_other_sizes(size, channels, batch):
    generator = DenseDcganGenerator(size=size, channels=channels, latent=8, width=4)
    slices = generator(torch.rand(batch, 8) * 2 - 1)
    assert slices.shape == (batch, channels, size, size)
    assert slices.abs().max() <= 1
    discriminator = DenseDcganDiscriminator(size=size, channels=channels, width=4)
    assert discriminator(slices).shape == (batch,)


@pytest.mark.parametrize("network", [DenseDcganGenerator, DenseDcganDiscriminator])
def test_size_must_be_a_power_of_two(network):
    with pytest.raises(ValueError, match="power of two of at least 16, got 48"):
        network(size=48)


def test_layers():
    assert DenseDcganGenerator.latent_distribution == "uniform"
    layers = [*DenseDcganGenerator(width=4).layers, *DenseDcganDiscriminator(width=4).layers]
    assert all(layer.negative_slope == 0.2 for layer in layers if isinstance(layer, nn.LeakyReLU))
    kinds = [type(layer) for layer in DenseDcganGenerator(width=4).layers]
    up = [StridedConvTranspose2d, nn.BatchNorm2d, nn.LeakyReLU]
    assert kinds == [*up[1:], *up * 4, StridedConvTranspose2d, nn.Tanh]
    kinds = [type(layer) for layer in DenseDcganDiscriminator(width=4).layers]
    assert kinds == [StridedConv2d, nn.LeakyReLU] * 5 + [nn.Conv2d]


def test_initial_weights():
    torch.manual_seed(0)
    for network in (
        DenseDcganGenerator(width=8, latent=16),
        DenseDcganDiscriminator(size=32, width=32),
    ):
        network.initialise()
        for layer in network.modules():
            if not isinstance(layer, (*WEIGHTED, nn.BatchNorm2d)):
                continue
            weight, centre = layer.weight, 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
            n = weight.numel()
            assert abs(weight.mean() - centre) < 5 * 0.02 / math.sqrt(n)
            assert abs(weight.std() - 0.02) < 5 * 0.02 / math.sqrt(2 * n)
            assert layer.bias is None or not layer.bias.any()


def small():
    torch.manual_seed(0)
    networks = (
        DenseDcganGenerator(size=16, latent=8, width=4),
        DenseDcganDiscriminator(size=16, width=4),
    )
    for network in networks:
        network.initialise()
    return networks


def test_gradients_reach_every_parameter():
    generator, discriminator = small()
    discriminator(generator(torch.rand(4, 8) * 2 - 1)).sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


def grown(network):
    """With weights so large that the output is not nearly nothing, which anything agrees with."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    return network


def test_channels_last_and_bfloat16_agree():
    generator, discriminator = map(grown, small())
    latents = torch.rand(4, 8) * 2 - 1
    made = generator(latents)
    judged = discriminator(made)
    assert made.std() > 0.3
    with torch.autocast("cpu", torch.bfloat16):
        half = generator(latents)
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), made, atol=0.05, rtol=0.05)
        torch.testing.assert_close(
            discriminator(made).float(), judged, atol=judged.abs().max().item() / 20, rtol=0.05
        )
    for network in (generator, discriminator):
        network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(generator(latents), made)
    torch.testing.assert_close(discriminator(made), judged)


def test_onnx():
    generator = grown(small()[0])
    generator(torch.rand(64, 8))  # so that the stored statistics are not the identity
    generator.eval()
    facts = GeneratorFacts("sample", "test", (16, 16), latent_size=8)
    graph = build_graph(generator, facts)
    check_graph(graph, facts)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for batch in (1, 3):
        latents = torch.rand(batch, 8) * 2 - 1
        (got,) = session.run(None, {"latent": latents.numpy()})
        with torch.inference_mode():
            expected = generator(latents).numpy()
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
