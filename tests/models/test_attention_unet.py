"""Attention U-Net: counts by hand, shapes of every layer and gate, and the gate's own equation."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmrigan.export.onnx import GeneratorFacts, build_graph, check_graph
from fastmrigan.models.attention_unet import AttentionGate, AttentionUnetGenerator
from fastmrigan.ops import FusedInstanceNorm2d

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def ready(**options):
    torch.manual_seed(0)
    generator = AttentionUnetGenerator(**{"size": 32, "units": 3, "width": 4, **options})
    generator.initialise()
    return generator


def grown(generator):
    """With weights so large that the output is not nearly nothing, which anything agrees with."""
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(5)
    return generator


def expected_count(channels, units, width, after):
    """`after`: parameters a channel that follow a 3x3 kernel: batch norm 2, a bias 1, neither 0."""

    def unit(inner, outer):
        return 9 * (inner + outer) * outer + 2 * after * outer

    widths = [width * 2**i for i in range(units)]
    total = sum(unit(a, b) for a, b in zip([channels, *widths[:-1]], widths, strict=True))
    total += unit(widths[-1], 2 * widths[-1])
    for c in widths:
        half = c // 2
        total += 4 * c * half + (2 * c * half + half) + (half + 1)  # W_x, W_g with b_g, psi
        total += 4 * 2 * c * c + c  # the transposed convolution
        total += unit(2 * c, c)
    return total + width * channels + channels


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ({}, 2),
        ({"channels": 3, "size": 128, "width": 8}, 2),
        ({"norm": "instance"}, 1),
        ({"norm": "instance", "inert_bias": False}, 0),
        ({"inert_bias": False}, 2),
        ({"units": 3, "width": 16}, 2),
    ],
)
def test_parameter_counts(options, after):
    with torch.device("meta"):
        made = count(AttentionUnetGenerator(**options))
    assert made == expected_count(
        options.get("channels", 1), options.get("units", 4), options.get("width", 64), after
    )


def test_without_its_gates_it_is_the_common_unet():
    """31,036,481: U-Net of four levels at width 64, one channel to one, batch norm, no biases
    before it, and transposed convolutions, as widely published."""
    with torch.device("meta"):
        generator = AttentionUnetGenerator()
    assert count(generator) == 32_081_925
    assert count(generator) - count(generator.gates) == 31_036_481


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_shapes_of_every_layer(norm):
    generator = ready(size=64, units=4, width=2, norm=norm)
    found = {}
    for name, layer in generator.named_modules():
        if isinstance(layer, CONVOLUTIONS):
            # update returns None, which leaves the output as it is
            layer.register_forward_hook(
                lambda _, __, y, name=name: found.update({name: (y.shape[1], y.shape[-1])})
            )
    y = generator(torch.randn(2, 1, 64, 64))
    assert y.shape == (2, 1, 64, 64)
    assert y.abs().max() <= 1
    second = "2" if norm == "instance" else "3"
    levels = [(2, 64), (4, 32), (8, 16), (16, 8)]
    expected = {}
    for i, level in enumerate(levels):
        expected |= {f"encoding.{i}.0": level, f"encoding.{i}.{second}": level}
    expected |= {"bottleneck.0": (32, 4), f"bottleneck.{second}": (32, 4)}
    for i, (c, side) in enumerate(reversed(levels)):
        inside = (c // 2, side // 2)
        expected |= {f"gates.{i}.of_skip": inside, f"gates.{i}.of_gating": inside}
        expected |= {f"gates.{i}.psi": (1, side // 2), f"ups.{i}": (c, side)}
        expected |= {f"decoding.{i}.0": (c, side), f"decoding.{i}.{second}": (c, side)}
    assert found == {**expected, "last": (1, 64)}


def test_attention_maps():
    generator = ready(size=64, units=4, width=4)
    with torch.no_grad():
        for parameter in generator.gates.parameters():
            parameter.normal_(0, 3)  # so that coefficients reach for both ends
        x = torch.randn(3, 1, 64, 64)
        maps = generator.attention_maps(x)
    assert [tuple(m.shape) for m in maps] == [(3, 1, s, s) for s in (8, 16, 32, 64)]
    for coefficients in maps:
        assert coefficients.min() >= 0
        assert coefficients.max() <= 1
        assert coefficients.max() - coefficients.min() > 0.5


def test_a_gate_against_its_equation():
    torch.manual_seed(0)
    gate = AttentionGate(4, 6)
    skip, gating = torch.randn(2, 4, 8, 8), torch.randn(2, 6, 4, 4)
    got = gate(skip, gating)
    coarse = torch.empty(2, 1, 4, 4)
    for n in range(2):
        for i in range(4):
            for j in range(4):
                patch = skip[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                x = (gate.of_skip.weight * patch).sum(dim=(1, 2, 3))
                g = gate.of_gating.weight[:, :, 0, 0] @ gating[n, :, i, j] + gate.of_gating.bias
                q = gate.psi.weight[0, :, 0, 0] @ (x + g).relu() + gate.psi.bias
                coarse[n, 0, i, j] = 1 / (1 + (-q).exp())
    torch.testing.assert_close(
        got, F.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=False)
    )


def test_a_closed_gate_stops_its_skip():
    generator = ready().eval()
    x = torch.randn(1, 1, 32, 32)
    into = []
    generator.decoding[0].register_forward_pre_hook(lambda _, inputs: into.append(inputs[0]))
    with torch.no_grad():
        generator(x)
        generator.gates[0].psi.bias.fill_(-100.0)
        generator(x)
    opened, closed = into
    c = opened.shape[1] // 2
    assert opened[:, :c].any()
    assert not closed[:, :c].any()
    torch.testing.assert_close(opened[:, c:], closed[:, c:])


def test_layers():
    generator = AttentionUnetGenerator(width=2)
    assert len(generator.encoding) == len(generator.decoding) == len(generator.gates) == 4
    dropped = [[m.p for m in unit if isinstance(m, nn.Dropout)] for unit in generator.decoding]
    assert dropped == [[0.5], [0.5], [0.5], []]
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    assert [type(m) for m in generator.encoding[0]] == kinds
    instance = AttentionUnetGenerator(width=2, norm="instance", dropout=0)
    assert [type(m) for m in instance.decoding[0]] == [nn.Conv2d, FusedInstanceNorm2d] * 2
    norms = [m for m in instance.modules() if isinstance(m, FusedInstanceNorm2d)]
    assert all(m.activation == "relu" and not m.affine for m in norms)


def test_initial_weights():
    generator = ready(width=16)
    for layer in generator.modules():
        if not isinstance(layer, (*CONVOLUTIONS, nn.BatchNorm2d)):
            continue
        weight, centre = layer.weight, 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
        n = weight.numel()
        assert abs(weight.mean() - centre) < 5 * 0.02 / math.sqrt(n)
        assert n < 8 or abs(weight.std() - 0.02) < 5 * 0.02 / math.sqrt(2 * n)
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("options", [{}, {"norm": "instance", "inert_bias": False}])
def test_gradients_reach_every_parameter(options):
    generator = ready(**options)
    generator(torch.randn(2, 1, 32, 32)).square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("channels", [1, 3])
def test_the_last_layer_may_see_the_slice_itself(channels):
    options = {"channels": channels, "norm": "instance", "dropout": 0.0}
    without, seeing = ready(**options), ready(**options, slice_skip=True)
    assert count(seeing) == count(without) + channels**2
    x = torch.rand(2, channels, 32, 32) * 1.8 - 0.9
    assert not torch.allclose(without(x), x, atol=0.3)
    with torch.no_grad():
        seeing.last.weight[:, :-channels] = 0
    torch.testing.assert_close(seeing(x), torch.tanh(x))  # each channel its own, and weight 1
    torch.testing.assert_close(seeing(x + 0.1), torch.tanh(x + 0.1))


def test_brightness_passes_beside_the_norms():
    """Over the frame a slice and its brightened self are the same to instance norm."""
    options = {"norm": "instance", "dropout": 0.0}
    without, seeing = ready(**options), ready(**options, slice_skip=True)
    x = torch.full((1, 1, 32, 32), -0.5)
    x[..., 8:24, 8:24] = torch.rand(16, 16) * 0.2
    brighter = x * 0.8 + 0.1
    inner = (..., slice(4, -4), slice(4, -4))  # the zeros around the frame do not brighten
    moved = [(net(brighter) - net(x))[inner].abs().mean() for net in (without, seeing)]
    assert moved[1] > 10 * moved[0]


def test_biases_before_instance_norm_are_inert():
    with_bias = ready(norm="instance", dropout=0.0)
    without = ready(norm="instance", dropout=0.0, inert_bias=False)
    with torch.no_grad():
        for name, parameter in with_bias.named_parameters():
            if name not in dict(without.named_parameters()):
                parameter.normal_()
        kept = with_bias.state_dict()
        without.load_state_dict({name: kept[name] for name in without.state_dict()})
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(with_bias(x), without(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_channels_last_and_bfloat16_agree_at_batch_1(norm):
    generator = grown(ready(norm=norm, dropout=0.0))
    x = torch.randn(1, 1, 32, 32)
    made = generator(x)
    assert made.abs().max() > 0.1
    with torch.autocast("cpu", torch.bfloat16):
        half = generator(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), made, atol=0.05, rtol=0.05)
    generator.to(memory_format=torch.channels_last)
    again = generator(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(again, made, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 100}, "with 4 units expected size to be a multiple of 16, got 100"),
        ({"size": 0}, "multiple of 16, got 0"),
        ({"units": 0}, "expected units of at least 1, got 0"),
        ({"norm": "layer"}, "expected norm 'batch' or 'instance', got 'layer'"),
        ({"size": 16, "norm": "instance"}, "4 units bring size 16 to one pixel.* at least 32"),
    ],
)
def test_errors(options, text):
    with pytest.raises(ValueError, match=text):
        AttentionUnetGenerator(**options)


@pytest.mark.parametrize(
    "options", [{"norm": "batch"}, {"norm": "instance"}, {"norm": "instance", "slice_skip": True}]
)
def test_onnx(options):
    generator = grown(ready(size=16, units=2, **options))
    generator(torch.randn(8, 1, 16, 16))  # so that the stored statistics are not the identity
    generator.eval()
    facts = GeneratorFacts("translate", "test", (16, 16))
    graph = build_graph(generator, facts)
    check_graph(graph, facts)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for batch in (1, 3):
        x = torch.randn(batch, 1, 16, 16)
        (got,) = session.run(None, {"source": x.numpy()})
        with torch.inference_mode():
            expected = generator(x).numpy()
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)  # the exporter's
