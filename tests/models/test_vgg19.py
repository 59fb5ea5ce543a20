"""VGG19: torchvision's names and shapes, published counts, and the responses of named layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmrigan.models.vgg19 import CONVOLUTIONS, RELUS, Vgg19Features

# torchvision's vgg19().features: index of each convolution, and its channels (out, in).
TORCHVISION = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256),
    14: (256, 256), 16: (256, 256), 19: (512, 256), 21: (512, 512), 23: (512, 512),
    25: (512, 512), 28: (512, 512), 30: (512, 512), 32: (512, 512), 34: (512, 512),
}  # fmt: skip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = Vgg19Features()
    network.initialise()
    return network.eval()


def test_names_shapes_and_count_are_torchvisions(network):
    expected = {}
    for index, (out, inputs) in TORCHVISION.items():
        expected[f"features.{index}.weight"] = (out, inputs, 3, 3)
        expected[f"features.{index}.bias"] = (out,)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_024_384
    pools = [i for i, layer in enumerate(network.features) if isinstance(layer, nn.AvgPool2d)]
    assert pools == [4, 9, 18, 27, 36]
    assert len(CONVOLUTIONS) == len(RELUS) == 16


def test_responses_against_plain_calls(network):
    """The first two blocks, written out; both poolings."""
    torch.manual_seed(1)
    slices = torch.rand(2, 1, 32, 48) * 2 - 1
    colour = (slices.repeat(1, 3, 1, 1) + 1) / 2
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    first = (colour - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    largest = Vgg19Features(pooling="max")
    largest.load_state_dict(network.state_dict())
    for tried, pool in ((network, F.avg_pool2d), (largest, F.max_pool2d)):
        x, expected = first, {}
        for index, name in ((0, "relu1_1"), (2, "relu1_2"), (5, "relu2_1"), (7, "relu2_2")):
            x = pool(x, 2) if index == 5 else x
            layer = network.features[index]
            x = expected[name] = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))
        with torch.no_grad():
            found = tried(slices, list(expected))
        assert list(found) == list(expected)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])


def test_every_layer_at_its_size(network):
    with torch.no_grad():
        found = network(torch.zeros(1, 1, 64, 64))
    assert list(found) == list(RELUS)
    assert {name: tuple(found[name].shape) for name in RELUS if name.endswith("_1")} == {
        "relu1_1": (1, 64, 64, 64), "relu2_1": (1, 128, 32, 32), "relu3_1": (1, 256, 16, 16),
        "relu4_1": (1, 512, 8, 8), "relu5_1": (1, 512, 4, 4),
    }  # fmt: skip


def test_grey_is_three_equal_channels(network):
    slices = torch.rand(1, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        grey, colour = network(slices, ["relu2_1"]), network(slices.repeat(1, 3, 1, 1), ["relu2_1"])
    torch.testing.assert_close(grey["relu2_1"], colour["relu2_1"])


def test_layers_behind_the_last_one_asked_for_are_not_computed(network):
    seen = []
    hooks = [
        layer.register_forward_hook(lambda *_, place=place: seen.append(place))
        for place, layer in network.convolutions().items()
    ]
    network(torch.zeros(1, 1, 32, 32), ("relu2_1", "relu1_1"))
    for hook in hooks:
        hook.remove()
    assert seen == ["1_1", "1_2", "2_1"]


@pytest.mark.parametrize(
    ("shape", "layers", "told"),
    [
        ((1, 2, 32, 32), ("relu1_1",), r"expected \[N, 1 or 3, H, W\].*got \[1, 2, 32, 32\]"),
        ((1, 1, 31, 32), ("relu1_1",), "at least 32x32"),
        ((1, 32, 32), ("relu1_1",), r"got \[1, 32, 32\]"),
        ((1, 1, 32, 32), ("relu1_3",), "no layer 'relu1_3'"),
    ],
)
def test_wrong_input_is_named(network, shape, layers, told):
    with pytest.raises(ValueError, match=told):
        network(torch.zeros(shape), layers)


def test_unknown_pooling_is_named():
    with pytest.raises(ValueError, match="average or max, got 'median'"):
        Vgg19Features(pooling="median")


def test_initial_filters_are_he_scaled(network):
    for layer in network.convolutions().values():
        fan_in = layer.in_channels * 9
        assert layer.weight.detach().std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        assert not layer.bias.any()


def test_gradient_reaches_the_slice(network):
    """Against a central difference along a random direction."""
    torch.manual_seed(2)
    double = Vgg19Features().double()
    double.load_state_dict(network.state_dict())
    slices = torch.rand(1, 1, 32, 32, dtype=torch.float64) * 2 - 1
    direction = torch.randn_like(slices)

    def value(x):
        return double(x, ["relu3_1"])["relu3_1"].square().mean()

    x = slices.clone().requires_grad_()
    value(x).backward()
    with torch.no_grad():
        step = 1e-6
        numeric = (value(slices + step * direction) - value(slices - step * direction)) / (2 * step)
    torch.testing.assert_close((x.grad * direction).sum(), numeric, rtol=1e-5, atol=1e-9)
