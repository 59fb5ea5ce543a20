"""Each system's losses on fixed slices and weights against its paper's equations, written out."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from small_systems import slices, small

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.order import draws_of
from fastmrigan.training.patches import draw_filters, patch_distance
from fastmrigan.training.structure import structure_loss
from fastmrigan.training.systems import Batch, Clock, cyclegan, system_of
from fastmrigan.training.tone import Tones, toned
from fastmrigan.training.transport import (
    network_of,
    slice_features,
    transport_loss,
    transported,
)

START = Clock(0, 0.0, 6)


def log_real(logits):
    """-log D, D the sigmoid of the logits."""
    return -torch.log(torch.sigmoid(logits)).mean()


def log_fake(logits):
    return -torch.log(1 - torch.sigmoid(logits)).mean()


def square_real(logits):
    return ((logits - 1) ** 2).mean()


def square_fake(logits):
    return (logits**2).mean()


def l1(a, b):
    return (a - b).abs().mean()


def started(name, *overrides):
    """The recipe, its system at the first step, and a batch of fixed slices."""
    recipe = small(name, *overrides)
    source, target = slices(2, 6, recipe.size), slices(2, 5, recipe.size)
    data = TrainingData(target, {}, None if recipe.task == "sample" else source)
    system = system_of(recipe)(recipe, data, torch.device("cpu"), Ranks())
    return recipe, system, source, target


def close(found, wanted):
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("speed", ["true", "false"])
@pytest.mark.parametrize(
    ("name", "overrides", "weights", "real", "fake"),
    [
        ("ct-mri-cyclegan-resnet", [], (4, 8), square_real, square_fake),  # Li: 8 is absolute
        ("t2-tumour-cyclegan", ["losses.identity=0"], (10, 0), log_real, log_fake),
        ("t1-t2-cyclegan-unet-v1", ["generator.dropout=0"], (10, 5), log_real, log_fake),
    ],
)
def test_cyclegan(name, overrides, weights, real, fake, speed):
    """Zhu et al. 2017, eq. 1 to 3 and the identity term of section 5.2."""
    cycle, identity = weights
    _, system, a, b = started(name, f"speed={speed}", *overrides)
    g, f = system.networks["generator"], system.networks["generator_back"]
    d_b, d_a = system.networks["discriminator"], system.networks["discriminator_back"]
    with torch.no_grad():
        of_g = real(d_b(g(a))) + real(d_a(f(b)))
        of_g = of_g + cycle * (l1(f(g(a)), a) + l1(g(f(b)), b))
        of_g = of_g + identity * (l1(g(b), b) + l1(f(a), a))
        of_d = (real(d_b(b)) + fake(d_b(g(a)))) / 2 + (real(d_a(a)) + fake(d_a(f(b)))) / 2
    losses = system.step(Batch(b, a), START)
    close(losses["loss_g"], of_g)
    # The generators have taken their step by then, but the slices judged are those from before.
    close(losses["loss_d"], of_d)


@pytest.mark.parametrize("speed", ["true", "false"])
def test_structure(speed):
    """A translation is held to the slice that it was made of, both ways."""
    name, settings = "t1-t2-cyclegan-unet-v1", (f"speed={speed}", "generator.dropout=0")
    _, without, a, b = started(name, *settings)
    usual = without.step(Batch(b, a), START)
    _, system, a, b = started(name, *settings, "losses.structure=3")
    with torch.no_grad():
        parts = [
            structure_loss(system.networks[key](given), given)
            for key, given in (("generator", a), ("generator_back", b))
        ]
    losses = system.step(Batch(b, a), START)
    close(losses["loss_structure_target"], parts[0])
    close(losses["loss_structure_source"], parts[1])
    close(losses["loss_g"], usual["loss_g"] + 3 * (parts[0] + parts[1]))
    assert "loss_structure_target" not in usual


@pytest.mark.parametrize("speed", ["true", "false"])
def test_patches_and_tone(speed):
    """A translation is held to the other side's patches, and at first to its source's levels."""
    name, settings = "t1-t2-cyclegan-unet-v1", (f"speed={speed}", "generator.dropout=0")
    _, without, a, b = started(name, *settings)
    usual = without.step(Batch(b, a), START)
    weights = ("losses.patches=3", "losses.tone=2", "losses.tone_epochs=4")
    recipe, system, a, b = started(name, *settings, *weights)
    filters = draw_filters(recipe.size, draws_of(recipe.seed, 0, 255))
    knots, _ = system.fit_tones()
    clock = Clock(0, 1.0, 6)  # of four epochs one is over
    added = 0.0
    losses = None
    with torch.no_grad():
        for key, given, wanted, made in (
            ("generator", a, b, "target"),
            ("generator_back", b, a, "source"),
        ):
            fake = system.networks[key](given)
            parts = patch_distance(fake, wanted, filters), l1(fake, toned(given, knots[made]))
            added += 3 * 1 / 4 * parts[0] + 2 * 3 / 4 * parts[1]
            losses = (losses or {}) | {f"patches_{made}": parts[0], f"tone_{made}": parts[1]}
    found = system.step(Batch(b, a), clock)
    for each, wanted in losses.items():
        close(found[f"loss_{each}"], wanted)
    close(found["loss_g"], usual["loss_g"] + added)
    assert not {"loss_patches_target", "loss_tone_target"} & set(usual)


def test_patches_of_the_last_slices():
    """A second batch is compared with the first one's slices beside it, on both sides."""
    settings = ("generator.dropout=0", "losses.patches=3", "losses.patches_of=4")
    recipe, system, a, b = started("t1-t2-cyclegan-unet-v1", *settings)
    fakes = []
    for step, (source, target) in enumerate(((a, b), (a * 0.5, b * 0.5))):
        with torch.no_grad():
            fakes.append(system.networks["generator"](source))
        found = system.step(Batch(target, source), Clock(step, 1.0, 6))
    filters = draw_filters(recipe.size, draws_of(recipe.seed, 1, 255))
    wanted = patch_distance(torch.cat(fakes), torch.cat([b, b * 0.5]), filters)
    close(found["loss_patches_target"], wanted)


