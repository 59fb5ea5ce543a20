"""fuse_instance_norm: what it swaps, that the model goes on as before, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fastmrigan.ops import FusedInstanceNorm2d, FusedInstanceNorm3d, fuse_instance_norm


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
    for module in model.modules():
        if isinstance(module, nn.InstanceNorm2d):
            for parameter in module.parameters():
                nn.init.normal_(parameter)
    return model


def named(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize("affine", [False, True])
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


class HalvingNorm(nn.InstanceNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class HalvingReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrised() -> nn.Module:
    norm = nn.InstanceNorm2d(4, affine=True)
    parametrize.register_parametrization(norm, "weight", Doubled())
    return norm


def patched(module: nn.Module) -> nn.Module:
    own = module.forward
    module.forward = lambda x: own(x) / 2
    return module


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, given, y: y / 2)
    return module


LEFT_NORMS = {
    "running statistics": (lambda: nn.InstanceNorm2d(4, track_running_stats=True), "running stat"),
    "parametrised": (parametrised, "it is parametrised"),
    "patched": (lambda: patched(nn.InstanceNorm2d(4)), "its forward is patched"),
    "hooks": (lambda: hooked(nn.InstanceNorm2d(4)), "it has hooks"),
    "derived": (lambda: HalvingNorm(4), "derived class, HalvingNorm"),
    "volumes": (lambda: patched(nn.InstanceNorm3d(4)), "its forward is patched"),
}


@pytest.mark.parametrize("case", LEFT_NORMS)
def test_a_norm_that_is_more_than_one_is_left_alone_and_that_is_said(case, caplog):
    make, why = LEFT_NORMS[case]
    norm, relu = make(), nn.ReLU()
    model = nn.Sequential(nn.Identity(), nn.Sequential(norm, relu))
    x = torch.randn((2, 4, 5, 6, 7) if isinstance(norm, nn.InstanceNorm3d) else (2, 4, 8, 8))
    before = model.eval()(x)
    with caplog.at_level("INFO", "fastmrigan.ops"):
        assert fuse_instance_norm(model) == 0
    assert (model[1][0], model[1][1]) == (norm, relu)
    assert torch.equal(model(x), before)
    (said,) = caplog.messages
    assert said.startswith("fuse_instance_norm: left 1.0 alone: ")
    assert why in said


LEFT_ACTIVATIONS = {
    "patched": (lambda: patched(nn.LeakyReLU(0.1)), "its forward is patched"),
    "hooks": (lambda: hooked(nn.ReLU()), "it has hooks"),
    "derived": (HalvingReLU, "derived class, HalvingReLU"),
}


@pytest.mark.parametrize("case", LEFT_ACTIVATIONS)
def test_an_activation_that_is_more_than_one_is_left_alone_and_that_is_said(case, caplog):
    make, why = LEFT_ACTIVATIONS[case]
    model = nn.Sequential(nn.InstanceNorm2d(4), make())
    activation, x = model[1], torch.randn(2, 4, 8, 8)
    before = model(x)
    with caplog.at_level("INFO", "fastmrigan.ops"):
        assert fuse_instance_norm(model) == 1
    assert (model[0].activation, model[1]) == ("none", activation)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    (said,) = caplog.messages
    assert said.startswith("fuse_instance_norm: left 1 alone: ")
    assert why in said


def test_in_a_sequential_with_a_patched_forward_the_activation_stays():
    """Its forward may call them in any order, or one of them alone."""
    model = nn.Sequential(nn.InstanceNorm2d(4), nn.ReLU())
    model.forward = lambda x: model[1](1 + model[0](x))
    x = torch.randn(2, 4, 8, 8)
    before = model(x)
    assert fuse_instance_norm(model) == 1
    assert isinstance(model[1], nn.ReLU)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_a_whole_generator_is_fused_without_a_word(caplog):
    with caplog.at_level("INFO", "fastmrigan.ops"):
        fuse_instance_norm(generator())
    assert not caplog.messages


def test_hooks_go_on_seeing_what_they_saw():
    """Features for a perceptual loss are read through hooks: they must go on seeing theirs."""
    model = nn.Sequential(nn.InstanceNorm2d(4), nn.ReLU(), nn.InstanceNorm2d(4), nn.ReLU())
    seen = []
    model[0].register_forward_hook(lambda module, given, y: seen.append(y))
    model[3].register_forward_hook(lambda module, given, y: seen.append(y))
    x = torch.randn(2, 4, 8, 8)
    model(x)
    assert fuse_instance_norm(model) == 1
    model(x)
    for before, after in zip(seen[:2], seen[2:], strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_activations_can_stay_apart():
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU())
    assert fuse_instance_norm(model, activations=False) == 1
    assert [type(layer) for layer in model] == [FusedInstanceNorm2d, nn.ReLU]
    assert model[0].activation == "none"
