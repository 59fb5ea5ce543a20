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
    of a paired one, or two datasets (`source_data` the source's); in the last two cases the
    recipe's labels have nothing to tell apart and are not asked for.
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
    one = source_data is None and not (
        (folder / "dataset.json").is_file() and read_info(folder).paired
    )
    return data.load_unpaired(
        folder,
        options,
        source=source_data,
        target_label=recipe.target_label if one else None,
        source_label=recipe.source_label if one else None,
        reverse=recipe.reverse,
    )