def test_a_run_goes_on_with_the_last_slices():
    settings = ("t1-t2-cyclegan-unet-v1", "losses.patches=3", "losses.patches_of=5")
    _, system, a, b = started(*settings)
    system.step(Batch(b, a), START)
    _, resumed, *_ = started(*settings)
    resumed.load_more_state(copy.deepcopy(system.more_state()))
    assert len(system.recent) == 4
    for name, last in system.recent.items():
        assert torch.equal(resumed.recent[name].state_dict()["slices"], last.state_dict()["slices"])


def of_generator(system):
    return torch.cat([x.grad.flatten() for x in system.networks["generator"].parameters()])


@pytest.mark.parametrize("speed", ["true", "false"])
def test_transport(speed):
    """Translations to the target are held to the features that their pass gives them."""
    name, settings = "t1-t2-cyclegan-unet-v1", (f"speed={speed}", "generator.dropout=0")
    _, without, a, b = started(name, *settings)
    usual = without.step(Batch(b, a), START)
    own = ("losses.transport=3", "losses.transport_batch=2", "ema={decay: 0.5, ramp: false}")
    _, system, a, b = started(name, *settings, *own)
    for weights in system.ema["generator"].parameters():
        weights.data.mul_(0.5)  # a pass begins with the network as it is, not with its average
    plan = system.plan(2, START)
    network, sources = network_of(plan), system.data.sources
    generator = copy.deepcopy(system.networks["generator"])
    with torch.no_grad():
        made, real = generator(sources), system.data.slices
        carried = transported(slice_features(made, network), slice_features(real, network))
    chosen = [
        (sources == one).flatten(1).all(1).nonzero().item() for one in plan["transport_source"]
    ]
    close(plan["transport_wanted"], carried[chosen])
    wanted = transport_loss(generator(plan["transport_source"]), network, carried[chosen])
    assert wanted > 0
    found = system.step(Batch(b, a), START)
    close(found["loss_transport_target"], wanted)
    close(found["loss_g"], usual["loss_g"] + 3 * wanted)
    assert set(found) - set(usual) == {"loss_transport_target"}
    (3 * wanted).backward()
    added = torch.cat([x.grad.flatten() for x in generator.parameters()])
    difference = of_generator(system) - of_generator(without) - added
    assert difference.norm() < 0.01 * added.norm()
    assert added.norm() > 0


def test_one_slice_has_nowhere_to_be_carried():
    recipe = small("t2-tumour-cyclegan", "losses.transport=3", "batch=1")
    data = TrainingData(slices(2, 5, recipe.size), {}, slices(1, 6, recipe.size))
    with pytest.raises(UsageError, match="needs 2 slices of each side at least, got 1; prepare"):
        system_of(recipe)(recipe, data, torch.device("cpu"), Ranks())


