"""PatchGAN against its published counts, its receptive field and a twin of torch's own layers."""

import pytest
import torch
from torch import nn

from fastmrigan.models.initial import normal_weights
from fastmrigan.models.patchgan import PatchGan
from fastmrigan.ops import FusedInstanceNorm2d


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def small(**keywords):
    torch.manual_seed(0)
    network = PatchGan(**{"size": 48, "width": 4} | keywords)
    network.initialise()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return network


def slices(channels=1, batch=2, size=48):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


def twin(channels, norm):
    """The same at width 4 from torch's own layers, written out."""
    bias = norm is nn.InstanceNorm2d
    return nn.Sequential(
        nn.Conv2d(channels, 4, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 8, 4, stride=2, padding=1, bias=bias), norm(8), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, stride=2, padding=1, bias=bias), norm(16), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, stride=1, padding=1, bias=bias), norm(32), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 1, 4, stride=1, padding=1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, 2_762_689),
        ({"inert_bias": False}, 2_762_689 - (128 + 256 + 512)),
        # pix2pix's own: three channels beside three, batch norm
        ({"channels": 3, "conditions": 3, "norm": "batch"}, 2_768_705),
        ({"channels": 3, "norm": "batch"}, 2_765_633),
    ],
)
def test_parameter_counts(keywords, expected):
    with torch.device("meta"):
        assert count(PatchGan(size=256, **keywords)) == expected


@pytest.mark.parametrize(
    ("size", "sides"), [(256, (128, 64, 32, 31, 30)), (128, (64, 32, 16, 15, 14))]
)
def test_activation_shapes(size, sides):
    found = []
    with torch.device("meta"):
        discriminator = PatchGan(size=size)
        for layer in discriminator.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(lambda layer, _, y: found.append(tuple(y.shape)))
        discriminator(torch.zeros(2, 1, size, size))
    widths = (64, 128, 256, 512, 1)
    assert found == [(2, width, side, side) for width, side in zip(widths, sides, strict=True)]


@pytest.mark.parametrize(("layers", "field"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_receptive_field(layers, field):
    """Pixels that move the middle logit, where no weight can cancel another and no norm spreads."""
    discriminator = PatchGan(size=256, width=2, layers=layers, norm="batch").eval()
    for parameter in discriminator.parameters():
        nn.init.constant_(parameter, 0.5)
    x = torch.ones(1, 1, 256, 256, requires_grad=True)
    logits = discriminator(x)
    side = 256 // 2**layers - 2
    assert logits.shape == (1, 1, side, side)
    logits[0, 0, side // 2, side // 2].backward()
    rows, columns = x.grad[0, 0].nonzero(as_tuple=True)
    assert len(rows) == field**2
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == field


@pytest.mark.parametrize(
    ("norm", "plain_norm"), [("instance", nn.InstanceNorm2d), ("batch", nn.BatchNorm2d)]
)
@pytest.mark.parametrize(("channels", "conditions"), [(1, 0), (3, 0), (1, 1)])
def test_equals_a_twin_of_torchs_layers(norm, plain_norm, channels, conditions):
    discriminator = small(norm=norm, channels=channels, conditions=conditions)
    plain = twin(channels + conditions, plain_norm)
    values = discriminator.state_dict().values()
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    both = slices(conditions + channels)  # the condition comes first
    condition = both[:, :conditions] if conditions else None
    ours = discriminator(both[:, conditions:], condition)
    torch.testing.assert_close(ours, plain(both), rtol=0, atol=1e-4)
    assert ours.std() > 0.1


def test_every_activation_behind_a_norm_is_fused():
    layers = list(small().layers)
    fused = [layer for layer in layers if isinstance(layer, FusedInstanceNorm2d)]
    assert [(layer.activation, layer.slope) for layer in fused] == [("leaky_relu", 0.2)] * 3
    assert len([layer for layer in layers if isinstance(layer, nn.LeakyReLU)]) == 1
    assert not [layer for layer in layers if isinstance(layer, nn.InstanceNorm2d | nn.Sigmoid)]


def test_without_inert_biases_the_logits_are_the_same():
    discriminator, bare = small(), small(inert_bias=False)
    bare.load_state_dict({k: v for k, v in discriminator.state_dict().items() if k in
                          bare.state_dict()})  # fmt: skip
    kept = [k for k in bare.state_dict() if k.endswith("bias")]
    assert kept == ["layers.0.bias", f"layers.{len(bare.layers) - 1}.bias"]
    torch.testing.assert_close(bare(slices()), discriminator(slices()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_gradients_reach_every_parameter(norm):
    discriminator = small(inert_bias=False, norm=norm)
    discriminator(slices(batch=1)).square().mean().backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_channels_last():
    discriminator = small()
    expected = discriminator(slices())
    discriminator = discriminator.to(memory_format=torch.channels_last)
    came = discriminator(slices().to(memory_format=torch.channels_last))
    torch.testing.assert_close(came, expected, rtol=0, atol=1e-5)


def test_autocast():
    discriminator = small(conditions=1)
    x, condition = slices(batch=1), slices(batch=1).roll(5, 2)
    with torch.autocast("cpu", torch.bfloat16):
        came = discriminator(x, condition)
    assert came.dtype == torch.bfloat16
    assert (came.float() - discriminator(x, condition)).abs().mean() < 0.05
    came.float().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in discriminator.parameters())


@pytest.mark.parametrize(("size", "layers"), [(6, 1), (12, 2), (24, 3), (50, 3)])
def test_other_sizes(size, layers):
    side = size // 2**layers - 2
    logits = small(size=size, layers=layers)(slices(size=size))
    assert logits.shape == (2, 1, side, side)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"size": 23}, "PatchGan: expected a size of at least 24 for 3 layers, got 23"),
        ({"layers": 5}, "PatchGan: expected a size of at least 96 for 5 layers, got 48"),
        ({"layers": 0}, "PatchGan: expected at least 1 layer, got 0"),
        ({"norm": "layer"}, "PatchGan: expected norm instance or batch, got 'layer'"),
    ],
)
def test_refusals(keywords, text):
    with pytest.raises(ValueError, match=text):
        PatchGan(**{"size": 48} | keywords)


