"""What train_step.py times: the baseline, fastmrigan's system, the baseline with one change each.

A side has `networks` by name (generator, generator_back, discriminator, discriminator_back) and
`step(source, target)`, which returns the losses by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from train_step_baseline import BETAS, IDENTITY, LAMBDA, RATE, Baseline


@dataclass(frozen=True)
class Setting:
    size: int = 256
    batch: int = 1
    width: int = 64  # of all networks; 64 is the canonical one
    blocks: int = 9
    device: str = "cpu"

    def slices(self, seed: int = 0) -> Tensor:
        """[batch, 1, size, size] in [-1, 1]."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(self.batch, 1, self.size, self.size, generator=generator)
        return (2 * drawn - 1).to(self.device)


class Side(Protocol):
    networks: dict[str, nn.Module]

    def step(self, source: Tensor, target: Tensor) -> Mapping[str, Tensor | float]: ...


@dataclass(frozen=True)
class Changes:
    """What an ablation changes of the baseline; each is the same mathematics but bf16."""

    fused_norm: bool = False  # fastmrigan.ops in place of nn.InstanceNorm2d and its activation
    channels_last: bool = False
    merged_generators: bool = False  # a generator's translation and its identity as one batch
    merged_discriminators: bool = False  # real and fake as one batch
    separate_backwards: bool = False  # four of the generators' loss, each after its own passes
    no_inert_bias: bool = False  # none before an instance norm
    fused_adam: bool = False
    kept: bool = False  # the process keeps freed memory
    bf16: bool = False  # autocast
    compiled: bool = False


