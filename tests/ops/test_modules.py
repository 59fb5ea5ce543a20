"""FusedInstanceNorm2d and 3d in the place of PyTorch's, and the helper that puts them there."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from instance_norm_reference import assert_near, random_inputs, reference
from torch import Tensor, nn

from fastmrigan.ops import FusedInstanceNorm2d, FusedInstanceNorm3d, fuse_instance_norm

PAIRS = [
    (FusedInstanceNorm2d, nn.InstanceNorm2d, (2, 6, 7, 9)),
    (FusedInstanceNorm3d, nn.InstanceNorm3d, (2, 6, 3, 5, 7)),
]
pairs = pytest.mark.parametrize(("fused", "plain", "shape"), PAIRS, ids=["2d", "3d"])
affines = pytest.mark.parametrize("affine", [False, True])


def randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


@pairs
@affines
def test_state_dicts_load_both_ways(fused, plain, shape, affine):
    ours, theirs = fused(shape[1], affine=affine), plain(shape[1], affine=affine)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=0)
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = random_inputs(shape).x
    torch.testing.assert_close(ours(x), theirs(x))
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


@pairs
def test_defaults_are_those_of_pytorch(fused, plain, shape):
    ours, theirs = fused(shape[1]), plain(shape[1])
    assert (ours.num_features, ours.eps, ours.affine) == (6, theirs.eps, theirs.affine)
    assert len(list(ours.parameters())) == len(list(ours.buffers())) == 0


@pairs
@pytest.mark.parametrize("backend", ["auto", "native", "torch"])
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
def test_forward_takes_a_residual(fused, plain, shape, activation, backend):
    module = fused(6, eps=1e-3, affine=True, activation=activation, slope=0.1, backend=backend)
    randomise(module)
    inputs = random_inputs(shape, residual=True)
    for residual in (None, inputs.residual):
        y = module(inputs.x) if residual is None else module(inputs.x, residual)
        expected, _ = reference(
            inputs.x,
            module.weight,
            module.bias,
            residual,
            activation=activation,
            slope=0.1,
            eps=1e-3,
        )
        assert_near(y.detach(), expected.detach(), "y")


def test_gradients_reach_the_parameters():
    module = FusedInstanceNorm2d(6, affine=True, activation="relu")
    plain = nn.InstanceNorm2d(6, affine=True)
    x = random_inputs((2, 6, 7, 9)).x
    grad_y = torch.randn(2, 6, 7, 9, generator=torch.Generator().manual_seed(1))
    module(x).backward(grad_y)
    F.relu(plain(x)).backward(grad_y)
    torch.testing.assert_close(module.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-4)


def test_training_and_evaluation_are_the_same():
    module = FusedInstanceNorm2d(3, activation="relu")
    x = random_inputs((2, 3, 5, 5)).x
    assert torch.equal(module.train()(x), module.eval()(x))


def test_hooks_run():
    module = FusedInstanceNorm2d(3, affine=True)
    seen = []
    module.register_forward_hook(lambda *_: seen.append("forward"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    module(random_inputs((2, 3, 5, 5)).x.requires_grad_()).sum().backward()
    assert seen == ["forward", "backward"]


@pairs
def test_one_item_without_a_batch_axis(fused, plain, shape):
    """[C, …], as PyTorch's take it; and hooks run once."""
    module = fused(shape[1], activation="relu")
    seen = []
    module.register_forward_hook(lambda _, given, y: seen.append(y.shape))
    inputs = random_inputs(shape, residual=True)
    x, residual = inputs.x[0], inputs.residual[0]
    expected = F.relu(plain(shape[1])(x)) + residual
    torch.testing.assert_close(module(x, residual), expected, rtol=1e-4, atol=1e-5)
    assert seen == [x.shape]


def test_a_module_can_be_copied_saved_and_shown():
    module = FusedInstanceNorm2d(3, affine=True, activation="leaky_relu", slope=0.3)
    randomise(module)
    x = random_inputs((2, 3, 5, 5)).x
    assert torch.equal(copy.deepcopy(module)(x), module(x))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), module(x))
    assert all(part in repr(module) for part in ("3", "affine=True", "leaky_relu", "0.3"))


