"""What the loop asks of a system: one step, its state, a grid to look at, slices to judge."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastmrigan.training import ema
from fastmrigan.training.augmenting import Batch as Batch
from fastmrigan.training.augmenting import as_seen, draws_to_show, key_of
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.guards import seed_of
from fastmrigan.training.networks import adam
from fastmrigan.training.schedule import linear_decay

Rows = dict[str, Tensor | float]
Plan = dict[str, Tensor]  # what a step takes from the host beside its batch, by name


@dataclass(frozen=True)
class Clock:
    step: int  # steps done before this one
    epoch: float  # epochs done before this one
    total_steps: int | None  # the run's bound in steps, where there is one
    stream: int = 0  # how often the run has been taken back: each time, other random numbers


class Timer:
    """Seconds of each phase of a step; a phase within another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # seconds of the phases within each open one

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            own = spent - self._inner.pop()
            self._inner[-1] += spent
            self.seconds[name] = self.seconds.get(name, 0.0) + own

    def take(self) -> dict[str, float]:
        """`<phase>_seconds` since the last call."""
        taken = {f"{name}_seconds": spent for name, spent in self.seconds.items()}
        self.seconds = {}
        return taken


class System:
    """Networks, their averages and optimisers: everything that changes from step to step but the
    random numbers. A subclass defines `make`, fills `ema` and the optimisers, and says what a step
    is.

    A step has two halves. `plan` decides on the host: random draws, what the image pools do. It is
    the only one that looks at the clock. `program` computes: a function of the weights, the batch
    and the plan, and the same operations on the same shapes from step to step, so that it can be
    recorded once and replayed (`step_graph`, which names the recipes that are exceptions).
    """

    in_parts: ClassVar[bool] = False  # a pass may leave parameters out
    # Discriminators by the ending of their columns: loss_d…, d_real_accuracy…, d_fake_accuracy….
    judges: ClassVar[dict[str, str]] = {"": "discriminator"}
    shows: ClassVar[tuple[str, ...]] = ("real", "fake", "judged")  # of augmenting.SHOWN

    def __init__(self, recipe: Any, data: TrainingData, device: torch.device, ranks: Ranks) -> None:
        self.recipe, self.data, self.device, self.ranks = recipe, data, device, ranks
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.networks = {
            name: network.to(device, memory_format=layout)
            for name, network in self.initial(recipe).items()
        }
        # As training calls them: `runs` averages gradients over the ranks, `plain` does not.
        self.plain: dict[str, Any] = {
            name: torch.compile(network) if recipe.compile else network
            for name, network in self.networks.items()
        }
        self.runs = {
            name: ranks.wrap(network, in_parts=self.in_parts)
            for name, network in self.plain.items()
        }
        self.ema: dict[str, nn.Module] = {}  # by the name of the network averaged; in eval mode
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self.rates: dict[str, float] = {}  # initial learning rate of each optimiser
        self.timer = Timer()

    @classmethod
    def make(cls, recipe: Any) -> dict[str, nn.Module]:
        """The networks by name, generators first, their weights not yet drawn."""
        raise NotImplementedError

    @classmethod
    def initial(cls, recipe: Any) -> dict[str, nn.Module]:
        """The networks with the initial weights of the recipe's seed.

        Seeds torch's global RNG, which the run then goes on with.
        """
        networks = cls.make(recipe)
        torch.manual_seed(recipe.seed)  # now: constructors draw numbers of their own
        for network in networks.values():
            network.initialise()  # type: ignore[operator]
        return networks

    def prepare(self) -> Iterator[str]:
        """What takes its time before the first step, with lines that tell of it."""
        yield from ()

    def step(self, batch: Batch, clock: Clock) -> Rows:
        """One training step; losses by name, tensors still on the device."""
        plan = self.plan(self.count_of(batch), clock)
        rows = self.program(batch, {key: draws.to(self.device) for key, draws in plan.items()})
        self.update_averages(clock)
        return rows

    def work(self, begin: int, end: int, total: int) -> float:
        """What steps `begin` to `end` - 1 of `total` cost, by any unit: for the time left."""
        return end - begin

    def count_of(self, batch: Batch) -> int:
        """Slices of one batch; a step may be given several in one."""
        batches: int = self.recipe.batches_a_step
        return len(batch.target) // batches

    def plan(self, count: int, clock: Clock) -> Plan:
        """What the next step takes from the host, on the CPU: small tensors whose names and shapes
        are the same at each step. Random streams move on. count: slices of a batch."""
        return draws_to_show(
            self.recipe,
            count,
            seed=seed_of(self.recipe.seed, clock.stream),
            step=clock.step,
            shows=self.shows,
            times=self.recipe.batches_a_step,
            ranks=self.ranks,
        )

    def program(self, batch: Batch, plan: Plan) -> Rows:
        """The step but for the averages; plan: on the device."""
        raise NotImplementedError

    def seen(self, slices: Tensor, plan: Plan, shown: str, number: int = 0) -> Tensor:
        """Slices as a discriminator is shown them, the `number`th time in this step."""
        return as_seen(slices, self.recipe, plan.get(key_of(shown, number)))

    def grid(self, count: int) -> tuple[Tensor, int]:
        """Slices [n, H, W] to look at, on the CPU, and the columns to lay them out in."""
        raise NotImplementedError

    def figures(self, seed: int) -> dict[str, float]:
        """What is measured in the loop on held-out slices, by name."""
        raise NotImplementedError

    def measured(self) -> tuple[str, ...]:
        """Names of those figures that tell which checkpoint is better.

        UsageError where the data do not allow any.
        """
        raise NotImplementedError

    def ready_to_judge(self, step: int) -> None:
        """Called before the averages are looked at or saved."""

    def average(self, name: str) -> None:
        """Keeps a running mean of a network's weights."""
        self.ema[name] = copy.deepcopy(self.networks[name]).requires_grad_(False).eval()

    def update_averages(self, clock: Clock) -> None:
        """Takes the networks' present weights into their running means."""
        with self.timer.phase("ema"):
            for name, mean in self.ema.items():
                ema.update(mean, self.networks[name], clock.step, self.recipe.ema)

    def optimise(self, name: str, rate: float, *networks: str) -> None:
        """One optimiser over the parameters of `networks`."""
        chosen = [self.networks[each] for each in networks]
        self.optimisers[name] = adam(self.recipe, rate, *chosen)
        self.rates[name] = rate

    def set_rates(self, clock: Clock) -> dict[str, float]:
        """Puts the schedule's learning rates in place; {"lr_<optimiser>": rate}."""
        options, factor = self.recipe.schedule, 1.0
        if options.kind == "linear":
            factor = linear_decay(
                int(clock.epoch) + 1,
                constant_epochs=options.constant_epochs,
                decay_epochs=options.decay_epochs,
                fidelity=self.recipe.fidelity,
            )
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(self.rates[name] * factor)
                else:
                    group["lr"] = self.rates[name] * factor
        return {f"lr_{name}": rate * factor for name, rate in self.rates.items()}

    def keep_rates_on_device(self) -> None:
        """Learning rates as float32 tensors, which `set_rates` then fills: a recorded step reads
        them anew. To be called again after `load_state`, which brings plain ones."""
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=self.device)
                group["capturable"] = True

    def half(self) -> torch.autocast:
        bf16 = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def update(self, name: str, loss: Tensor) -> None:
        """One step of an optimiser down `loss`."""
        self.optimisers[name].zero_grad()
        loss.backward()
        self.descend(name)

    def descend(self, name: str) -> None:
        """One step of an optimiser by the gradients that are there; those of the generators (the
        optimiser "g") clipped first, where the recipe says so."""
        optimiser, most = self.optimisers[name], self.recipe.optimiser.generator_clip
        with self.timer.phase("optimiser"):
            if name == "g" and most is not None:
                held = [each for group in optimiser.param_groups for each in group["params"]]
                nn.utils.clip_grad_norm_(held, most)
            optimiser.step()

    def state(self) -> dict[str, Any]:
        """What every rank has alike."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "ema": {name: network.state_dict() for name, network in self.ema.items()},
            "optimisers": {name: plain_state(each) for name, each in self.optimisers.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, network in self.ema.items():
            network.load_state_dict(state["ema"][name])
        for name, each in self.optimisers.items():
            each.load_state_dict(state["optimisers"][name])
        self.load_more_state(state["more"])

    def more_state(self) -> dict[str, Any]:
        """What changes besides, on each rank in its own way: image pools, recent slices, the
        transport's pass. Plain values, tensors."""
        return {}

    def load_more_state(self, state: dict[str, Any]) -> None:
        """The counterpart of `more_state`."""

    def begin_stream(self, stream: int) -> None:
        """Other random numbers from here: the run has been taken back for the `stream`th time."""

    def all_finite(self) -> bool:
        return all(
            bool(torch.isfinite(parameter).all())
            for network in self.networks.values()
            for parameter in network.parameters()
        )

    def judged_network(self, name: str) -> nn.Module:
        """The average of a network where there is one, else the network itself."""
        return self.ema.get(name, self.networks[name])


def plain_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state_dict, its learning rates as plain floats however they are kept."""
    state = optimiser.state_dict()
    groups = [
        group | {"lr": float(group["lr"]), "capturable": False} for group in state["param_groups"]
    ]
    return state | {"param_groups": groups}