class Changed(Baseline):
    """The baseline with changes."""

    def __init__(self, setting: Setting, changes: Changes) -> None:
        self.changes = changes
        self.fused_adam = True if changes.fused_adam else None
        self.biased = not changes.no_inert_bias
        super().__init__(setting.width, setting.blocks, setting.device)
        for network in self.networks.values():
            if changes.fused_norm:
                from fastmrigan.ops import fuse_instance_norm

                fuse_instance_norm(network, backend="native")
            if changes.channels_last:
                network.to(memory_format=torch.channels_last)
            if changes.bf16:
                half = torch.autocast(setting.device, torch.bfloat16)(network.forward)
                network.forward = lambda slices, half=half: half(slices).float()
            if changes.compiled:
                network.compile(dynamic=False)

    def translate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if not self.changes.merged_generators:
            return super().translate(source, target)
        there, back, *_ = self.networks.values()
        fake_target, self.same_target = there(torch.cat([source, target])).chunk(2)
        source_again = back(fake_target)
        fake_source, self.same_source = back(torch.cat([target, source])).chunk(2)
        target_again = there(fake_source)
        return fake_target, source_again, fake_source, target_again

    def identities(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if not self.changes.merged_generators:
            return super().identities(source, target)
        same = self.same_target, self.same_source
        del self.same_target, self.same_source  # or their graph would live on
        return same

    def step_generators(
        self, source: Tensor, target: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        if not self.changes.separate_backwards:
            return super().step_generators(source, target)
        there, back, judge, judge_back = self.networks.values()
        for network in (judge, judge_back):
            network.requires_grad_(False)
        self.adam_g.zero_grad()
        losses: dict[str, Tensor] = {"loss_g": torch.zeros((), device=source.device)}
        fakes = []
        # The cycle and the identity of either direction share no activations: those of one are
        # gone before the next is made, and the gradients add up in place.
        for name, other, first, second, judging, slices, wanted in (
            ("target", "source", there, back, judge, source, target),
            ("source", "target", back, there, judge_back, target, source),
        ):
            fake = first(slices)
            on_fake, cycle = self.judged(judging(fake), True), self.l1(second(fake), slices)
            (on_fake + LAMBDA * cycle).backward()
            fakes.append(fake.detach())
            del fake
            identity = self.l1(first(wanted), wanted)
            (LAMBDA * IDENTITY * identity).backward()
            losses[f"loss_g_{name}"] = on_fake.detach()
            losses[f"loss_cycle_{other}"] = cycle.detach()
            losses[f"loss_identity_{name}"] = identity.detach()
            losses["loss_g"] += (on_fake + LAMBDA * (cycle + IDENTITY * identity)).detach()
        self.adam_g.step()
        return losses, *fakes

    def backward_discriminator(self, judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        if not self.changes.merged_discriminators:
            return super().backward_discriminator(judge, real, fake)
        on_real, on_fake = judge(torch.cat([real, fake])).chunk(2)
        loss = 0.5 * (self.judged(on_real, True) + self.judged(on_fake, False))
        loss.backward()
        return loss


class Ours:
    """fastmrigan's own system, as `train` runs it."""

    def __init__(self, setting: Setting, **choices: Any) -> None:
        """choices: fields of the recipe, over those of the reference."""
        from fastmrigan.training.data import TrainingData
        from fastmrigan.training.distributed import Ranks
        from fastmrigan.training.recipe import CycleGanRecipe
        from fastmrigan.training.systems import system_of

        recipe = CycleGanRecipe.model_validate(
            {
                "name": "train-step",
                "paper": "Zhu et al. 2017",
                "system": "cyclegan",
                "size": setting.size,
                "batch": setting.batch,
                "generator": {
                    "network": "resnet",
                    "width": setting.width,
                    "blocks": setting.blocks,
                },
                "discriminator": {"network": "patchgan", "width": setting.width},
                "losses": {"adversarial": "lsgan", "cycle": 10.0, "identity": 0.5},
                "optimiser": {"generator_lr": RATE, "discriminator_lr": RATE, "betas": BETAS},
                "pool": 50,
            }
            | choices
        )
        cpu = Setting(setting.size, setting.batch)
        data = TrainingData(cpu.slices(1), {}, sources=cpu.slices(0))
        self.system: Any = system_of(recipe)(recipe, data, torch.device(setting.device), Ranks())
        self.networks: dict[str, nn.Module] = self.system.networks
        self.take = self.system.step
        self.steps = 0

    def step(self, source: Tensor, target: Tensor) -> Mapping[str, Tensor | float]:
        from fastmrigan.training.systems import Batch, Clock

        losses = self.take(Batch(target, source), Clock(self.steps, 0.0, None))
        self.steps += 1
        return losses


class Graphed(Ours):
    """The same, each step replayed as one CUDA graph once a few have been taken."""

    def __init__(self, setting: Setting, **choices: Any) -> None:
        from fastmrigan.training.step_graph import StepGraph

        super().__init__(setting, **choices)
        self.take = StepGraph(self.system).step


class Entry(NamedTuple):
    make: Callable[[Setting], Side]
    kept: bool = False  # fastmrigan.ops.keep_freed_memory() is called where its process starts
    tolerance: str = "fp32"


def entry_of(changes: Changes) -> Entry:
    precision = "bf16" if changes.bf16 else "fp32"
    return Entry(lambda setting: Changed(setting, changes), changes.kept, precision)


def entry_of_ours(precision: str, *, speed: bool) -> Entry:
    choices = {"precision": precision, "speed": speed, "channels_last": speed}
    return Entry(lambda setting: Ours(setting, **choices), speed, precision)


BASELINE = Entry(lambda setting: Baseline(setting.width, setting.blocks, setting.device))
OURS = {
    "ours, reference order": entry_of_ours("fp32", speed=False),
    "ours, speed": entry_of_ours("fp32", speed=True),
    "ours, speed, bf16": entry_of_ours("bf16", speed=True),
}
ABLATION = {
    "fused instance norm": entry_of(Changes(fused_norm=True)),
    # Not channels_last alone: the gradient of nn.InstanceNorm2d is wrong there at batch 1 (torch
    # 2.13, CPU), which the check finds.
    "fused instance norm, channels_last": entry_of(Changes(fused_norm=True, channels_last=True)),
    "merged generator passes": entry_of(Changes(merged_generators=True)),
    "merged discriminator passes": entry_of(Changes(merged_discriminators=True)),
    "separate backward passes": entry_of(Changes(separate_backwards=True)),
    "no inert bias": entry_of(Changes(no_inert_bias=True)),
    "fused Adam": entry_of(Changes(fused_adam=True)),
    "memory kept": entry_of(Changes(kept=True)),
    "bf16": entry_of(Changes(bf16=True)),
    "torch.compile": entry_of(Changes(compiled=True)),
}
SIDES = {"baseline": BASELINE, **OURS, **ABLATION}
# On CUDA alone. It replays from its fourth step on.
GRAPHED = {
    "ours, speed, bf16, graph": Entry(
        lambda setting: Graphed(setting, precision="bf16", speed=True, channels_last=True),
        tolerance="bf16",
    )
}
