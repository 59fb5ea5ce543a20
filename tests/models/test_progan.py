"""Progressive GAN: the published counts, the fade, the norms by hand, and WGAN-GP's derivatives."""

import itertools
import math

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmrigan.export.onnx import GeneratorFacts, build_graph, check_graph
from fastmrigan.models.progan import (
    EqualisedConv2d,
    EqualisedProjection,
    ProganDiscriminator,
    ProganGenerator,
    feature_maps,
    minibatch_deviation,
    pixel_norm,
    stages,
)

SMALL = {"size": 16, "width": 6, "base": 16}  # 6, 4, 2 feature maps
TABLE_2 = [512, 512, 512, 512, 256, 128, 64, 32, 16]  # the paper's, 4x4 to 1024x1024


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def pair(latent=5, **changes):
    torch.manual_seed(0)
    networks = (
        ProganGenerator(latent=latent, **{**SMALL, **changes}),
        ProganDiscriminator(**{**SMALL, **changes}),
    )
    for network in networks:
        network.initialise()
    return networks


def conv(inner, outer, kernel):
    return inner * outer * kernel**2 + outer


def by_the_table(maps, channels):
    """Parameters of table 2's generator and discriminator, every stage's 1x1 included."""
    generator = conv(512, maps[0], 4) + conv(maps[0], maps[0], 3)
    discriminator = conv(maps[0] + 1, maps[0], 3) + conv(maps[0], maps[0], 4) + maps[0] + 1
    for small, large in itertools.pairwise(maps):
        generator += conv(small, large, 3) + conv(large, large, 3)
        discriminator += conv(large, large, 3) + conv(large, small, 3)
    generator += sum(conv(m, channels, 1) for m in maps)
    discriminator += sum(conv(channels, m, 1) for m in maps)
    return generator, discriminator


def test_published_parameter_counts():
    assert by_the_table(TABLE_2, 3) == (23_079_115, 23_087_249)  # the paper's 23.1 M each
    with torch.device("meta"):
        made = [
            network(size=1024, channels=3) for network in (ProganGenerator, ProganDiscriminator)
        ]
    assert tuple(map(count, made)) == (23_079_115, 23_087_249)


@pytest.mark.parametrize(("size", "channels"), [(4, 1), (128, 1), (256, 3)])
def test_parameter_counts_at_other_sizes(size, channels):
    maps = TABLE_2[: int(math.log2(size)) - 1]
    with torch.device("meta"):
        made = [
            network(size=size, channels=channels)
            for network in (ProganGenerator, ProganDiscriminator)
        ]
    assert tuple(map(count, made)) == by_the_table(maps, channels)


def test_stages_and_feature_maps():
    assert [stages(size) for size in (4, 8, 128, 256, 1024)] == [1, 2, 6, 7, 9]
    assert [feature_maps(stage) for stage in range(9)] == TABLE_2
    assert [feature_maps(stage, 6, 16) for stage in range(3)] == [6, 4, 2]


@pytest.mark.parametrize("stage", [0, 1, 2, None])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (4, 3)])
def test_shapes(stage, alpha, batch, channels):
    generator, discriminator = pair(channels=channels)
    side = {0: 4, 1: 8, 2: 16, None: 16}[stage]
    slices = generator(torch.randn(batch, 5), stage, alpha)
    assert slices.shape == (batch, channels, side, side)
    assert discriminator(slices, stage, alpha).shape == (batch,)


def shapes(network, *arguments):
    """Output of every convolution in the order of use: (channels, side)."""
    found = []
    hooks = [
        layer.register_forward_hook(lambda _, __, y: found.append((y.shape[1], y.shape[-1])))
        for layer in network.modules()
        if isinstance(layer, EqualisedConv2d | EqualisedProjection)
    ]
    network(*arguments)
    for hook in hooks:
        hook.remove()
    return found


def test_shapes_of_every_layer_and_no_second_branch_at_alpha_1():
    generator, discriminator = pair()
    alone = [(6, 4), (6, 4), (4, 8), (4, 8), (2, 16), (2, 16), (1, 16)]
    assert shapes(generator, torch.randn(2, 5)) == alone
    assert shapes(generator, torch.randn(2, 5), 2, 0.5) == [*alone, (1, 8)]
    assert shapes(generator, torch.randn(2, 5), 1) == [*alone[:4], (1, 8)]
    first, rest = [(2, 16), (2, 16), (4, 16)], [(4, 8), (6, 8), (6, 4), (6, 1), (1, 1)]
    assert shapes(discriminator, torch.randn(2, 1, 16, 16)) == first + rest
    assert shapes(discriminator, torch.randn(2, 1, 16, 16), 2, 0.5) == [*first, (4, 8), *rest]