def test_transport_is_not_for_batch_norm():
    settings = ("losses.transport=3", "generator={network: unet, width: 4, norm: batch}")
    with pytest.raises(UsageError, match="batch norm, and translates a batch in training other"):
        started("t2-tumour-cyclegan", *settings)


def test_slices_that_cannot_be_read_leave_the_pools_alone(monkeypatch):
    """What is saved then has to be what the steps before left."""
    _, system, a, b = started("t2-tumour-cyclegan", "losses.transport=3", "pool=3")
    system.step(Batch(b, a), START)
    before = copy.deepcopy(system.more_state())

    def unreadable(*_):
        raise InputRejected("slices.npy: slice 3 cannot be read")

    monkeypatch.setattr(system, "transport_plan", unreadable)
    with pytest.raises(InputRejected):
        system.plan(2, Clock(1, 1.0, 6))
    for name, pool in system.pools.items():
        now, then = pool.state_dict(), before[f"pool_{name}"]
        assert all(torch.equal(torch.as_tensor(now[k]), torch.as_tensor(then[k])) for k in then)


def test_a_run_taken_back_begins_another_pass():
    _, system, a, b = started("t2-tumour-cyclegan", "losses.transport=3")
    system.step(Batch(b, a), START)
    assert system.more_state()["transport"]
    system.begin_stream(1)
    assert not system.more_state()["transport"]


def test_a_number_of_slices_without_patches_is_refused():
    with pytest.raises(UsageError, match="of how many slices: give"):
        small("t1-t2-cyclegan-unet-v1", "losses.patches_of=20")


def test_fewer_slices_than_a_batch_are_refused():
    with pytest.raises(UsageError, match="expected 0 or at least the batch of 2, got 1"):
        small("t1-t2-cyclegan-unet-v1", "batch=2", "losses.patches=1", "losses.patches_of=1")


def test_the_tone_makes_room_for_the_patches():
    settings = ("losses.tone=2", "losses.tone_epochs=4", "losses.patches=3")
    _, system, *_ = started("t1-t2-cyclegan-unet-v1", *settings)
    plans = [system.plan(2, Clock(0, epoch, 6)) for epoch in (0.0, 2.0, 4.0, 9.0)]
    assert [float(plan["tone"]) for plan in plans] == [2.0, 1.0, 0.0, 0.0]
    assert [float(plan["patches"]) for plan in plans] == [0.0, 1.5, 3.0, 3.0]


def test_a_run_goes_on_with_the_curves_it_began_with():
    settings = ("t1-t2-cyclegan-unet-v1", "losses.tone=2")
    _, system, *_ = started(*settings)
    fitted, _ = system.fit_tones()
    system.tones = {made: knots + 0.01 for made, knots in fitted.items()}
    _, resumed, *_ = started(*settings)
    resumed.load_more_state(copy.deepcopy(system.more_state()))
    plan = resumed.plan(2, START)
    for made, knots in fitted.items():
        assert torch.equal(plan[f"tone_{made}"], knots + 0.01)
    assert list(resumed.prepare()) == []  # nothing is fitted again


def test_the_curves_are_fitted_before_the_first_step():
    _, system, *_ = started("t1-t2-cyclegan-unet-v1", "losses.tone=2")
    told = list(system.prepare())
    assert told[0] == "train: fitting the curves of grey levels"
    fitted, doubts = system.fit_tones()
    assert told[1:] == doubts
    for made, knots in fitted.items():
        assert torch.equal(system.tones[made], knots)
    _, without, *_ = started("t1-t2-cyclegan-unet-v1")
    assert list(without.prepare()) == []


def test_a_curve_that_may_be_wrong_is_told_of(monkeypatch):
    levels = torch.linspace(-1, 1, 17)
    tones = Tones(levels, -levels, distance=0.5, runner_up=0.55)
    monkeypatch.setattr(cyclegan, "fit_tones", lambda source, target, draws: tones)
    _, system, *_ = started("t1-t2-cyclegan-unet-v1", "losses.tone=2")
    told = list(system.prepare())
    assert len(told) == 2
    assert "(losses.tone) may be the wrong ones" in told[1]
    assert "distance of 0.5 where others have 0.55" in told[1]


