"""Which real slices synthetic ones should look like, and of which inputs translations were made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import DatasetInfo, read_info
from fastmrigan.jobs.translation import UNKNOWN
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.metrics.translated import Origins, read_origins
from fastmrigan.runtime.engine_file import read_model
from fastmrigan.runtime.model_file import ModelMetadata
from fastmrigan.training.checkpoint import LoadedGenerator


@dataclass(frozen=True)
class Direction:
    """What is known of how the synthetic slices came about."""

    label: str | None  # of the real slices that they should look like
    targets: bool  # whether those are the target side of a paired dataset
    origins: Origins | None  # where --real is the dataset that was translated
    no_pairs: str = ""  # why there are no pairs, where there are none
    no_sources: str = ""  # why there are no origins, where there are none
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # for the report's settings

    @property
    def pairs(self) -> Origins | None:
        """The origins, where that dataset has a true target for each."""
        return None if self.no_pairs else self.origins


def direction_of(
    real: Path,
    made: SliceSet,
    trained: LoadedGenerator | None,
    model: Path | None,
    limit: int | None = None,
) -> Direction:
    """What the records of the slices `made`, their run and their model file say.

    Where the records name `real` itself, and it is paired, its targets are the truth: `fastmrigan
    translate` reads its sources. Else a translating generator is held against the side that it was
    trained to make; a model file exported with --back makes the other side. Raises UsageError for
    a model file that did not make these slices.
    """
    metadata = None if model is None else model_of(model, made)
    recipe = None if trained is None else trained.recipe
    data = (
        trained.dataset
        if trained is not None
        else {}
        if metadata is None
        else metadata.training_data
    )
    back = metadata is not None and bool(metadata.training.get("back"))
    label = (data.get("source", {}) if back else data).get("label")
    facts = {} if metadata is None else described(model, metadata, back)
    makes_targets = recipe is not None and recipe.task == "translate" and recipe.reverse == back

    info = read_info(real) if (real / "dataset.json").is_file() else None
    origins = read_origins(made.path, limit) if made.facts.get("task") == "translate" else None
    ours = info is not None and origins is not None and origins.dataset == info.fingerprint
    if info is None or not info.paired:
        reason = "--real is no prepared dataset of pairs (`fastmrigan prepare --pairs`)"
    elif origins is None:
        reason = "the synthetic slices name no inputs: they are not of `fastmrigan translate`"
    elif origins.dataset != info.fingerprint:
        reason = (
            f"the slices were translated from another dataset (fingerprint "
            f"{origins.dataset[:12]}…) than --real"
        )
    else:
        makes = metadata.target_contrast if metadata is not None else one_way(trained)
        return Direction(label, True, origins, "", "", other_contrast(info, makes), facts)
    if ours:
        return Direction(label, makes_targets, origins, reason, "", [], facts)
    return Direction(label, makes_targets, None, reason, unknown_sources(origins, info), [], facts)


def unknown_sources(origins: Origins | None, info: DatasetInfo | None) -> str:
    """Why --real, of facts `info` where it is a prepared dataset, is not what was translated."""
    if origins is None:
        return "the synthetic slices name no inputs: they are not of `fastmrigan translate`"
    has = "none" if info is None else f"{info.fingerprint[:12]}…"
    return (
        "--real is not the prepared dataset that was translated (the slices name fingerprint "
        f"{origins.dataset[:12]}…, --real has {has}); give that dataset as --real"
    )


def model_of(path: Path, made: SliceSet) -> ModelMetadata:
    """The metadata of the model file that made these slices. Raises UsageError for another one."""
    file = read_model(path)
    wanted = made.facts.get("model_sha256", file.sha256)
    if wanted != file.sha256:
        raise UsageError(
            f"{path}: did not make the slices of {made.path} (its sha256 is {file.sha256[:12]}…, "
            f"theirs {str(wanted)[:12]}…); give the model file that did, or leave --model out"
        )
    return file.metadata


def one_way(trained: LoadedGenerator | None) -> str | None:
    """The contrast that a run's one generator makes; None where it has two, and either may have."""
    if trained is None or trained.recipe.system != "pix2pix":
        return None
    contrast: str | None = trained.dataset.get("contrast")
    return contrast


def other_contrast(info: DatasetInfo, makes: str | None) -> list[str]:
    if makes in UNKNOWN or info.target_contrast in UNKNOWN or makes == info.target_contrast:
        return []
    return [
        f"The generator makes {makes} slices, and the true targets of this dataset are "
        f"{info.target_contrast}: the figures of the pairs compare two contrasts. Translate a "
        "dataset that was prepared the other way round."
    ]


def described(model: Path | None, metadata: ModelMetadata, back: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"model": str(model), "model, recipe": metadata.recipe}
    if metadata.task == "translate":
        facts["model, direction"] = (
            f"{metadata.source_contrast or 'source'} to {metadata.target_contrast or 'target'}"
            + (" (exported with --back)" if back else "")
        )
    return facts