def plain(layer, x, padding=1):
    """He's scale, convolution, LeakyReLU, from the layer's stored weights."""
    scale = math.sqrt(2 / layer.weight[0].numel())
    return F.leaky_relu(F.conv2d(x, layer.weight * scale, layer.bias, padding=padding), 0.2)


def test_the_generator_against_plain_functions():
    generator = pair(size=8)[0]

    def norm(x):
        return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()

    project, *layers = [m for m in generator.blocks.modules() if hasattr(m, "weight")]
    latents = torch.randn(2, 5)
    weight = project.weight.flatten(1) * math.sqrt(2 / (5 * 16))  # [5, 6 * 16]
    x = (norm(latents) @ weight).reshape(2, 6, 4, 4) + project.bias[:, None, None]
    x = norm(plain(layers[0], norm(F.leaky_relu(x, 0.2))))
    x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    x = norm(plain(layers[2], norm(plain(layers[1], x))))
    last = generator.to_slices[1]
    expected = F.conv2d(x, last.weight / math.sqrt(last.weight[0].numel()), last.bias)
    torch.testing.assert_close(generator(latents), expected)


def test_the_discriminator_against_plain_functions():
    discriminator = pair(size=8)[1]
    slices = torch.randn(3, 1, 8, 8)
    x = plain(discriminator.from_slices[1][0], slices, 0)
    for layer in (m for m in discriminator.blocks[0] if hasattr(m, "weight")):
        x = plain(layer, x)
    x = x.reshape(3, 6, 4, 2, 4, 2).mean(dim=(3, 5))
    deviation = (x.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
    x = torch.cat((x, deviation.expand(3, 1, 4, 4)), dim=1)
    conv, dense, logit = (m for m in discriminator.tail if hasattr(m, "weight"))
    x = plain(dense, plain(conv, x), 0).flatten(1)
    expected = x @ logit.weight.flatten() / math.sqrt(6) + logit.bias
    torch.testing.assert_close(discriminator(slices), expected)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_fade_begins_where_the_stage_before_ended_and_ends_at_the_stage(stage):
    generator, discriminator = pair()
    latents = torch.randn(4, 5)
    before = F.interpolate(generator(latents, stage - 1), scale_factor=2)
    after = generator(latents, stage)
    slices = torch.randn(4, 1, 4 << stage, 4 << stage)
    judged_before = discriminator(F.avg_pool2d(slices, 2), stage - 1)
    judged_after = discriminator(slices, stage)
    assert not torch.allclose(before, after, atol=1e-2)
    assert not torch.allclose(judged_before, judged_after, atol=1e-2)
    for alpha in (0.0, 0.25, 1.0):
        expected = (1 - alpha) * before + alpha * after
        torch.testing.assert_close(generator(latents, stage, alpha), expected)
    torch.testing.assert_close(discriminator(slices, stage, 0.0), judged_before)
    torch.testing.assert_close(discriminator(slices, stage, 1.0), judged_after)
    torch.testing.assert_close(
        discriminator(slices, stage, 1 - 1e-6), judged_after, atol=1e-4, rtol=1e-4
    )


def test_pixel_norm_against_a_loop():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = torch.empty_like(x)
    for n, h, w in itertools.product(range(2), range(4), range(5)):
        vector = x[n, :, h, w]
        expected[n, :, h, w] = vector / math.sqrt(sum(v.item() ** 2 for v in vector) / 3 + 1e-8)
    torch.testing.assert_close(pixel_norm(x), expected)
    torch.testing.assert_close(pixel_norm(x.bfloat16()).double(), expected, atol=2e-2, rtol=2e-2)
    assert not pixel_norm(torch.zeros(1, 3, 1, 1)).any()


@pytest.mark.parametrize(
    ("batch", "group"), [(1, 1), (2, 2), (3, 3), (4, 4), (8, 4), (6, 3), (10, 2), (5, 1)]
)
def test_minibatch_deviation_against_numpy(batch, group):
    x = torch.randn(batch, 3, 4, 4, dtype=torch.float64)
    got = minibatch_deviation(x)
    torch.testing.assert_close(got[:, :3], x)
    for first in range(0, batch, group):
        slices = x[first : first + group].numpy()
        expected = np.sqrt(slices.var(axis=0) + 1e-8).mean()  # var divides by the group
        np.testing.assert_allclose(got[first : first + group, 3].numpy(), expected)


def test_real_and_fake_slices_in_one_batch_keep_apart():
    _, discriminator = pair()
    real, fake = torch.randn(4, 1, 16, 16), 3 * torch.randn(8, 1, 16, 16)
    together = discriminator(torch.cat((real, fake)))
    torch.testing.assert_close(together, torch.cat((discriminator(real), discriminator(fake))))


def test_equalised_layers_against_the_plain_ones():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 5)
    layer = EqualisedConv2d(6, 4, 3, 1)
    scaled = layer.weight * math.sqrt(2 / (6 * 9))
    torch.testing.assert_close(layer(x), F.conv2d(x, scaled, layer.bias, padding=1))
    linear = EqualisedConv2d(6, 4, 1, gain=1.0)
    torch.testing.assert_close(linear(x), F.conv2d(x, linear.weight / math.sqrt(6), linear.bias))
    # The table's 4x4 convolution of a padded pixel reads the kernel from its far corner.
    project = EqualisedProjection(6, 4)
    kernel = project.weight.transpose(0, 1).flip(2, 3) * math.sqrt(2 / (6 * 16))
    latents = torch.randn(2, 6, 1, 1)
    expected = F.conv2d(latents, kernel, project.bias, padding=3)
    torch.testing.assert_close(project(latents), expected)


