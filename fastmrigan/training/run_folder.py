"""The run folder: who may write it, what it was begun with, and whether it may be resumed."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastmrigan
from fastmrigan.errors import UsageError
from fastmrigan.files import write_whole
from fastmrigan.imaging.contact_sheet import contact_sheet, write_png
from fastmrigan.training import checkpoint
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.networks import parameter_count
from fastmrigan.training.recipe import Recipe
from fastmrigan.training.recipe_file import check, differences
from fastmrigan.training.systems import System


@contextlib.contextmanager
def locked(run: Path, ranks: Ranks) -> Iterator[None]:
    """Makes the folder and holds it for one writer, the first rank; UsageError while another
    trains there, and where the folder is a dataset's or holds generated slices."""
    if not ranks.first:
        yield
        return
    for name in ("dataset.json", "run.json"):  # a run has its config.yaml before its run.json
        if (run / name).exists() and not (run / "config.yaml").exists():
            raise UsageError(
                f"{run}: holds something other than a run ({name}); name another folder for --out"
            )
    try:
        run.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{run}: is a file; name a folder for --out") from error
    with (run / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{run}: another process is training here") from error
        yield


def resumable(
    run: Path, recipe: Recipe, dataset: dict[str, Any], ranks: Ranks
) -> dict[str, Any] | None:
    """The newest checkpoint if it belongs to this recipe and data; None for a fresh folder.

    UsageError names what differs.
    """
    document = checkpoint.load(run)
    if document is None:
        return None
    found = differences(check(document["recipe"], str(run)), recipe)
    for key in ("fingerprint", "label", "training_slices", "paired", "source"):
        if document["dataset"].get(key) != dataset.get(key):
            found.append(f"dataset {key}: {document['dataset'].get(key)} -> {dataset.get(key)}")
    if len(document["torch_rng"]) != ranks.world:
        found.append(f"processes: {len(document['torch_rng'])} -> {ranks.world}")
    if found:
        raise UsageError(
            f"{run}: holds a run of another configuration ({'; '.join(found)}); "
            "give the same one to resume it, or another --out"
        )
    return document


def write_config(run: Path, recipe: Recipe) -> None:
    write_whole(run / "config.yaml", recipe.to_yaml().encode())


def write_run(run: Path, progress: dict[str, Any], system: System, watched: dict[str, Any]) -> None:
    """run.json: how far the run is, what it trains, and on what."""
    facts = {"schema": 1} | progress
    facts["parameters"] = {
        name: parameter_count(network) for name, network in system.networks.items()
    }
    facts |= {
        "best": watched["best"],
        "rollbacks": watched["rollback"]["taken"],
        "device": system.device.type,
        "processes": system.ranks.world,
        "threads": torch.get_num_threads(),
        "versions": {"fastmrigan": fastmrigan.__version__, "torch": torch.__version__},
    }
    write_whole(run / "run.json", (json.dumps(facts, indent=2) + "\n").encode())


def write_samples(run: Path, step: int, slices: Tensor, columns: int) -> None:
    """samples/step_….png of slices [n, H, W] in [-1, 1]."""
    (run / "samples").mkdir(exist_ok=True)
    sheet = contact_sheet(slices.numpy(), columns=columns)
    write_png(run / "samples" / f"step_{step:07}.png", sheet)
