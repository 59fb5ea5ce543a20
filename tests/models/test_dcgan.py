"""DCGAN: parameter counts, shapes, initial weights, and one loss on fixed inputs."""

import math

import pytest
import torch
from torch import nn

from fastmrigan.models.dcgan import DcganDiscriminator, DcganGenerator
from fastmrigan.ops.strided_conv import StridedConv2d, StridedConvTranspose2d
from fastmrigan.training.losses import discriminator_loss, generator_loss


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def shapes(network, x):
    """Shape behind every layer of the network's Sequential."""
    found = []
    for layer in network.layers:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            found.append(tuple(x.shape))
    return found


def test_parameter_counts():
    assert count(DcganGenerator()) == 3_574_656
    assert count(DcganDiscriminator()) == 2_763_520


def test_activation_shapes():
    generator, discriminator = DcganGenerator().eval(), DcganDiscriminator().eval()
    assert shapes(generator, torch.randn(2, 100, 1, 1)) == [
        (2, 512, 4, 4), (2, 256, 8, 8), (2, 128, 16, 16), (2, 64, 32, 32), (2, 1, 64, 64)
    ]  # fmt: skip
    assert shapes(discriminator, torch.randn(2, 1, 64, 64)) == [
        (2, 64, 32, 32), (2, 128, 16, 16), (2, 256, 8, 8), (2, 512, 4, 4), (2, 1, 1, 1)
    ]  # fmt: skip
    slices = generator(torch.randn(2, 100))
    assert slices.shape == (2, 1, 64, 64)
    assert slices.abs().max() <= 1
    assert discriminator(slices).shape == (2,)


@pytest.mark.parametrize("size", [16, 32, 128])
def test_other_sizes(size):
    generator = DcganGenerator(size=size, latent=8, width=4)
    slices = generator(torch.randn(3, 8))
    assert slices.shape == (3, 1, size, size)
    assert DcganDiscriminator(size=size, width=4)(slices).shape == (3,)


@pytest.mark.parametrize("size", [0, 8, 48])
def test_size_must_be_a_power_of_two(size):
    with pytest.raises(ValueError, match=f"power of two of at least 16, got {size}"):
        DcganGenerator(size=size)


def test_layers():
    kinds = [type(layer) for layer in DcganGenerator().layers]
    inner = [StridedConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 3
    first = [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds == [*first, *inner, StridedConvTranspose2d, nn.Tanh]
    kinds = [type(layer) for layer in DcganDiscriminator().layers]
    inner = [StridedConv2d, nn.BatchNorm2d, nn.LeakyReLU] * 3
    assert kinds == [StridedConv2d, nn.LeakyReLU, *inner, nn.Conv2d]
    layers = [*DcganGenerator().layers, *DcganDiscriminator().layers]
    assert all(layer.bias is None for layer in layers if hasattr(layer, "kernel_size"))
    assert all(layer.momentum == 0.1 for layer in layers if isinstance(layer, nn.BatchNorm2d))
    assert all(layer.negative_slope == 0.2 for layer in layers if isinstance(layer, nn.LeakyReLU))


def test_initial_weights():
    torch.manual_seed(0)
    for network in (DcganGenerator(), DcganDiscriminator()):
        network.initialise()
        for layer in network.layers:
            if not hasattr(layer, "weight"):
                continue
            weight = layer.weight.detach()
            centre = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
            # five standard errors of the mean and of the standard deviation
            assert abs(weight.mean() - centre) < 5 * 0.02 / math.sqrt(weight.numel())
            assert abs(weight.std() - 0.02) < 5 * 0.02 / math.sqrt(2 * weight.numel())
            assert layer.bias is None or not layer.bias.any()


def test_losses_against_the_formula():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    sigmoid_real, sigmoid_fake = torch.sigmoid(real), torch.sigmoid(fake)
    expected = -(sigmoid_real.log().mean() + (1 - sigmoid_fake).log().mean())
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    torch.testing.assert_close(generator_loss(fake), -sigmoid_fake.log().mean())
    smoothed = -(0.9 * sigmoid_real.log() + 0.1 * (1 - sigmoid_real).log()).mean()
    torch.testing.assert_close(
        discriminator_loss(real, fake, real_label=0.9), smoothed - (1 - sigmoid_fake).log().mean()
    )


def test_losses_are_float32_and_survive_large_logits():
    loss = discriminator_loss(
        torch.tensor([-200.0], dtype=torch.bfloat16), torch.tensor([200.0], dtype=torch.bfloat16)
    )
    assert loss.dtype == torch.float32
    assert loss.item() == 400.0


def test_one_loss_value_on_fixed_inputs():
    """Weights from a formula, not from an RNG, so that the values hold on every torch."""
    generator, discriminator = DcganGenerator(), DcganDiscriminator()
    with torch.no_grad():
        for network in (generator, discriminator):
            for parameter in network.parameters():
                n = torch.arange(parameter.numel(), dtype=torch.float64)
                wave = 0.02 * torch.sin(n * 0.7 + parameter.dim())
                parameter.copy_(wave.reshape(parameter.shape) + (parameter.dim() == 1))
    latents = torch.sin(torch.arange(400.0) * 1.3).reshape(4, 100)
    real = torch.cos(torch.arange(4 * 64 * 64.0) * 0.01).reshape(4, 1, 64, 64)
    fake = generator(latents)
    on_real, on_fake = discriminator(real), discriminator(fake)
    values = [
        discriminator_loss(on_real, on_fake).item(),
        generator_loss(on_fake).item(),
        fake.std().item(),
    ]
    assert values == pytest.approx([1.3268175, 0.8186042, 0.5713738], rel=1e-3)