def test_initial_weights_and_what_they_make():
    generator, discriminator = pair(width=64, base=256, latent=64)  # 64, 64, 32
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any()
            else:
                n = parameter.numel()
                assert abs(parameter.mean()) < 5 / math.sqrt(n), name
                assert abs(parameter.std() - 1) < 5 / math.sqrt(2 * n), name
    again = pair(width=64, base=256, latent=64)
    assert all(map(torch.equal, generator.parameters(), again[0].parameters()))
    # He's constant keeps the size of what passes: about 1 in, about 1 out.
    assert 0.3 < generator(torch.randn(32, 64)).square().mean().sqrt() < 3
    assert 0.3 < discriminator(torch.randn(32, 1, 16, 16)).square().mean().sqrt() < 3


def used_at(network, stage, alpha):
    """Names of the parameters that have to learn at a stage."""
    slices = {stage} if alpha == 1 else {stage, stage - 1}
    used = set()
    for name, _ in network.named_parameters():
        room, number = name.split(".")[:2]
        if room in ("to_slices", "from_slices"):
            wanted = int(number) in slices
        elif isinstance(network, ProganGenerator):
            wanted = int(number) <= stage
        else:
            wanted = room == "tail" or int(number) < stage
        used |= {name} if wanted else set()
    return used


@pytest.mark.parametrize(("stage", "alpha"), [(0, 1.0), (1, 0.5), (2, 1.0), (2, 0.5)])
def test_gradients_reach_every_parameter_in_use(stage, alpha):
    generator, discriminator = pair()
    discriminator(generator(torch.randn(4, 5), stage, alpha), stage, alpha).sum().backward()
    for network in (generator, discriminator):
        reached = {name for name, p in network.named_parameters() if p.grad is not None}
        assert reached == used_at(network, stage, alpha)
        for name, parameter in network.named_parameters():
            assert parameter.grad is None or parameter.grad.any(), name


