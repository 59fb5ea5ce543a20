"""What is trained and how: one class of recipes for each system."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import yaml
from pydantic import AfterValidator, Discriminator, Field, PositiveInt, model_validator

from fastmrigan.training import sections as part
from fastmrigan.training.evaluation import BETTER
from fastmrigan.training.sections import Section

SIZES = frozenset(2**power for power in range(4, 11))  # 16 to 1024

HOUSEKEEPING = frozenset(
    {"checkpoint_every", "keep_checkpoints", "sample_every", "sample_count", "plot_epochs"}
    | {"log_every", "notes", "paper", "evaluate_every", "guards", "graph"}
)


def power_of_two(size: int) -> int:
    if size not in SIZES:
        raise ValueError("must be a power of two from 16 to 1024")
    return size


def known_metric(name: str) -> str:
    if name not in BETTER:
        known = ", ".join(f"{metric} ({way} is better)" for metric, way in BETTER.items())
        raise ValueError(f"unknown; known are {known}")
    return name


Seed = Annotated[int, Field(ge=0, lt=2**63)]
Metric = Annotated[str, AfterValidator(known_metric)]


class Recipe(Section):
    """What every system has in common."""

    # A run may be resumed with other values of these.
    free_on_resume: ClassVar[frozenset[str]] = HOUSEKEEPING | {"steps", "epochs"}
    measures: ClassVar[tuple[str, ...]] = tuple(BETTER)  # what an evaluation may tell, by the data

    name: str
    paper: str  # the citation
    notes: tuple[str, ...] = ()  # what the paper leaves open or contradicts, and what we take
    size: Annotated[int, AfterValidator(power_of_two)] = 64
    channels: Literal[1, 3] = 1  # 3: the grey slice three times
    optimiser: part.Optimiser = part.Optimiser()
    schedule: part.Schedule = part.Schedule()
    augmentation: part.Augmentation = part.Augmentation()
    batch: PositiveInt = 128  # of one process; two processes see twice as many slices a step
    epochs: PositiveInt | None = None  # the first bound reached ends the run
    steps: PositiveInt | None = None
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast; losses and weights stay fp32
    fidelity: Literal["reference", "corrected"] = "reference"  # of the schedule, see schedule.py
    speed: bool = True  # the same mathematics in fewer passes; off: the reference's order
    compile: bool = False  # torch.compile: minutes at the start, for a GPU
    graph: bool = True  # with speed, on one GPU: the whole step recorded once, then replayed
    channels_last: bool = True  # memory layout of the activations; the same mathematics
    seed: Seed = 0
    guards: part.Guards = part.Guards()
    checkpoint_every: PositiveInt = 500  # steps
    keep_checkpoints: PositiveInt = 2  # newest ones; those of plot_epochs are kept beside them
    sample_every: PositiveInt = 250  # steps
    sample_count: PositiveInt = 64  # slices a sample grid; translating: rows
    plot_epochs: tuple[PositiveInt, ...] = ()
    log_every: PositiveInt = 10  # steps between writes; every step has its own line
    evaluate_every: PositiveInt | None = None  # epochs
    best_metric: Metric | None = None  # of those evaluated; its best checkpoint is kept

    @property
    def batches(self) -> dict[str, int]:
        """Settings that say how many slices go through a network at once, with their values."""
        return {"batch": self.batch}

    @property
    def batches_a_step(self) -> int:
        """Batches that one step takes, of `batch` slices each."""
        return 1

    @property
    def slices_a_step(self) -> int:
        """Slices of a side that one process sees in one step."""
        return self.batch * self.batches_a_step

    def total_steps(self, count: int, world: int = 1) -> int | None:
        """Steps until the first bound with `count` training slices; None without a bound."""
        bounds = [] if self.steps is None else [self.steps]
        epochs = [] if self.epochs is None else [self.epochs]
        if self.schedule.kind == "linear":  # there is no learning rate beyond
            epochs.append(self.schedule.constant_epochs + self.schedule.decay_epochs)
        bounds += [self.epoch_end(epoch, count, world) for epoch in epochs]
        return min(bounds, default=None)

    def epoch_end(self, epoch: int, count: int, world: int = 1) -> int:
        """The step after which every one of `count` slices has been seen `epoch` times."""
        return -(-epoch * count // (self.slices_a_step * world))

    def to_yaml(self) -> str:
        return yaml.safe_dump(
            self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=98
        )

    @model_validator(mode="after")
    def _best(self) -> Self:
        if self.best_metric is None:
            return self
        if self.evaluate_every is None:
            raise ValueError(
                f"best_metric {self.best_metric}: nothing is evaluated; give --set "
                "evaluate_every=K, in epochs, or best_metric=null"
            )
        if self.best_metric not in self.measures:
            raise ValueError(
                f"best_metric {self.best_metric!r}: not among the figures of such a run; choose "
                "one of " + ", ".join(self.measures)
            )
        return self


class GanRecipe(Recipe):
    """Slices from latents, one generator against one discriminator."""

    measures: ClassVar[tuple[str, ...]] = ("fd_random",)
    system: Literal["gan"]
    task: Literal["sample"] = "sample"
    label: str | None = None  # train on the slices of this label alone
    generator: Annotated[part.Dcgan | part.DenseDcgan, Discriminator("network")]
    discriminator: Annotated[
        part.DcganDiscriminator | part.DenseDcganDiscriminator, Discriminator("network")
    ]
    loss: Literal["bce"] = "bce"
    ema: part.Ema | None = part.Ema()
    deviations: part.GanDeviations = part.GanDeviations()


class ProganRecipe(Recipe):
    """Slices from latents, growing from 4x4, Wasserstein loss with gradient penalty."""

    measures: ClassVar[tuple[str, ...]] = ("fd_random",)
    free_on_resume: ClassVar[frozenset[str]] = HOUSEKEEPING  # it grows by its bound
    system: Literal["progan"]
    task: Literal["sample"] = "sample"
    label: str | None = None
    generator: part.Progan
    discriminator: part.ProganDiscriminator
    losses: part.ProganLosses = part.ProganLosses()
    growth: part.Growth = part.Growth()
    ema: part.Ema | None = part.Ema()

    @property
    def batches_a_step(self) -> int:
        """One for each of the critic's steps."""
        return self.losses.critic_steps

    @model_validator(mode="after")
    def _shares(self) -> ProganRecipe:
        stages = self.size.bit_length() - 2
        if self.growth.stage_shares and len(self.growth.stage_shares) != stages:
            raise ValueError(f"growth.stage_shares: expected {stages} for size {self.size}")
        if self.compile:
            raise ValueError("compile: torch.compile has no second derivative, for the penalty")
        if self.steps is None and self.epochs is None:
            raise ValueError("a progressive GAN grows by its bound: steps or epochs must be given")
        return self