def test_a_module_moves_to_double():
    module = FusedInstanceNorm2d(3, affine=True, backend="torch").double()
    assert module(random_inputs((2, 3, 5, 5), torch.float64).x).dtype == torch.float64


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"expected activation .*gelu"):
        FusedInstanceNorm2d(3, activation="gelu")(random_inputs((2, 3, 5, 5)).x)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (FusedInstanceNorm2d(3, affine=True), (2, 4, 5, 5)),
        (FusedInstanceNorm2d(3, affine=True), (2, 3, 4, 5, 5)),
        (FusedInstanceNorm2d(3, affine=True), (4, 5, 5)),
        (FusedInstanceNorm3d(3, affine=True), (2, 3, 5, 5)),
    ],
)
def test_another_shape_is_refused(module, shape):
    came = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"^{type(module).__name__}: expected .*got .*{came}"):
        module(torch.zeros(shape))


# fuse_instance_norm ----------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block as pix2pix and CycleGAN have it."""

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels, affine=affine),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def generator(affine: bool = True) -> nn.Sequential:
    """Slices [N, 1, H, W] to slices; six instance norms, of which four have an activation."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 7, padding=3),
        nn.InstanceNorm2d(8, affine=affine),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.InstanceNorm2d(16, affine=affine, eps=1e-3),
        nn.LeakyReLU(0.3),
        Block(16, affine),
        nn.ConvTranspose2d(16, 8, 4, 2, 1),
        nn.Sequential(nn.InstanceNorm2d(8, affine=affine), nn.ReLU(True)),
        nn.InstanceNorm2d(8, affine=affine),
        nn.Tanh(),
        nn.Conv2d(8, 1, 7, padding=3),
        nn.Tanh(),
    )
    randomise_norms(model)
    return model


def randomise_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.InstanceNorm2d):
            randomise(module)


def named(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


@affines
def test_a_fused_generator_gives_the_same_slices(affine):
    model = generator(affine)
    x = torch.randn(2, 1, 16, 16)
    before, state = model(x), model.state_dict()
    parameters = dict(model.named_parameters())
    assert fuse_instance_norm(model) == 6
    assert not named(model, nn.InstanceNorm2d)
    assert not named(model, nn.ReLU)
    assert not named(model, nn.LeakyReLU)
    assert len(named(model, FusedInstanceNorm2d)) == 6
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == list(state), "checkpoints must go on loading"
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in parameters.items()), (
        "an optimiser made before must go on training them"
    )


def test_a_fused_generator_has_the_same_gradients():
    plain, fused = generator(), generator()
    fuse_instance_norm(fused)
    x = torch.randn(2, 1, 16, 16)
    plain(x).square().sum().backward()
    fused(x).square().sum().backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), fused.named_parameters(), strict=True):
        error, scale = (a.grad - b.grad).abs().max(), a.grad.abs().max()
        assert error <= 1e-4 * max(1.0, scale), name


def test_fusing_twice_changes_nothing_more():
    model = generator()
    fuse_instance_norm(model)
    assert fuse_instance_norm(model) == 0


def test_options_of_the_norm_and_its_activation_are_kept():
    model = nn.Sequential(nn.InstanceNorm2d(4, eps=0.5, affine=True), nn.LeakyReLU(0.05)).eval()
    model[0].weight.requires_grad_(False)
    fuse_instance_norm(model)
    norm = model[0]
    assert (norm.eps, norm.affine, norm.slope, norm.activation) == (0.5, True, 0.05, "leaky_relu")
    assert not norm.training
    assert not norm.weight.requires_grad
    assert norm.bias.requires_grad


def test_a_volume_is_fused_too():
    model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.ReLU())
    x = torch.randn(1, 1, 5, 6, 7)
    before = model(x)
    assert fuse_instance_norm(model) == 1
    assert named(model, FusedInstanceNorm3d) == ["1"]
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_an_activation_used_twice_still_runs_where_no_norm_stands_before_it():
    relu = nn.ReLU()
    model = nn.Sequential(nn.InstanceNorm2d(1), relu, nn.Conv2d(1, 4, 3), relu)
    x = torch.randn(2, 1, 8, 8)
    before = model(x)
    assert fuse_instance_norm(model) == 1
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_an_activation_shared_by_two_norms():
    relu = nn.ReLU()
    model = nn.Sequential(
        nn.InstanceNorm2d(1), relu, nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4), relu
    )
    x = torch.randn(2, 1, 8, 8)
    before = model(x)
    assert fuse_instance_norm(model) == 2
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_a_norm_that_stands_twice_before_its_activation():
    norm = nn.InstanceNorm2d(4, eps=1.0)
    model = nn.Sequential(norm, norm, nn.ReLU())
    x = torch.randn(2, 4, 8, 8)
    before = model(x)
    fuse_instance_norm(model)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_a_norm_used_twice_still_runs_with_and_without_its_activation():
    norm = nn.InstanceNorm2d(4)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU()), nn.Sequential(nn.Conv2d(4, 4, 3), norm)
    )
    x = torch.randn(2, 1, 8, 8)
    before = model(x)
    fuse_instance_norm(model)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", [nn.ReLU6(), nn.PReLU(4), nn.Sigmoid(), nn.Conv2d(4, 4, 1)])
def test_what_is_no_relu_stays(after):
    model = nn.Sequential(nn.InstanceNorm2d(4), after)
    x = torch.randn(2, 4, 8, 8)
    before = model(x)
    assert fuse_instance_norm(model) == 1
    assert model[1] is after
    assert model[0].activation == "none"
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_an_activation_outside_a_sequential_stays():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.relu = nn.InstanceNorm2d(4), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(1 + self.norm(x))

    model = Own()
    x = torch.randn(2, 4, 8, 8)
    before = model(x)
    assert fuse_instance_norm(model) == 1
    assert isinstance(model.relu, nn.ReLU)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_left_alone_and_that_is_said(caplog):
    model = nn.Sequential(nn.InstanceNorm2d(4, track_running_stats=True), nn.ReLU())
    with caplog.at_level("INFO", "fastmrigan.ops"):
        assert fuse_instance_norm(model) == 0
    assert isinstance(model[0], nn.InstanceNorm2d)
    assert isinstance(model[1], nn.ReLU)
    assert "left 0 alone" in caplog.text
    assert "running statistics" in caplog.text


def test_what_has_hooks_is_left_alone(caplog):
    """Features for a perceptual loss are read through hooks: they must go on seeing theirs."""
    model = nn.Sequential(nn.InstanceNorm2d(4), nn.ReLU(), nn.InstanceNorm2d(4), nn.ReLU())
    seen = []
    model[0].register_forward_hook(lambda module, given, y: seen.append(y))
    model[3].register_forward_hook(lambda module, given, y: seen.append(y))
    x = torch.randn(2, 4, 8, 8)
    model(x)
    with caplog.at_level("INFO", "fastmrigan.ops"):
        assert fuse_instance_norm(model) == 1
    assert "hooks" in caplog.text
    model(x)
    for before, after in zip(seen[:2], seen[2:], strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_without_weights_any_number_of_channels_goes_as_in_pytorch():
    x = torch.randn(1, 8, 4, 4)
    with pytest.warns(UserWarning, match="num_features"):
        expected = nn.InstanceNorm2d(4)(x)
    torch.testing.assert_close(FusedInstanceNorm2d(4)(x), expected)


def test_an_unknown_activation_is_refused_at_once():
    with pytest.raises(ValueError, match=r"expected activation none, relu, leaky_relu, got 'gelu'"):
        FusedInstanceNorm2d(4, activation="gelu")


def test_activations_can_stay_apart():
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU())
    assert fuse_instance_norm(model, activations=False) == 1
    assert [type(layer) for layer in model] == [FusedInstanceNorm2d, nn.ReLU]
    assert model[0].activation == "none"
