"""The run folder: who may write it, what it was begun with, and whether it may be resumed."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastmrigan.errors import UsageError
from fastmrigan.files import write_whole
from fastmrigan.training import checkpoint
from fastmrigan.training.recipe import Recipe, check, differences


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Makes the folder and holds it for one writer; UsageError while another trains there."""
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


def resumable(run: Path, recipe: Recipe, dataset: dict[str, Any]) -> dict[str, Any] | None:
    """The newest checkpoint if it belongs to this recipe and data; None for a fresh folder.

    UsageError names what differs.
    """
    document = checkpoint.load(run)
    if document is None:
        return None
    found = differences(check(document["recipe"], str(run)), recipe)
    for key in ("fingerprint", "label", "training_slices"):
        if document["dataset"].get(key) != dataset.get(key):
            found.append(f"dataset {key}: {document['dataset'].get(key)} -> {dataset.get(key)}")
    if found:
        raise UsageError(
            f"{run}: holds a run of another configuration ({'; '.join(found)}); "
            "give the same one to resume it, or another --out"
        )
    return document


def write_config(run: Path, recipe: Recipe) -> None:
    write_whole(run / "config.yaml", recipe.to_yaml().encode())


def write_run(run: Path, facts: dict[str, Any]) -> None:
    write_whole(run / "run.json", (json.dumps(facts, indent=2) + "\n").encode())
