"""What a recipe trains on, from the prepared datasets it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import read_info
from fastmrigan.training import data
from fastmrigan.training.data import DataOptions, TrainingData


def load_training_data(
    folder: Path, recipe: Any, *, source_data: Path | None = None, world: int = 1
) -> TrainingData:
    """The slices of `recipe`; errors as those of fastmrigan.training.data.

    Translating without pairs, the two domains are the two labels of one dataset, or the two sides
    of a paired one, or two datasets (`source_data` the source's). Nothing but its sides tells those
    of a paired one apart, and the recipe's labels are not asked for. Of two datasets each is cut to
    the recipe's label for its side, unless its slices have none at all.
    """
    options = DataOptions(
        recipe.size,
        recipe.batch,
        world=world,
        recipe=recipe.name,
        smallest_batch=2 if recipe.system == "gan" else 1,  # batch norm needs company
    )
    unpaired = recipe.system in ("cyclegan", "style-transfer-gan")
    if not unpaired and source_data is not None:
        raise UsageError(f"--source-data {source_data}: {recipe.name} takes one dataset, --data")
    if recipe.task == "sample":
        return data.load_unconditional(folder, options, label=recipe.label)
    if recipe.system == "pix2pix":
        return data.load_paired(folder, options, reverse=recipe.reverse)
    target_label, source_label = recipe.target_label, recipe.source_label
    if source_data is not None:
        target_label = label_of_side(folder, target_label)
        source_label = label_of_side(source_data, source_label)
    elif (folder / "dataset.json").is_file() and read_info(folder).paired:
        target_label = source_label = None
    return data.load_unpaired(
        folder,
        options,
        source=source_data,
        target_label=target_label,
        source_label=source_label,
        reverse=recipe.reverse,
    )


def label_of_side(folder: Path, label: str | None) -> str | None:
    """The label to take of one of two datasets; UsageError where it has others alone."""
    if label is None or not (folder / "dataset.json").is_file():  # the loader says what is wrong
        return label
    info = read_info(folder)
    if info.paired:
        return label  # the loader says that it has both sides already
    labels = info.labels
    if set(labels) == {""}:
        return None
    if label not in labels:
        has = ", ".join(map(repr, labels))
        raise UsageError(
            f"{folder}: no label {label!r}; it has {has}; name its own, or take all of both sets "
            "with --set source_label=null --set target_label=null"
        )
    return label