def test_pix2pix():
    """Isola et al. 2017, eq. 1, 3 and 4: the discriminator sees what was translated beside it."""
    _, system, a, b = started(
        "pix2pix-attention-unet",
        "discriminator.norm=instance",
        "generator.norm=instance",
        "generator.dropout=0",
    )
    g, d = system.networks["generator"], system.networks["discriminator"]
    with torch.no_grad():
        of_d = (log_real(d(b, a)) + log_fake(d(g(a), a))) / 2
        of_l1 = l1(g(a), b)
    losses = system.step(Batch(b, a), START)
    close(losses["loss_d"], of_d)
    close(losses["loss_l1"], of_l1)
    close(losses["loss_g"], losses["loss_g_adversarial"] + 100 * of_l1)


def test_gan():
    """Goodfellow et al. 2014, the generator's loss the non-saturating one."""
    recipe, system, _, real = started("tumour-dcgan128")
    g, d = system.networks["generator"], system.networks["discriminator"]
    random = torch.get_rng_state()
    with torch.no_grad():
        latents = torch.erf(torch.randn(2, recipe.generator.latent) / math.sqrt(2))  # U(-1, 1)
        assert latents.abs().max() < 1
        of_d = log_real(d(real)) + log_fake(d(g(latents)))
    torch.set_rng_state(random)
    close(system.step(Batch(real), START)["loss_d"], of_d)


@pytest.mark.parametrize("step", [1, 4])
def test_progan(step):
    """Gulrajani et al. 2017, eq. 3, and the drift of Karras et al. 2018, appendix A.1."""
    recipe, system, _, real = started("tumour-progan")
    g, d = system.networks["generator"], system.networks["discriminator"]
    stage, alpha = {1: (0, 1.0), 4: (2, 1.0)}[step]  # 4 stages over 6 steps, fading over half
    small_real = F.adaptive_avg_pool2d(real, 4 << stage)
    random = torch.get_rng_state()
    with torch.no_grad():
        fake = g(torch.randn(2, recipe.generator.latent), stage, alpha)
    share = torch.rand(2)
    torch.set_rng_state(random)
    norms = []
    for number in range(2):  # the slope of the score of each slice between
        between = share[number] * small_real[number] + (1 - share[number]) * fake[number]
        others = share[:, None, None, None] * small_real + (1 - share)[:, None, None, None] * fake
        between = between.requires_grad_()
        batch = torch.stack([between if n == number else others[n] for n in range(2)])
        norms.append(torch.autograd.grad(d(batch, stage, alpha).sum(), between)[0].norm())
    penalty = torch.stack([(norm - 1) ** 2 for norm in norms]).mean()
    with torch.no_grad():
        on_real, on_fake = d(small_real, stage, alpha), d(fake, stage, alpha)
        of_d = on_fake.mean() - on_real.mean() + 10 * penalty + 1e-3 * (on_real**2).mean()
    losses = system.step(Batch(real), Clock(step, 0.0, 6))
    assert (losses["stage"], losses["alpha"]) == (stage, alpha)
    close(losses["loss_d"], of_d)


def test_style_pair():
    """Chang et al. 2018: cycle of the content, cycle of the style, both adversarial losses."""
    _, system, x, y = started("style-transfer-gan")
    g, f = system.networks["generator"], system.networks["generator_back"]
    d_y, d_x = system.networks["discriminator"], system.networks["discriminator_back"]
    with torch.no_grad():
        styled, plain = g(x, y), f(y)
        of_g = square_real(d_y(styled)) + square_real(d_x(plain))
        of_g = of_g + 10 * l1(f(styled), x) + 10 * l1(g(plain, styled), y)
    close(system.step(Batch(y, x), START)["loss_g"], of_g)
    close(g(x), g(x, g.reference.expand_as(x)))  # the kept reference
    assert any(torch.equal(g.reference[0], slice_) for slice_ in y)


def test_pix2pix_shows_the_condition_as_if_it_stood_alone():
    """With DiffAugment a bright translation darkened the source beside it: their contrast was taken
    about one mean."""
    policies = "[colour, translation, cutout]"
    _, system, a, b = started("pix2pix-attention-unet", f"augmentation.diffaugment={policies}")
    plan = system.plan(2, START)
    made, condition = system.pair_seen(b, a, plan, "real")
    _, beside_another = system.pair_seen(b + 1, a, plan, "real")
    assert torch.equal(condition, beside_another)
    _, again = system.pair_seen(b, b, plan, "real")
    close(made, again)  # moved and cut alike
    assert not torch.equal(made, b)