@pytest.mark.parametrize(("conditions", "came"), [(0, 1), (1, 0), (1, 3)])
def test_a_wrong_condition_is_refused(conditions, came):
    condition = slices(came) if came else None
    text = f"PatchGan: expected a condition of {conditions} channels, got {came}"
    with pytest.raises(ValueError, match=text):
        small(conditions=conditions)(slices(), condition)


def test_initialise():
    discriminator = PatchGan(size=48, width=16, norm="batch")
    discriminator(slices())  # moves the running statistics
    torch.manual_seed(0)
    discriminator.initialise()
    for layer in discriminator.layers:
        weight = getattr(layer, "weight", None)
        if weight is None:
            continue
        centre = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
        # five standard errors of the mean and of the standard deviation
        assert abs(weight.mean() - centre) < 5 * 0.02 / weight.numel() ** 0.5
        assert abs(weight.std() - 0.02) < 5 * 0.02 / (2 * weight.numel()) ** 0.5
        assert layer.bias is None or not layer.bias.any()
        if isinstance(layer, nn.BatchNorm2d):
            assert not layer.running_mean.any()
            assert (layer.running_var == 1).all()
    first = {name: value.clone() for name, value in discriminator.state_dict().items()}
    torch.manual_seed(0)
    discriminator.initialise()
    for name, value in discriminator.state_dict().items():
        assert torch.equal(value, first[name]), name


def test_initial_weights_of_an_affine_instance_norm_and_of_a_dense_layer():
    network = nn.Sequential(FusedInstanceNorm2d(400, affine=True), nn.Linear(20, 20))
    torch.manual_seed(0)
    normal_weights(network)
    for layer, centre in zip(network, (1.0, 0.0), strict=True):
        assert abs(layer.weight.mean() - centre) < 5 * 0.02 / 400**0.5
        assert abs(layer.weight.std() - 0.02) < 5 * 0.02 / 800**0.5
        assert not layer.bias.any()


def test_initial_weights_of_an_unknown_layer_are_refused():
    with pytest.raises(TypeError, match="got PReLU with parameters weight; initialise it apart"):
        normal_weights(nn.Sequential(nn.Conv2d(1, 1, 1), nn.PReLU()))
