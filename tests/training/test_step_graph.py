"""A step as a static program: recorded once and replayed, with other batches, rates and draws.

There is a CUDA device in few places, and everywhere there is the property that a CUDA graph asks
for: that a step is the same operations on the same memory, and nothing of the host's but what is
copied into buffers before. So the steps are recorded here as ATen operations (aten_recording) and
these run again; what comes out must be the bits of the steps taken one by one.
"""

import itertools

import pytest
import torch
from aten_recording import AtenRecording
from small_systems import slices, small
from tiny_gan import different, tiny, tiny_data

from fastmrigan.errors import UsageError
from fastmrigan.training import checkpoint, loop, session
from fastmrigan.training.augmenting import Batches
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.step_graph import WARM_STEPS, StepGraph, why_no_graph
from fastmrigan.training.systems import Clock, gan, system_of

CPU = torch.device("cpu")
STEPS = WARM_STEPS + 6
FALLING = "schedule={kind: linear, constant_epochs: 1, decay_epochs: 3}"  # another rate each epoch
SEEN = "augmentation.diffaugment=[colour, translation, cutout]"
EMA = "ema={decay: 0.9, ramp: true}"

# Recipe and settings; pools are full, and exchange, well before the last step.
SYSTEMS = {
    "cyclegan": ("t2-tumour-cyclegan", ["pool=3", EMA]),
    "cyclegan, bf16, diffaugment": ("t2-tumour-cyclegan", ["pool=3", "precision=bf16", SEEN]),
    "cyclegan, dropout": ("t1-t2-cyclegan-unet-v1", ["pool=2"]),
    "cyclegan, patches and tone": (
        "t1-t2-cyclegan-unet-v1",
        ["losses.patches=3", "losses.patches_of=5", "losses.tone=2", "losses.tone_epochs=3"],
    ),
    "cyclegan, transport": (
        "t2-tumour-cyclegan",
        ["losses.transport=3", "losses.transport_batch=1", "precision=bf16"],
    ),
    "cyclegan, resnet34": ("ct-mri-cyclegan-resnet", ["pool=0"]),
    "pix2pix": ("pix2pix-attention-unet", [SEEN]),
    "pix2pix, dropout": ("pix2pix-attention-unet", ["generator.dropout=0.5", EMA]),
    "pix2pix, unet": (
        "pix2pix-attention-unet",
        ["generator={network: unet, width: 4, norm: batch}", SEEN],
    ),
    "gan": ("tumour-dcgan128", []),
    "gan, diffaugment": ("tumour-dcgan128", [SEEN, "precision=bf16"]),
    "style pair": ("style-transfer-gan", ["pool=3"]),
}


def data_of(recipe, count=7):
    info = {"fingerprint": "f" * 64, "label": None, "training_slices": count}
    if recipe.task == "sample":
        return TrainingData(slices(count, 1, recipe.size), info)
    paired = recipe.system == "pix2pix"
    return TrainingData(slices(count, 1, recipe.size), info, slices(count, 2, recipe.size), paired)


def begun(name, device=CPU, settings=()):
    """A system at its first step, and its batches. The random streams are those of its seed."""
    recipe_name, own = SYSTEMS[name]
    recipe = small(recipe_name, FALLING, "augmentation.horizontal_flip=true", *own, *settings)
    data = data_of(recipe)
    system = system_of(recipe)(recipe, data, device, Ranks())
    system.keep_rates_on_device()
    return system, Batches(data, recipe, recipe.seed, Ranks(), device)


def taken(system, batches, step, take):
    """One step as the loop takes it: its losses."""
    clock = Clock(step, step * 2 / 7, STEPS)
    system.set_rates(clock)
    return {name: value.clone() for name, value in take(batches.of_step(step), clock).items()}


def everything(system):
    """All that a step changes."""
    of_device = torch.cuda.get_rng_state() if system.device.type == "cuda" else None
    return [system.state(), system.more_state(), torch.get_rng_state(), of_device]


def recorded(name, **options):
    """STEPS steps of a system, all but the first few replayed: its graph, losses and recording."""
    system, batches = begun(name, **options)
    recording = AtenRecording()
    graph = StepGraph(system, recording)
    rows = [taken(system, batches, step, graph.step) for step in range(STEPS)]
    return graph, rows, recording