def penalty(discriminator, slices, stage=None, alpha=1.0):
    """WGAN-GP's gradient penalty around norm 1."""
    logits = discriminator(slices, stage, alpha)
    (gradient,) = torch.autograd.grad(logits.sum(), slices, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@pytest.mark.parametrize(("stage", "alpha"), [(0, 1.0), (2, 0.5), (2, 1.0)])
def test_the_gradient_penalty_reaches_the_weights(stage, alpha):
    discriminator = pair()[1].double()
    slices = torch.randn(4, 1, 4 << stage, 4 << stage, dtype=torch.float64, requires_grad=True)
    penalty(discriminator, slices, stage, alpha).backward()
    weights = {
        name: p
        for name, p in discriminator.named_parameters()
        if name in used_at(discriminator, stage, alpha) and name.endswith("weight")
    }
    for name, weight in weights.items():
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name
    # One weight of each layer against the difference quotient.
    for name, weight in weights.items():
        flat, step = weight.data.view(-1), 1e-6
        values = []
        for move in (step, -2 * step):
            flat[0] += move
            values.append(penalty(discriminator, slices, stage, alpha).item())
        flat[0] += step
        quotient = (values[0] - values[1]) / (2 * step)
        assert weight.grad.view(-1)[0].item() == pytest.approx(quotient, rel=1e-4, abs=1e-7), name


def test_second_derivatives_of_the_norms():
    torch.manual_seed(0)
    x = torch.randn(4, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(minibatch_deviation, x)
    assert torch.autograd.gradgradcheck(pixel_norm, x)


def test_equal_slices_and_black_ones_give_finite_gradients():
    generator, discriminator = pair()
    for slices in (torch.randn(1, 1, 16, 16).repeat(4, 1, 1, 1), torch.zeros(4, 1, 16, 16)):
        slices.requires_grad_()
        penalty(discriminator, slices).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in discriminator.parameters())
        assert slices.grad.isfinite().all()
    latents = torch.zeros(4, 5, requires_grad=True)
    generator(latents).square().sum().backward()
    assert latents.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in generator.parameters())


def test_channels_last_and_bfloat16_agree():
    generator, discriminator = pair()
    latents, slices = torch.randn(4, 5), torch.randn(4, 1, 16, 16)
    made, judged = generator(latents, 2, 0.5), discriminator(slices, 2, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert generator(latents, 2, 0.5).dtype == torch.bfloat16
        torch.testing.assert_close(generator(latents, 2, 0.5).float(), made, atol=0.1, rtol=0.1)
        half = discriminator(slices, 2, 0.5)
        torch.testing.assert_close(half.float(), judged, atol=0.1, rtol=0.1)
    for network in (generator, discriminator):
        network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(generator(latents, 2, 0.5), made)
    slices = slices.to(memory_format=torch.channels_last)
    torch.testing.assert_close(discriminator(slices, 2, 0.5), judged)


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda g, d: stages(48), "a power of two of at least 4, got 48"),
        (lambda g, d: stages(2), "a power of two of at least 4, got 2"),
        (lambda g, d: pair(size=64), "at size 64, base of at least 32, got width 6 and base 16"),
        (lambda g, d: pair(width=0), "ProganGenerator: expected width of at least 1"),
        (lambda g, d: g(torch.zeros(1, 5), 3), "ProganGenerator: expected a stage from 0 to 2"),
        (lambda g, d: g(torch.zeros(1, 5), -1), "a stage from 0 to 2, got -1"),
        (lambda g, d: g(torch.zeros(1, 5), 1, 1.5), "alpha from 0 to 1, got 1.5"),
        (lambda g, d: g(torch.zeros(1, 5), 1, math.nan), "alpha from 0 to 1, got nan"),
        (
            lambda g, d: d(torch.zeros(1, 1, 16, 16), 1),
            r"at stage 1 expected slices of 8x8, got \[1, 1, 16, 16\]",
        ),
    ],
)
def test_errors(use, text):
    with pytest.raises(ValueError, match=text):
        use(*pair())


def test_output_is_linear():
    generator, _ = pair()
    with torch.no_grad():
        generator.to_slices[2].bias.fill_(7.0)
    assert generator(torch.randn(2, 5)).mean() > 3  # tanh could not
    assert not any(isinstance(layer, nn.Tanh) for layer in generator.modules())


def test_onnx_of_the_last_stage():
    generator = pair()[0].eval()
    facts = GeneratorFacts("sample", "test", (16, 16), latent_size=5)
    graph = build_graph(generator, facts)
    check_graph(graph, facts)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for batch in (1, 3):
        latents = torch.randn(batch, 5)
        (got,) = session.run(None, {"latent": latents.numpy()})
        with torch.inference_mode():
            np.testing.assert_allclose(got, generator(latents).numpy(), rtol=1e-4, atol=1e-5)
