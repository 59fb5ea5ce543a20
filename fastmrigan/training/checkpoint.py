"""Checkpoints of a run: written whole or not at all, loaded without running code.

A checkpoint is one dict of plain values and tensors: schema, step, elapsed, recipe, dataset, the
states of the networks, optimisers and EMA, and the states of the random-number generators.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.files import write_whole
from fastmrigan.training import ema as running_mean
from fastmrigan.training.networks import (
    Networks,
    initial_networks,
    make_discriminator,
    make_generator,
)
from fastmrigan.training.recipe import Recipe, check, load_recipe

SCHEMA = 1
KEYS = {"schema", "step", "elapsed", "recipe", "dataset", "networks", "torch_rng", "cuda_rng"}
REMEDY = "move it away, and the run goes on from the one before it"


@dataclass(frozen=True)
class LoadedGenerator:
    module: nn.Module  # eval, float32, on the CPU: [N, latent] -> [N, 1, H, W] in [-1, 1]
    recipe: Recipe
    step: int
    dataset: dict[str, Any]  # fingerprint, count, labels, size, grading, contrast, label


@dataclass(frozen=True)
class LoadedDiscriminator:
    module: nn.Module  # eval, float32, on the CPU: [N, 1, H, W] -> logits [N]
    recipe: Recipe
    step: int
    dataset: dict[str, Any]


def path_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step_{step:07}.pt"


def steps_of(run: Path) -> list[int]:
    """Steps of the run's checkpoints, oldest first."""
    found = (re.fullmatch(r"step_(\d+)\.pt", path.name) for path in run.glob("checkpoints/*.pt"))
    return sorted(int(match[1]) for match in found if match)


def save(
    run: Path,
    networks: Networks,
    *,
    recipe: Recipe,
    dataset: dict[str, Any],
    step: int,
    elapsed: float,
) -> Path:
    """Writes the run's checkpoint of `step`; the EMA's batch norm must be calibrated."""
    document = {
        "schema": SCHEMA,
        "step": step,
        "elapsed": elapsed,  # seconds of training, all sessions of the run together
        "recipe": recipe.model_dump(mode="json"),
        "dataset": dataset,
        "networks": networks.state(),
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
    path = path_of(run, step)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, buffer.getbuffer())
    return path


def prune(run: Path, *, keep: int, milestones: set[int]) -> None:
    """Deletes all but the newest `keep` checkpoints and those of `milestones` (steps)."""
    for step in steps_of(run)[:-keep]:
        if step not in milestones:
            path_of(run, step).unlink()


def load(run: Path, step: int | None = None) -> dict[str, Any] | None:
    """The checkpoint of `step`, or the newest; None where the run has none yet.

    UsageError for a step that was not kept; ModelRefused for a damaged or newer file.
    """
    steps = steps_of(run)
    if step is None:
        if not steps:
            return None
        step = steps[-1]
    elif step not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise UsageError(f"{run}: no checkpoint of step {step}; kept are {known}")
    path = path_of(run, step)
    with path.open("rb") as file, damage_refused(path):
        # torch.load skips the checksums of the zip file, and would take flipped weights as they are
        with zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        file.seek(0)
        document = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(document, dict) or "schema" not in document:
            raise ModelRefused(f"{path}: not a checkpoint of fastmrigan; {REMEDY}")
        if document["schema"] > SCHEMA:
            raise ModelRefused(
                f"{path}: checkpoint schema {document['schema']}, this version reads up to "
                f"{SCHEMA}; update fastmrigan"
            )
        if not document.keys() >= KEYS:
            missing = ", ".join(sorted(KEYS - document.keys()))
            raise ModelRefused(f"{path}: not a whole checkpoint ({missing} missing); {REMEDY}")
        check(document["recipe"], "its recipe")
    return document


@contextlib.contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Turns what reading a damaged checkpoint raises into ModelRefused.

    Which exception a flipped byte ends in (of zipfile, pickle, torch, or a recipe's UsageError) is
    up to where it lies, so all but a lack of memory are taken for damage.
    """
    try:
        yield
    except (ModelRefused, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        fact = str(error) if isinstance(error, UsageError) else type(error).__name__
        raise ModelRefused(f"{path}: not a readable checkpoint ({fact}); {REMEDY}") from error


def restore(run: Path, document: dict[str, Any], networks: Networks) -> None:
    """Puts a checkpoint's networks, optimisers, EMA and random-number states in place.

    ModelRefused where they do not fit.
    """
    with damage_refused(path_of(run, document["step"])):
        networks.load_state(document["networks"])
        torch.set_rng_state(document["torch_rng"])
        if document["cuda_rng"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(document["cuda_rng"])


def load_generator(run: Path, *, step: int | None = None, ema: bool = True) -> LoadedGenerator:
    """The generator of a run's checkpoint (the newest, or `step`): its EMA, or the plain one.

    The plain one's batch norm is calibrated as the EMA's was, so that both can be compared.
    UsageError where `run` holds no checkpoint, ModelRefused where it cannot be read.
    """
    document, recipe = required(run, step)
    generator = make_generator(recipe)
    with damage_refused(path_of(run, document["step"])):
        generator.load_state_dict(document["networks"]["ema" if ema else "generator"])
    if not ema:
        running_mean.calibrate(generator, recipe.generator.latent, recipe.seed)
    return LoadedGenerator(
        frozen(generator), recipe, int(document["step"]), dict(document["dataset"])
    )


def load_discriminator(run: Path, *, step: int | None = None) -> LoadedDiscriminator:
    """The discriminator of a run's checkpoint; errors as in `load_generator`."""
    document, recipe = required(run, step)
    discriminator = make_discriminator(recipe)
    with damage_refused(path_of(run, document["step"])):
        discriminator.load_state_dict(document["networks"]["discriminator"])
    return LoadedDiscriminator(
        frozen(discriminator), recipe, int(document["step"]), dict(document["dataset"])
    )


def load_untrained_generator(run: Path) -> LoadedGenerator:
    """The generator the run began with: the initial weights of its seed, batch norm calibrated."""
    config = run / "config.yaml"
    if not config.is_file():
        raise UsageError(f"{run}: no config.yaml; not a run folder of `fastmrigan train`")
    recipe = load_recipe(str(config))
    rng = torch.get_rng_state()
    generator, _ = initial_networks(recipe)
    torch.set_rng_state(rng)
    running_mean.calibrate(generator, recipe.generator.latent, recipe.seed)
    return LoadedGenerator(frozen(generator), recipe, 0, {})


def required(run: Path, step: int | None) -> tuple[dict[str, Any], Recipe]:
    document = load(run, step)
    if document is None:
        raise UsageError(
            f"{run}: no checkpoint here; name the --out folder of a `fastmrigan train` run"
        )
    return document, check(document["recipe"], str(path_of(run, document["step"])))


def frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