@pytest.mark.parametrize("name", SYSTEMS)
def test_replayed_steps_are_the_systems_own(name):
    system, batches = begun(name)
    wanted = [taken(system, batches, step, system.step) for step in range(STEPS)]
    graph, rows, recording = recorded(name)
    assert len(recording.operations) > 100
    assert different(rows, wanted) == []
    assert different(everything(graph.system), everything(system)) == []
    assert len({float(row["loss_d"]) for row in rows}) == STEPS  # steps, and not one over again

    # Nothing waits for the host or comes from it, and what is used stays where it is.
    assert recording.touches_the_host() == []
    system = graph.system
    stays = [
        graph.batch,
        graph.plan,
        [network.state_dict() for network in system.networks.values()],
    ]
    stays.append([optimiser.state_dict() for optimiser in system.optimisers.values()])
    for kept in ("pools", "recent"):
        stays.append([slices._stored for slices in getattr(system, kept, {}).values()])
    assert recording.of_outside(stays) == []


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_step_is_the_same_operations_each_time(name):
    """Python takes the same way through the program, whatever the clock and the plan say."""
    system, batches = begun(name)
    found = []
    for step in range(STEPS):
        recording = AtenRecording()
        clock = Clock(step, step * 2 / 7, STEPS)
        batch = batches.of_step(step)
        system.set_rates(clock)
        plan = system.plan(system.count_of(batch), clock)
        recording.record(lambda batch=batch, plan=plan: system.program(batch, plan))
        found.append(recording.names())
    assert all(names == found[-1] for names in found[1:])  # the first step makes Adam's state


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("tumour-dcgan128", ["deviations={instance_noise: 0.5, instance_noise_steps: 6}"]),
        ("tumour-progan", ["steps=12"]),
    ],
)
def test_what_is_refused_says_why(recipe, settings):
    assert why_no_graph(small(recipe, *settings), Ranks()) is not None


def ten_steps(asked, graphed):
    system = system_of(asked)(asked, data_of(asked), CPU, Ranks())
    system.keep_rates_on_device()
    batches = Batches(system.data, asked, 0, Ranks(), CPU)
    take = StepGraph(system, AtenRecording()).step if graphed else system.step
    rows = [take(batches.of_step(step), Clock(step, 0.0, 12)) for step in range(10)]
    return [{k: v.clone() for k, v in row.items() if torch.is_tensor(v)} for row in rows]


def test_instance_noise_would_be_replayed_wrongly():
    """It shrinks from step to step; and the comparison can fail."""
    noise = "deviations={instance_noise: 0.5, instance_noise_steps: 6}"
    plain, graphed = (ten_steps(small("tumour-dcgan128", noise), each) for each in (False, True))
    assert different(plain, graphed) != []


def test_a_progressive_gan_cannot_be_recorded():
    """Its steps draw on the host, which a recording refuses."""
    asked = small("tumour-progan", "steps=12")
    assert len(ten_steps(asked, False)) == 10
    with pytest.raises(NotImplementedError):
        ten_steps(asked, True)


def test_rates_that_are_not_tensors_would_stand_still():
    """What `keep_rates_on_device` is for; and the comparison above can fail."""
    found = []
    for tensors in (True, False):
        system, batches = begun("gan")
        graph = StepGraph(system, AtenRecording())
        if not tensors:
            for optimiser in system.optimisers.values():
                for group in optimiser.param_groups:
                    group["lr"] = float(group["lr"])
        found.append([taken(system, batches, step, graph.step) for step in range(STEPS)])
    assert different(found[0][: WARM_STEPS + 1], found[1][: WARM_STEPS + 1]) == []
    assert different(*found) != []


def test_another_shape_is_refused():
    system, batches = begun("gan")
    graph = StepGraph(system, AtenRecording())
    for step in range(WARM_STEPS + 1):
        taken(system, batches, step, graph.step)
    batch = batches.of_step(0)
    with pytest.raises(ValueError, match=r"recorded with \[2, 1, 32, 32\], got \[1, 1, 32, 32\]"):
        graph.step(batch._replace(target=batch.target[:1]), Clock(9, 0.0, 20))


def test_what_a_step_returns_is_not_overwritten_by_the_next():
    system, batches = begun("gan")
    graph = StepGraph(system, AtenRecording())
    rows, copies = [], []
    for step in range(STEPS):
        clock = Clock(step, 0.0, STEPS)
        rows.append(graph.step(batches.of_step(step), clock))
        copies.append({name: float(value) for name, value in rows[-1].items()})
    assert [{name: float(value) for name, value in row.items()} for row in rows] == copies


# In the loop.


@pytest.fixture
def graphed(monkeypatch):
    """Runs are replayed, on the CPU."""
    monkeypatch.setattr(session, "plot_losses", lambda *args, **options: None)
    monkeypatch.setattr(session, "write_run_page", lambda *args, **options: None)
    made = []

    def stepper(session):
        made.append(StepGraph(session.system, AtenRecording()))
        return made[-1].step

    def switch():
        monkeypatch.setattr(loop.Loop, "stepper", stepper)
        return made

    return switch


# 2^-12, which float32 holds: a rate kept as a tensor is then the plain one.
RATES = [f"optimiser.{one}_lr=0.000244140625" for one in ("generator", "discriminator")]


