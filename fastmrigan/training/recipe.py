"""Recipes: what is trained and how, as a checked YAML document that names its paper."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from fastmrigan.errors import UsageError

# Bounds and housekeeping: a run may be resumed with other values of these.
FREE_ON_RESUME = frozenset(
    {"steps", "epochs", "checkpoint_every", "keep_checkpoints", "sample_every", "sample_count"}
    | {"plot_epochs", "log_every", "notes", "paper"}
)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def power_of_two(size: int) -> int:
    if not 16 <= size <= 1024 or size & (size - 1):
        raise ValueError("must be a power of two from 16 to 1024")
    return size


Width = Annotated[int, Field(ge=1, le=1024)]  # channels
Beta = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Generator(Section):
    network: Literal["dcgan"]
    latent: Annotated[int, Field(ge=1, le=65536)] = 100  # numbers a slice is drawn from, N(0, 1)
    width: Width = 64  # channels before the last layer


class Discriminator(Section):
    network: Literal["dcgan"]
    width: Width = 64  # channels after the first layer


class Optimiser(Section):
    name: Literal["adam"] = "adam"
    generator_lr: PositiveFloat = 2e-4
    discriminator_lr: PositiveFloat = 2e-4
    betas: tuple[Beta, Beta] = (0.5, 0.999)


class Ema(Section):
    """A running mean of the generator's weights: kept beside it, never fed back into training."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    # Early on the decay is min(decay, (1 + step) / (10 + step)), so that short runs have one too.
    ramp: bool = True


class Deviations(Section):
    """Departures from the paper, each off by default."""

    horizontal_flip: bool = False  # mirror half of the real slices
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0  # below 1: one-sided label smoothing
    # Standard deviation of the Gaussian noise on all that the discriminator sees, after Arjovsky
    # and Bottou 2017, falling to 0 in a line: coarse structure is judged before fine.
    instance_noise: NonNegativeFloat = 0.0
    instance_noise_steps: PositiveInt = 1000  # until it is 0


class Recipe(Section):
    name: str
    paper: str  # the citation
    notes: tuple[str, ...] = ()  # what the paper leaves open or contradicts, and what we take
    task: Literal["sample"] = "sample"  # from latents to slices
    size: Annotated[int, AfterValidator(power_of_two)] = 64
    channels: Literal[1] = 1
    label: str | None = None  # train on the slices of this label alone
    generator: Generator
    discriminator: Discriminator
    loss: Literal["bce"] = "bce"
    optimiser: Optimiser = Optimiser()
    ema: Ema = Ema()
    deviations: Deviations = Deviations()
    batch: PositiveInt = 128
    epochs: PositiveInt | None = None  # the first bound reached ends the run
    steps: PositiveInt | None = None
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast; losses and weights stay fp32
    channels_last: bool = True  # memory layout of the activations; the same mathematics
    seed: Seed = 0
    checkpoint_every: PositiveInt = 500  # steps
    keep_checkpoints: PositiveInt = 2  # newest ones; those of plot_epochs are kept beside them
    sample_every: PositiveInt = 250  # steps
    sample_count: PositiveInt = 64  # slices a sample grid
    plot_epochs: tuple[PositiveInt, ...] = ()
    log_every: PositiveInt = 10  # steps between writes; every step has its own line

    def total_steps(self, count: int) -> int | None:
        """Steps until the first bound with `count` training slices; None without a bound."""
        bounds = [] if self.steps is None else [self.steps]
        if self.epochs is not None:
            bounds.append(self.epoch_end(self.epochs, count))
        return min(bounds, default=None)

    def epoch_end(self, epoch: int, count: int) -> int:
        """The step after which every one of `count` slices has been seen `epoch` times."""
        return -(-epoch * count // self.batch)

    def to_yaml(self) -> str:
        return yaml.safe_dump(
            self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=98
        )


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("fastmrigan.training") / "recipes"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(recipe: str, overrides: list[str] | None = None) -> Recipe:
    """A shipped recipe by name or a YAML file by path, with `key=value` overrides applied.

    Nested keys are dotted: `optimiser.generator_lr=1e-4`. UsageError names what is wrong: the
    recipe (and the known ones), the field, or the key (and the nearest).
    """
    if recipe in shipped_recipes():
        source = f"recipe {recipe}"
        text = (resources.files("fastmrigan.training") / "recipes" / f"{recipe}.yaml").read_text(
            encoding="utf-8"
        )
    elif recipe.endswith((".yaml", ".yml")):
        source = recipe
        try:
            text = Path(recipe).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{recipe}: not a text file; a recipe is YAML") from error
    else:
        raise UsageError(
            f"no recipe named {recipe!r}; shipped are {', '.join(shipped_recipes())} "
            "(or give the path of a .yaml file)"
        )
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not readable as YAML: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"{source}: expected `field: value` lines, got {type(document).__name__}")
    parsed = check(document, source)
    if not overrides:
        return parsed
    document = parsed.model_dump(mode="json")
    for override in overrides:
        apply_override(document, override)
    return check(document, f"{source} with --set")


def check(document: dict[str, Any], source: str) -> Recipe:
    """The Recipe of `document`; UsageError names the first faulty field."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{source}: unknown field {field!r}{nearest(field)}") from error
        message = first["msg"].removeprefix("Value error, ")
        value = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise UsageError(f"{source}: {field}: {message}{value}") from error


def apply_override(document: dict[str, Any], override: str) -> None:
    """Sets one `key=value` (YAML value) in place."""
    key, sign, value = override.partition("=")
    if not sign:
        raise UsageError(f"--set {override!r}: expected key=value, for example --set batch=64")
    *parents, last = key.split(".")
    section: Any = document
    for part in parents:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or last not in section or isinstance(section[last], dict):
        raise UsageError(f"--set {override!r}: no field {key!r} in the recipe{nearest(key)}")
    try:
        section[last] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise UsageError(f"--set {override!r}: the value is not readable as YAML") from error


def fields(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every settable field, dotted."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += fields(field.annotation, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def nearest(key: str) -> str:
    """`; the nearest is ...`, looking at the dotted names and at their last parts."""
    known = fields()
    last = key.rsplit(".", 1)[-1]
    by_last = {name.rsplit(".", 1)[-1]: name for name in known}
    close = [name for name in known if last in name] or [
        by_last[name] for name in difflib.get_close_matches(last, by_last, 1, 0.5)
    ]
    close = close or difflib.get_close_matches(key, known, 1, 0.5)
    if not close:
        return f"; known are {', '.join(known)}"
    return f"; the nearest is {' or '.join(map(repr, close))}"


def differences(old: Recipe, new: Recipe) -> list[str]:
    """`field: old -> new` for every field that must not change within a run."""
    found: list[str] = []

    def walk(a: dict[str, Any], b: dict[str, Any], prefix: str) -> None:
        for key in sorted(a.keys() | b.keys()):
            if not prefix and key in FREE_ON_RESUME:
                continue
            left, right = a.get(key), b.get(key)
            if isinstance(left, dict) and isinstance(right, dict):
                walk(left, right, f"{prefix}{key}.")
            elif left != right:
                found.append(f"{prefix}{key}: {left} -> {right}")

    walk(old.model_dump(mode="json"), new.model_dump(mode="json"), "")
    return found
