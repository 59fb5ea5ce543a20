"""Unpaired translation, both ways at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmrigan.errors import UsageError
from fastmrigan.training.augmenting import SHOWN
from fastmrigan.training.data import TrainingData, with_channels
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.guards import seed_of
from fastmrigan.training.image_pool import ImagePool
from fastmrigan.training.losses import adversarial, called_real, l1
from fastmrigan.training.networks import has_batch_norm, make_discriminator, make_generator
from fastmrigan.training.order import draws_of
from fastmrigan.training.patches import draw_filters, patch_distance
from fastmrigan.training.recent import RecentSlices, places
from fastmrigan.training.recipe import CycleGanRecipe
from fastmrigan.training.structure import structure_loss
from fastmrigan.training.systems.base import Batch, Clock, Plan, Rows
from fastmrigan.training.systems.translating import TranslatingSystem, evenly
from fastmrigan.training.tone import fit_tones, toned
from fastmrigan.training.transport import Transport, network_of, transport_loss

PATCH_STREAM, TRANSPORT_STREAM = 255, 254  # of draws_of; what discriminators are shown has 16 to 21


class CycleGan(TranslatingSystem):
    """Zhu et al. 2017. "generator" makes target slices of source slices, "generator_back" the
    other way; "discriminator" judges target slices, "discriminator_back" source slices.

    With `speed`, passes of one network that do not wait for each other are made as one batch:
    generator of the source and identity of the target, real and fake. Instance norm treats each
    slice by itself, so the mathematics is the same; with batch norm they stay apart.
    """

    recipe: CycleGanRecipe
    judges = {"_target": "discriminator", "_source": "discriminator_back"}  # noqa: RUF012
    shows = SHOWN

    def __init__(
        self, recipe: CycleGanRecipe, data: TrainingData, device: torch.device, ranks: Ranks
    ) -> None:
        super().__init__(recipe, data, device, ranks)
        rates = recipe.optimiser
        self.optimise("g", rates.generator_lr, "generator", "generator_back")
        self.optimise("d", rates.discriminator_lr, "discriminator", "discriminator_back")
        if recipe.ema is not None:
            self.average("generator")
            self.average("generator_back")
        self.pools = {name: ImagePool(recipe.pool) for name in ("target", "source")}
        self.recent: dict[str, RecentSlices] = {}  # made and real ones of each side, once needed
        self.tones: dict[str, Tensor] = {}  # curves to target and source, once they are needed
        self.transport = Transport(ranks)
        if isinstance(recipe, CycleGanRecipe) and recipe.losses.transport:
            self.check_transport()
        self.begin_stream(0)
        self.merges_g = recipe.speed and not has_batch_norm(self.networks["generator"])
        self.merges_d = recipe.speed and not has_batch_norm(self.networks["discriminator"])

    def check_transport(self) -> None:
        """UsageError where sources could not be held to where they are to go."""
        assert self.data.sources is not None
        fewest = min(len(self.data.sources), len(self.data.slices))
        if fewest < 2:
            raise UsageError(
                f"losses.transport: needs 2 slices of each side at least, got {fewest}; prepare "
                "more slices, or --set losses.transport=0"
            )
        if has_batch_norm(self.networks["generator"]):
            raise UsageError(
                "losses.transport: the generator has batch norm, and translates a batch in "
                "training other than slices by themselves; give it instance norm "
                "(--set generator.norm=instance), or --set losses.transport=0"
            )

    @property
    def identity_weight(self) -> float:
        weights = self.recipe.losses
        return weights.identity * (weights.cycle if weights.identity_times_cycle else 1.0)

    @classmethod
    def make(cls, recipe: CycleGanRecipe) -> dict[str, nn.Module]:
        return {
            "generator": make_generator(recipe, recipe.generator),
            "generator_back": make_generator(recipe, recipe.generator),
            "discriminator": make_discriminator(recipe, recipe.discriminator),
            "discriminator_back": make_discriminator(recipe, recipe.discriminator),
        }

    def plan(self, count: int, clock: Clock) -> Plan:
        plan = super().plan(count, clock) | self.plan_of_losses(count, clock)
        # Last: where slices cannot be read for the losses, the pools must not have moved on.
        return plan | {f"pool_{name}": pool.plan(count) for name, pool in self.pools.items()}

    def plan_of_losses(self, count: int, clock: Clock) -> Plan:
        """Weights that change, the patches' filters and places, the curves of grey levels."""
        weights = self.recipe.losses
        plan: Plan = {}
        left = max(0.0, 1 - clock.epoch / weights.tone_epochs) if weights.tone else 0.0
        if weights.patches:
            draws = draws_of(seed_of(self.recipe.seed, clock.stream), clock.step, PATCH_STREAM)
            plan["filters"] = draw_filters(self.recipe.size, draws)
            plan["patches"] = torch.tensor(weights.patches * (1 - left))
            if weights.patches_of:
                plan["recent"] = places(weights.patches_of, clock.step, count)
        if weights.tone:
            plan["tone"] = torch.tensor(weights.tone * left)
            if not self.tones:
                self.tones, _ = self.fit_tones()
            plan |= {f"tone_{made}": knots for made, knots in self.tones.items()}
        if weights.transport:
            plan |= self.ranks.together(lambda: self.transport_plan(clock))
        return plan

    def transport_plan(self, clock: Clock) -> Plan:
        sources = self.data.sources
        assert sources is not None
        if self.transport.over(clock.step):
            draws = draws_of(seed_of(self.recipe.seed, clock.stream), clock.step, TRANSPORT_STREAM)
            with self.timer.phase("transport"), self.half():
                self.transport.begin(
                    clock.step,
                    sources,
                    self.data.slices,
                    lambda slices: self.translated("generator", slices, averaged=False),
                    draws,
                    self.recipe.losses.transport_batch,
                    self.device,
                )
        return self.transport.plan(clock.step, sources)

    def prepare(self) -> Iterator[str]:
        if self.recipe.losses.tone and not self.tones:
            yield "train: fitting the curves of grey levels"
            self.tones, doubts = self.fit_tones()
            yield from doubts

    def fit_tones(self) -> tuple[dict[str, Tensor], list[str]]:
        """The curves of grey levels to "target" and to "source", of the training slices; where they
        may be wrong, why."""
        source, target = self.data.sources, self.data.slices
        assert source is not None
        tones = fit_tones(source, target, np.random.default_rng(self.recipe.seed))
        doubts = [
            "train: the curves of grey levels (losses.tone) may be the wrong ones, at a distance "
            f"of {tones.distance:.3g} where others have {tones.runner_up:.3g}: look at the first "
            "samples, and try another --seed"
        ]
        found = {"target": tones.to_target, "source": tones.to_source}
        return found, doubts if tones.doubtful else []

    def program(self, batch: Batch, plan: Plan) -> Rows:
        """Both generators at once, then both discriminators, as the reference does."""
        assert batch.source is not None
        source, target = batch.source, batch.target  # [N, C, H, W] each
        with self.timer.phase("generator"):
            rows, fake_target, fake_source = self.generator_step(source, target, plan)
        with self.timer.phase("discriminator"):
            judged_target = self.pools["target"].exchange(fake_target, plan["pool_target"])
            judged_source = self.pools["source"].exchange(fake_source, plan["pool_source"])
            loss, real_share, fake_share = self.discriminator_loss(
                "discriminator", target, judged_target, plan
            )
            loss_back, real_back, fake_back = self.discriminator_loss(
                "discriminator_back", source, judged_source, plan
            )
            self.update("d", loss + loss_back)
        return rows | {
            "loss_d": (loss + loss_back).detach(),
            "loss_d_target": loss.detach(),
            "loss_d_source": loss_back.detach(),
            "d_real_accuracy": (real_share + real_back) / 2,
            "d_fake_accuracy": (fake_share + fake_back) / 2,
            "d_real_accuracy_target": real_share,
            "d_fake_accuracy_target": fake_share,
            "d_real_accuracy_source": real_back,
            "d_fake_accuracy_source": fake_back,
        }

    def generator_step(
        self, source: Tensor, target: Tensor, plan: Plan
    ) -> tuple[Rows, Tensor, Tensor]:
        """One step of both generators: the losses, and what they made for the discriminators.

        With `speed` each direction is taken back before the next one is begun, and the transport
        after both: gradients add up to the same, and the activations of one alone are kept.
        """
        for name in ("discriminator", "discriminator_back"):
            self.networks[name].requires_grad_(False)  # not used in this half
        for optimiser in self.optimisers.values():
            optimiser.zero_grad()  # the discriminators' too: this half is where memory peaks
        total = torch.zeros((), device=self.device)
        rows: Rows = {}
        fakes = []
        for given, wanted, back in ((source, target, ""), (target, source, "_back")):
            loss, parts, fake = self.one_way(given, wanted, back, plan)
            fakes.append(fake.detach().float())
            rows |= {name: value.detach() for name, value in parts.items()}
            total = total + self.taken_back(loss)
        if "transport_source" in plan:
            loss = self.whole_slices_apart(plan)
            rows["loss_transport_target"] = loss.detach()
            total = total + self.taken_back(self.recipe.losses.transport * loss)
        if not self.recipe.speed:
            total.backward()
        self.descend("g")
        return {"loss_g": total.detach(), **rows}, fakes[0], fakes[1]

    def taken_back(self, loss: Tensor) -> Tensor:
        """A part of the loss: with `speed` its gradients are added now, and it has none."""
        if not self.recipe.speed:
            return loss
        loss.backward()
        return loss.detach()

    def one_way(
        self, given: Tensor, wanted: Tensor, back: str, plan: Plan
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """One direction's weighted loss, its parts by name, and the slices made.

        back: "" for source to target, "_back" for target to source.
        """
        weights = self.recipe.losses
        made, kept = ("source", "target") if back else ("target", "source")
        other = "generator" if back else "generator_back"
        with self.half():
            fake, same = self.forth_and_same(f"generator{back}", given, wanted)
            again = self.runs[other](fake)
            judged = self.plain[f"discriminator{back}"](self.seen(fake, plan, f"judged{back}"))
        parts = {
            f"loss_g_{made}": adversarial(judged, weights.adversarial, real=True),
            f"loss_cycle_{kept}": l1(again, given),
        }
        loss = weights.adversarial_weight * parts[f"loss_g_{made}"]
        loss = loss + weights.cycle * parts[f"loss_cycle_{kept}"]
        if same is not None:
            parts[f"loss_identity_{made}"] = l1(same, wanted)
            loss = loss + self.identity_weight * parts[f"loss_identity_{made}"]
        if weights.structure:
            parts[f"loss_structure_{made}"] = structure_loss(fake, given)
            loss = loss + weights.structure * parts[f"loss_structure_{made}"]
        if weights.patches:
            parts[f"loss_patches_{made}"] = self.patches_apart(fake, wanted, made, plan)
            loss = loss + plan["patches"] * parts[f"loss_patches_{made}"]
        if weights.tone:
            parts[f"loss_tone_{made}"] = l1(fake, toned(given, plan[f"tone_{made}"]))
            loss = loss + plan["tone"] * parts[f"loss_tone_{made}"]
        return loss, parts, fake

    def whole_slices_apart(self, plan: Plan) -> Tensor:
        """How far the sources of a pass are, translated, from where they are to go."""
        sources = with_channels(plan["transport_source"], self.recipe.channels)
        with self.half():
            made = self.runs["generator"](sources)
        return transport_loss(made, network_of(plan), plan["transport_wanted"])

    def patches_apart(self, fake: Tensor, real: Tensor, made: str, plan: Plan) -> Tensor:
        """The distance of patches, of the batch or of the last `patches_of` slices of both."""
        if "recent" in plan:
            fake = self.recent_of(f"made_{made}").beside(fake, plan["recent"])
            real = self.recent_of(f"real_{made}").beside(real, plan["recent"])
        return patch_distance(fake, real, plan["filters"])

    def recent_of(self, name: str) -> RecentSlices:
        return self.recent.setdefault(name, RecentSlices(self.recipe.losses.patches_of))

    def forth_and_same(
        self, name: str, slices: Tensor, own: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """A generator's translation of `slices`, and of slices that are its target already."""
        generator = self.runs[name]
        if not self.identity_weight:
            return generator(slices), None
        if self.merges_g:
            made, same = generator(torch.cat([slices, own])).chunk(2)
            return made, same
        return generator(slices), generator(own)

    def discriminator_loss(
        self, name: str, real: Tensor, fake: Tensor, plan: Plan
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted loss, and the shares of patches called right among real and fake ones."""
        self.networks[name].requires_grad_(True)
        kind = self.recipe.losses.adversarial
        side = name.removeprefix("discriminator")
        real = self.seen(real, plan, f"real{side}")
        fake = self.seen(fake, plan, f"fake{side}")
        with self.half():
            if self.merges_d:
                on_real, on_fake = self.runs[name](torch.cat([real, fake])).chunk(2)
            else:
                on_real, on_fake = self.runs[name](real), self.runs[name](fake)
        loss = adversarial(on_real, kind, real=True) + adversarial(on_fake, kind, real=False)
        return (
            self.recipe.losses.discriminator * loss,
            called_real(on_real.detach(), kind).float().mean(),
            1 - called_real(on_fake.detach(), kind).float().mean(),
        )

    def grid(self, count: int) -> tuple[Tensor, int]:
        """A row: source, as target, back again; target, as source, back again."""
        data = self.judged_on
        assert data.sources is not None
        count = min(count, len(data.sources), len(data.slices))
        columns = []
        for first, there, back in (
            (evenly(data.sources, count), "generator", "generator_back"),
            (evenly(data.slices, count), "generator_back", "generator"),
        ):
            made = self.translated(there, first)
            columns += [first, made, self.translated(back, made)]
        return torch.stack([column[:, 0] for column in columns], 1).flatten(0, 1), len(columns)

    def begin_stream(self, stream: int) -> None:
        if stream:  # what was begun may be what went wrong
            self.transport.end()
        for number, pool in enumerate(self.pools.values()):
            seed = seed_of(self.recipe.seed, stream) + number + 2 * self.ranks.rank
            pool.reseed(seed % 2**63)

    def more_state(self) -> dict[str, Any]:
        pools = {f"pool_{name}": pool.state_dict() for name, pool in self.pools.items()}
        recent = {name: slices.state_dict() for name, slices in self.recent.items()}
        transport = self.transport.state_dict()
        return pools | {"recent": recent, "tones": self.tones, "transport": transport}

    def load_more_state(self, state: dict[str, Any]) -> None:
        for name, pool in self.pools.items():
            pool.load_state_dict(state[f"pool_{name}"])
        for name, slices in state.get("recent", {}).items():
            self.recent_of(name).load_state_dict(slices)
        self.tones = state.get("tones", {})
        self.transport.load_state_dict(state.get("transport", {}))
