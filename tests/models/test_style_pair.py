"""The pair's generator: count, shapes, what the reference does and what it must not do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fastmrigan.models.style_pair import StylePairGenerator


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def small():
    torch.manual_seed(0)
    generator = StylePairGenerator(size=32, width=8, blocks=2, code=8)
    generator.initialise()
    return generator.eval()


def test_parameter_count_by_hand():
    """Layer by layer, from kernel sizes and channels."""

    def conv(inputs, outputs, kernel):
        return inputs * outputs * kernel**2 + outputs

    def modulated(inputs, outputs):
        return conv(inputs, outputs, 3) + 64 * 2 * outputs + 2 * outputs

    content = conv(1, 64, 7) + conv(64, 128, 3) + conv(128, 256, 3)
    reference = conv(1, 64, 7) + conv(64, 128, 4) + conv(128, 256, 4) + 2 * conv(256, 256, 4)
    reference += 256 * 64 + 64
    decoder = 12 * modulated(256, 256) + modulated(256, 128) + modulated(128, 64) + conv(64, 1, 7)
    assert count(StylePairGenerator(size=256)) == content + reference + decoder == 11_022_529


def test_inert_biases_are_those_before_a_norm():
    with_them, without = (
        StylePairGenerator(size=32, width=8, blocks=2, inert_bias=inert) for inert in (True, False)
    )
    # content encoder 8 + 16 + 32, two blocks of 2 x 32, ups 16 + 8
    assert count(with_them) - count(without) == 8 + 16 + 32 + 4 * 32 + 16 + 8
    with torch.no_grad():
        for parameter in with_them.parameters():
            nn.init.normal_(parameter, 0, 0.1)
        missing = without.load_state_dict(with_them.state_dict(), strict=False).missing_keys
        content, reference = torch.rand(2, 2, 1, 32, 32) * 2 - 1
        same = with_them(content, reference)
        torch.testing.assert_close(without(content, reference), same, rtol=1e-4, atol=1e-5)
    assert missing == []


@pytest.mark.parametrize(("batch", "size", "channels"), [(1, 32, 1), (2, 64, 3), (1, 36, 1)])
def test_shapes_and_range(batch, size, channels):
    generator = StylePairGenerator(size=size, channels=channels, width=4, blocks=1, code=4)
    content, reference = torch.rand(2, batch, channels, size, size) * 2 - 1
    slices = generator(content, reference)
    assert slices.shape == (batch, channels, size, size)
    assert slices.abs().max() <= 1


@pytest.mark.parametrize("size", [0, 28, 33])
def test_wrong_size_is_named(size):
    with pytest.raises(ValueError, match=f"multiple of 4, got {size}"):
        StylePairGenerator(size=size)


def test_reference_gives_style_and_no_anatomy(small):
    """The code sees the reference's values, not where they stand."""
    torch.manual_seed(1)
    content = torch.rand(1, 1, 32, 32) * 2 - 1
    flat = torch.full((1, 1, 32, 32), -0.5), torch.full((1, 1, 32, 32), 0.5)
    with torch.no_grad():
        dark, bright = (small(content, reference) for reference in flat)
        assert (dark - bright).abs().mean() > 1e-3  # seen from the first step on
        blob = torch.full((1, 1, 256, 256), -1.0)
        blob[..., 96:112, 96:112] = 1.0  # the encoder sees 52 pixels: none of it with the frame
        moved = blob.roll((32, 32), (2, 3))  # a multiple of the encoder's stride of 16
        torch.testing.assert_close(
            small.reference_encoder(blob), small.reference_encoder(moved), rtol=1e-3, atol=1e-5
        )


def test_slices_of_a_batch_do_not_mix(small):
    content, reference = torch.rand(2, 3, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        together = small(content, reference)
        for i in range(3):
            alone = small(content[i : i + 1], reference[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_weight(small):
    content, reference = torch.rand(2, 2, 1, 32, 32) * 2 - 1
    small(content, reference).square().mean().backward()
    # a bias before a norm has no gradient but rounding; every other weight must have one
    inert = {
        f"{name}.bias"
        for name, layer in small.named_modules()
        if isinstance(layer, nn.Conv2d)
        and (name.startswith("content_encoder") or name.endswith(".convolution"))
    }
    assert len(inert) == 3 + 4 + 2
    for name, parameter in small.named_parameters():
        assert name in inert or parameter.grad.abs().max() > 1e-9, name


def test_initial_weights(small):
    for name, layer in small.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        weight = layer.weight.detach()
        expected = 0.02
        if isinstance(layer, nn.Linear):
            expected = (1 / layer.in_features) ** 0.5
        elif name.startswith("reference_encoder"):
            expected = (2 / weight[0].numel()) ** 0.5
        tolerance = 5 * expected / (2 * weight.numel()) ** 0.5  # five standard errors
        assert abs(weight.std() - expected) < tolerance, name
        assert not layer.bias.any()


def test_channels_last_and_bfloat16(small):
    content, reference = torch.rand(2, 2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = small(content, reference)
        moved = small.to(memory_format=torch.channels_last)
        last = moved(
            content.to(memory_format=torch.channels_last),
            reference.to(memory_format=torch.channels_last),
        )
        torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            half = small(content, reference)
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)


def test_onnx_has_standard_operators_and_the_same_values(small):
    onnxruntime = pytest.importorskip("onnxruntime")
    from fastmrigan.export.onnx import OPSET
    from fastmrigan.export.translations import TRANSLATIONS

    content, reference = torch.rand(2, 2, 1, 32, 32) * 2 - 1
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        # torch.export calls a helper that torch itself deprecates.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        warnings.filterwarnings("ignore", ".*it shares the same shape constraints", UserWarning)
        program = torch.onnx.export(
            small,
            (content, reference),
            dynamo=True,
            dynamic_shapes=({0: batch}, {0: batch}),
            input_names=["content", "reference"],
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    graph = program.model_proto
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    content, reference = torch.rand(2, 3, 1, 32, 32) * 2 - 1
    (got,) = session.run(None, {"content": content.numpy(), "reference": reference.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(got, small(content, reference).numpy(), rtol=1e-3, atol=1e-4)