def test_a_run_is_the_same_with_it_and_resumes_exactly(tmp_path, graphed):
    loop.train(tiny("steps=14", *RATES), tiny_data(), tmp_path / "plain")
    graphed()
    loop.train(tiny("steps=14", *RATES), tiny_data(), tmp_path / "whole")
    for steps in (6, 14):
        loop.train(tiny(f"steps={steps}", *RATES), tiny_data(), tmp_path / "parts")
    plain, whole, parts = (checkpoint.load(tmp_path / run) for run in ("plain", "whole", "parts"))
    assert different(plain, whole) == [".elapsed"]
    assert different(whole, parts) == [".elapsed"]
    for optimiser in whole["system"]["optimisers"].values():
        for group in optimiser["param_groups"]:
            assert (type(group["lr"]), group["capturable"]) == (float, False)


def test_a_run_that_goes_back_is_recorded_anew(tmp_path, graphed, monkeypatch):
    honest, spoilt = gan.Gan.plan, itertools.count()

    def plan(system, count, clock):
        found = honest(system, count, clock)
        if clock.step == 6 and next(spoilt) == 0:
            found["latents"] = found["latents"] * torch.nan
        return found

    settings = ["steps=12", "checkpoint_every=2", "guards.then=rollback", *RATES]
    monkeypatch.setattr(gan.Gan, "plan", plan)
    loop.train(tiny(*settings), tiny_data(), tmp_path / "plain")
    spoilt = itertools.count()
    made = graphed()
    loop.train(tiny(*settings), tiny_data(), tmp_path / "graph")
    assert len(made) == 2
    plain, graph = (checkpoint.load(tmp_path / run) for run in ("plain", "graph"))
    assert graph["watch"]["rollback"] == {"taken": 1}
    assert different(plain, graph) == [".elapsed"]


# Where it is not to be had.


@pytest.mark.parametrize(
    ("recipe", "settings", "world", "why"),
    [
        ("t2-tumour-cyclegan", [], 1, None),
        ("pix2pix-attention-unet", [SEEN], 1, None),
        ("tumour-dcgan64", [], 1, None),
        ("style-transfer-gan", [], 1, None),
        ("t2-tumour-cyclegan", ["graph=false"], 1, "graph=false"),
        ("t2-tumour-cyclegan", ["speed=false"], 1, "it is for --speed"),
        ("t2-tumour-cyclegan", ["compile=true"], 1, "torch.compile makes programs of its own"),
        ("t2-tumour-cyclegan", [], 2, "2 processes exchange gradients within a step"),
        ("tumour-progan", [], 1, "a progressive GAN's step changes as it grows"),
        ("phantom-quick", [], 1, "instance noise changes from step to step"),
    ],
)
def test_why_no_graph(recipe, settings, world, why):
    from fastmrigan.training.recipe_file import load_recipe

    assert why_no_graph(load_recipe(recipe, settings), Ranks(0, world)) == why


# On a GPU.


@pytest.fixture
def same_bits():
    """Convolutions whose sums are taken in one order."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


# Without reflected borders and bilinear enlargement: CUDA sums their gradients in any order.
ON_CUDA = ["cyclegan, dropout", "pix2pix, unet", "gan", "gan, diffaugment"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ON_CUDA)
def test_captured_steps_are_the_systems_own(name, same_bits):
    device = torch.device("cuda")
    system, batches = begun(name, device)
    wanted = [taken(system, batches, step, system.step) for step in range(STEPS)]
    captured, batches = begun(name, device)
    graph = StepGraph(captured)
    rows = [taken(captured, batches, step, graph.step) for step in range(STEPS)]
    assert different(rows, wanted) == []
    assert different(everything(captured), everything(system)) == []


@pytest.mark.gpu
def test_a_captured_run_resumes_exactly(tmp_path, same_bits, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(session, "plot_losses", lambda *args, **options: None)
    for run, bounds in {"whole": (14,), "parts": (6, 14)}.items():
        for steps in bounds:
            loop.train(tiny(f"steps={steps}"), tiny_data(), tmp_path / run, device="cuda")
    whole, parts = (checkpoint.load(tmp_path / run) for run in ("whole", "parts"))
    assert different(whole, parts) == [".elapsed"]


@pytest.mark.gpu
def test_what_cannot_be_captured_says_so():
    system, batches = begun("gan", torch.device("cuda"))
    honest = system.program

    def program(batch, plan):
        rows = honest(batch, plan)
        float(rows["loss_d"])  # waits for the device
        return rows

    system.program = program
    graph = StepGraph(system)
    for step in range(WARM_STEPS):
        taken(system, batches, step, graph.step)
    with pytest.raises(UsageError, match=r"cannot be recorded as a CUDA graph .*--set graph=false"):
        taken(system, batches, WARM_STEPS, graph.step)
