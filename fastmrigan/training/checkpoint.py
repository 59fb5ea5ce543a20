"""Checkpoints of a run: written whole or not at all, loaded without running code.

A checkpoint is one dict of plain values and tensors: schema, step, elapsed, recipe, dataset, the
states of networks, averages, optimisers, image pools, recent slices and the pass of the transport,
the watch's memory, and the states of every process's random-number generators.
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
from fastmrigan.models.faces import SampleFace, TranslateFace
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.recipe_file import check, load_recipe
from fastmrigan.training.systems import System, system_of
from fastmrigan.training.systems.sampling import calibrate

SCHEMA = 2
KEYS = {"schema", "step", "elapsed", "recipe", "dataset", "system", "watch", "torch_rng"}
KEYS |= {"cuda_rng"}
REMEDY = "move it away, and the run goes on from the one before it"


@dataclass(frozen=True)
class LoadedGenerator:
    # eval, float32, on the CPU: latents [N, latent] from N(0, 1), or slices [N, 1, H, W] of the
    # source, to slices [N, 1, H, W] in [-1, 1]
    module: nn.Module
    recipe: Any
    step: int
    dataset: dict[str, Any]  # fingerprint, count, labels, size, grading, contrast, label
    averaged: bool  # the EMA's weights


@dataclass(frozen=True)
class LoadedDiscriminator:
    module: nn.Module  # eval, float32, on the CPU: [N, 1, H, W], **options -> logits [N]
    recipe: Any
    path: Path  # of the checkpoint
    options: dict[str, float]  # how far a progressive GAN's last stage has faded in


def path_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step_{step:07}.pt"


def steps_of(run: Path) -> list[int]:
    """Steps of the run's checkpoints, oldest first."""
    found = (re.fullmatch(r"step_(\d+)\.pt", path.name) for path in run.glob("checkpoints/*.pt"))
    return sorted(int(match[1]) for match in found if match)


def save(
    run: Path,
    system: System,
    ranks: Ranks,
    *,
    recipe: Any,
    dataset: dict[str, Any],
    step: int,
    elapsed: float,
    watch: dict[str, Any],
) -> Path:
    """Writes the run's checkpoint of `step`, by the first rank; all ranks must ask.

    The averages must be ready to judge.
    """
    more = ranks.gather(system.more_state())
    torch_rng = ranks.gather(torch.get_rng_state())
    cuda_rng = ranks.gather(torch.cuda.get_rng_state() if torch.cuda.is_available() else None)
    path = path_of(run, step)
    if not ranks.first:
        return path
    document = {
        "schema": SCHEMA,
        "step": step,
        "elapsed": elapsed,  # seconds of training, all sessions of the run together
        "recipe": recipe.model_dump(mode="json"),
        "dataset": dataset,
        "system": system.state() | {"more": more},
        "watch": watch,
        "torch_rng": torch_rng,
        "cuda_rng": cuda_rng,
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
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
                f"{path}: checkpoint schema {document['schema']}, this version reads {SCHEMA}; "
                "update fastmrigan"
            )
        if document["schema"] < SCHEMA:
            raise ModelRefused(
                f"{path}: checkpoint schema {document['schema']} of an earlier fastmrigan, this "
                f"version reads {SCHEMA}; go on with that one, or begin a new run"
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


def restore(run: Path, document: dict[str, Any], system: System, ranks: Ranks) -> None:
    """Puts a checkpoint's system and this rank's random-number states in place.

    ModelRefused where they do not fit.
    """
    with damage_refused(path_of(run, document["step"])):
        state = document["system"]
        system.load_state(state | {"more": state["more"][ranks.rank]})
        torch.set_rng_state(document["torch_rng"][ranks.rank])
        cuda_rng = document["cuda_rng"][ranks.rank]
        if cuda_rng is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(cuda_rng)


def load_generator(
    run: Path, *, step: int | None = None, ema: bool = True, back: bool = False
) -> LoadedGenerator:
    """The generator of a run's checkpoint (the newest, or `step`): its EMA where there is one and
    `ema` asks for it, or the plain one. `back`: CycleGAN's generator of source slices.

    A plain one's batch norm is calibrated as the EMA's was, so that both can be compared.
    UsageError where `run` holds no checkpoint or no such generator, ModelRefused where it cannot
    be read.
    """
    document, recipe = required(run, step)
    name = "generator_back" if back else "generator"
    networks = system_of(recipe).make(recipe)
    if name not in networks:
        raise UsageError(f"{run}: {recipe.name} has no generator of the other direction")
    network = networks[name]
    averaged = ema and recipe.ema is not None
    with damage_refused(path_of(run, document["step"])):
        network.load_state_dict(document["system"]["ema" if averaged else "networks"][name])
    if recipe.task == "sample" and not averaged:
        calibrate(network, recipe)
    grown = reached(run, document, recipe) if recipe.system == "progan" else {}
    face = faced(network, recipe, **grown)
    return LoadedGenerator(face, recipe, int(document["step"]), dict(document["dataset"]), averaged)


def reached(run: Path, document: dict[str, Any], recipe: Any) -> dict[str, float]:
    """How far a progressive GAN's last stage has faded in; UsageError before that stage."""
    path = path_of(run, document["step"])
    with damage_refused(path):
        state = document["system"]["more"][0]
        stage, alpha = int(state["stage"]), float(state["alpha"])
    side = 4 << stage
    if side < recipe.size:
        raise UsageError(
            f"{path}: {recipe.name} has grown to {side}x{side} so far, and what makes "
            f"{recipe.size}x{recipe.size} is untrained; resume the run to its end"
        )
    return {"alpha": alpha}


def faced(network: nn.Module, recipe: Any, **options: Any) -> nn.Module:
    """The generator as every other part of the program knows generators."""
    if recipe.task == "sample":
        return frozen(SampleFace(network, **options))
    return frozen(TranslateFace(network, recipe.channels))


def load_discriminator(run: Path, *, step: int | None = None) -> LoadedDiscriminator:
    """The discriminator of a run's checkpoint; errors as in `load_generator`."""
    document, recipe = required(run, step)
    discriminator = system_of(recipe).make(recipe)["discriminator"]
    with damage_refused(path_of(run, document["step"])):
        discriminator.load_state_dict(document["system"]["networks"]["discriminator"])
    options = reached(run, document, recipe) if recipe.system == "progan" else {}
    return LoadedDiscriminator(
        frozen(discriminator), recipe, path_of(run, document["step"]), options
    )


def load_untrained_generator(run: Path) -> LoadedGenerator:
    """The generator the run began with: the initial weights of its seed, batch norm calibrated."""
    config = run / "config.yaml"
    if not config.is_file():
        raise UsageError(f"{run}: no config.yaml; not a run folder of `fastmrigan train`")
    recipe: Any = load_recipe(str(config))
    rng = torch.get_rng_state()
    generator = system_of(recipe).initial(recipe)["generator"]
    torch.set_rng_state(rng)
    if recipe.task == "sample":
        calibrate(generator, recipe)
    return LoadedGenerator(faced(generator, recipe), recipe, 0, {}, False)


def required(run: Path, step: int | None) -> tuple[dict[str, Any], Any]:
    document = load(run, step)
    if document is None:
        raise UsageError(
            f"{run}: no checkpoint here; name the --out folder of a `fastmrigan train` run"
        )
    return document, check(document["recipe"], str(path_of(run, document["step"])))


def frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