class TranslationRecipe(Recipe):
    """Slices of a source domain to slices of a target domain."""

    task: Literal["translate"] = "translate"
    source_label: str | None = None  # of one prepared dataset that holds both domains
    target_label: str | None = None
    reverse: bool = False  # exchange source and target
    ema: part.Ema | None = None

    @model_validator(mode="after")
    def _both_labels(self) -> TranslationRecipe:
        if (self.source_label is None) != (self.target_label is None):
            raise ValueError("give source_label and target_label together, or neither")
        return self


TranslatingGenerator = Annotated[
    part.Resnet | part.Resnet34 | part.Unet | part.T1T2Unet | part.AttentionUnet,
    Discriminator("network"),
]
TranslationDiscriminator = Annotated[
    part.PatchGan | part.T1T2Discriminator, Discriminator("network")
]


class CycleGanRecipe(TranslationRecipe):
    """Unpaired, both ways at once: two generators, two discriminators."""

    system: Literal["cyclegan"]
    generator: TranslatingGenerator  # of both directions
    discriminator: TranslationDiscriminator  # of both domains
    losses: part.CycleLosses = part.CycleLosses()
    pool: Annotated[int, Field(ge=0, le=10_000)] = 50  # earlier fakes shown again

    @property
    def batches(self) -> dict[str, int]:
        if not self.losses.transport:
            return super().batches
        return super().batches | {"losses.transport_batch": self.losses.transport_batch}

    @model_validator(mode="after")
    def _batch_among_the_last(self) -> CycleGanRecipe:
        if self.losses.patches_of and not self.losses.patches:
            raise ValueError("losses.patches_of says of how many slices: give losses.patches too")
        if 0 < self.losses.patches_of < self.batch:
            raise ValueError(
                f"losses.patches_of: expected 0 or at least the batch of {self.batch}, got "
                f"{self.losses.patches_of}"
            )
        return self


class Pix2PixRecipe(TranslationRecipe):
    """Paired: a generator against a discriminator that sees the input beside the output."""

    measures: ClassVar[tuple[str, ...]] = tuple(name for name in BETTER if name != "fd_random")
    system: Literal["pix2pix"]
    generator: TranslatingGenerator
    discriminator: part.PatchGan
    losses: part.Pix2PixLosses = part.Pix2PixLosses()

    @model_validator(mode="after")
    def _no_labels(self) -> Pix2PixRecipe:
        if self.source_label is not None:
            raise ValueError(
                "pix2pix trains on every pair: leave source_label and target_label out; prepare "
                "the pairs that are wanted"
            )
        return self


class StylePairRecipe(TranslationRecipe):
    """Unpaired: the style of a target slice put on a source slice, and taken off again."""

    system: Literal["style-transfer-gan"]
    generator: part.StylePair  # source and a reference of the target to target
    generator_back: part.Resnet  # target to source
    discriminator: part.PatchGan  # of both domains
    losses: part.StylePairLosses = part.StylePairLosses()
    pool: Annotated[int, Field(ge=0, le=10_000)] = 50


AnyRecipe = Annotated[
    GanRecipe | ProganRecipe | CycleGanRecipe | Pix2PixRecipe | StylePairRecipe,
    Discriminator("system"),
]
