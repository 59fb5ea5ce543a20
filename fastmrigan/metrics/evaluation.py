"""Everything `fastmrigan evaluate` measures, gathered into one plain result."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import fastmrigan
from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.metrics import measures, slice_sets
from fastmrigan.metrics.features import DIMENSION, FEATURES_SEED, FEATURES_VERSION, random_features
from fastmrigan.metrics.measures import Measure
from fastmrigan.metrics.neighbours import Neighbours, nearest_real
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.training.checkpoint import LoadedGenerator, load_generator
from fastmrigan.training.logging import read_metrics

KIND = "fastmrigan-evaluation"
UNTRAINED = 2000  # slices drawn from the untrained generator, at most
ENOUGH = 2048  # below this many slices on a side the report warns
SHOWN_NEIGHBOURS = 16
CURVES = ("epoch", "loss_d", "loss_g")


@dataclass
class Evaluation:
    """Numbers for report.json, and the slices and curves that the page draws."""

    real: SliceSet
    synthetic: SliceSet
    measures: list[Measure]
    neighbour_of: npt.NDArray[np.int64]  # [16], synthetic slices whose neighbours are shown
    neighbours: Neighbours  # of those, among all real slices
    curves: list[dict[str, Any]]  # rows of the run's metrics.jsonl
    warnings: list[str]
    settings: dict[str, Any]
    versions: dict[str, str]

    def value(self, key: str) -> float | None:
        return next((m.value for m in self.measures if m.key == key), None)

    def document(self) -> dict[str, Any]:
        """What report.json holds."""
        return {
            "schema": 1,
            "kind": KIND,
            "notice": fastmrigan.NOTICE,
            "measures": {
                m.key: {k: v for k, v in asdict(m).items() if k != "key"} for m in self.measures
            },
            "warnings": self.warnings,
            "settings": self.settings,
            "versions": self.versions,
        }


def evaluate(
    real: Path,
    synthetic: Path,
    *,
    label: str | None = None,
    run: Path | None = None,
    classifier_data: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measures synthetic slices against real ones.

    real, synthetic: see `read_slice_set`; of a paired real set, the side that the run's generator
    makes; label: of the real slices, by default the one the run
    was trained on; run: a training run, for its discriminator, curves and untrained generator;
    classifier_data: a prepared dataset with the labels tumour and normal; limit: at most so many
    synthetic slices. Raises UsageError for sets too small or of different sizes, InputRejected
    for damaged ones.
    """
    if (synthetic / "dataset.json").is_file():
        raise UsageError(
            f"{synthetic}: a prepared dataset, which holds real slices; give --synthetic the --out "
            "of `fastmrigan synth`"
        )
    trained = None if run is None else load_generator(run)
    if label is None and trained is not None:
        label = trained.dataset.get("label")  # of the target side, where there are two
    curves = [] if run is None else read_curves(run / "metrics.jsonl")
    # Of a paired set, a translating run makes the targets out of the sources, or the reverse.
    recipe = None if trained is None else trained.recipe
    twins = recipe is not None and recipe.task == "translate" and not recipe.reverse
    ours = slice_sets.read_slice_set(real, label=label, twins=twins)
    theirs = slice_sets.read_slice_set(synthetic, limit=limit)
    same_size(ours, theirs)
    if run is not None and trained is not None:
        size_of_run(run, trained.recipe.size, ours)
    if len(ours.slices) < 4:
        raise UsageError(f"{real}: {len(ours.slices)} real slices, a split in halves needs 4")
    labelled = None
    if classifier_data is not None:
        labelled = slice_sets.read_labelled(classifier_data)
        same_size(labelled[0], theirs)

    real_features = random_features(ours.slices, label="features of real slices")  # [N, 464]
    made_features = random_features(theirs.slices, label="features of synthetic slices")
    found = measures.frechet_measures(real_features, made_features, seed)
    if run is not None and trained is not None and trained.recipe.task == "sample":
        made = measures.untrained_slices(run, min(UNTRAINED, len(theirs.slices)), seed)
        features = random_features(made, label="features of untrained slices")  # [M, 464]
        found += measures.untrained_measures(real_features, features, found[0].value)
    found.append(measures.diversity(ours.slices, theirs.slices, seed))
    found.append(measures.copying(ours, theirs))
    if labelled is not None:
        found += measures.classifier_measures(*labelled, theirs, seed)
    if run is not None and trained is not None and trained.recipe.system == "gan":
        found += measures.discriminator_measures(run, ours, theirs, seed)

    draws = np.random.default_rng(seed)
    shown = min(SHOWN_NEIGHBOURS, len(theirs.slices))
    neighbour_of = np.sort(draws.choice(len(theirs.slices), shown, replace=False))
    return Evaluation(
        real=ours,
        synthetic=theirs,
        measures=found,
        neighbour_of=neighbour_of,
        neighbours=nearest_real(theirs.slices[neighbour_of], ours.slices),
        curves=curves,
        warnings=sample_warnings(len(ours.slices), len(theirs.slices)),
        settings=settings(ours, theirs, seed, run, trained, classifier_data),
        versions=versions(),
    )


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, each with the numbers drawn. Raises InputRejected."""
    rows = read_metrics(path)
    for number, row in enumerate(rows, 1):
        for key in CURVES:
            if not isinstance(row.get(key), int | float):
                raise InputRejected(
                    f"{path}: line {number} has no number {key}; delete it, or leave --run out"
                )
    return rows


def same_size(one: SliceSet, other: SliceSet) -> None:
    if one.slices.shape[1:] != other.slices.shape[1:]:
        sizes = [
            f"{side.path} holds {side.slices.shape[1]}x{side.slices.shape[2]}"
            for side in (one, other)
        ]
        raise UsageError(
            f"{' and '.join(sizes)} slices; prepare and generate both at the same size"
        )


def size_of_run(run: Path, size: int, real: SliceSet) -> None:
    height, width = real.slices.shape[1:]
    if (height, width) != (size, size):
        raise UsageError(
            f"{run} was trained on {size}x{size} slices, but {real.path} and the synthetic ones "
            f"are {height}x{width}; give the run that made them, or leave --run out"
        )


def sample_warnings(real: int, made: int) -> list[str]:
    small = [f"{n:,} {kind}" for n, kind in ((real, "real"), (made, "synthetic")) if n < ENOUGH]
    if not small:
        return []
    return [
        f"Small sample: {' and '.join(small)} slices. A Frechet distance on {DIMENSION} features "
        f"grows as samples shrink; below {ENOUGH:,} slices on each side compare it with the floor "
        "of the same real set only, and with nothing measured at another sample size."
    ]


def settings(
    real: SliceSet,
    made: SliceSet,
    seed: int,
    run: Path | None,
    trained: LoadedGenerator | None,
    classifier_data: Path | None,
) -> dict[str, Any]:
    height, width = real.slices.shape[1:]
    rows = {
        "real": str(real.path),
        **{f"real, {key}": value for key, value in real.facts.items()},
        "synthetic": str(made.path),
        **{f"synthetic, {key}": value for key, value in made.facts.items()},
        "real slices": len(real.slices),
        "synthetic slices": len(made.slices),
        "slice size": f"{height}x{width}, one grey channel",
        "seed": seed,
        "features": f"fd-random version {FEATURES_VERSION}, {DIMENSION} numbers a slice, "
        f"seed {FEATURES_SEED}",
    }
    if trained is not None:
        rows |= {"run": str(run), "recipe": trained.recipe.name, "step": trained.step}
    if classifier_data is not None:
        rows["classifier data"] = str(classifier_data)
    return rows


def versions() -> dict[str, str]:
    return {
        "fastmrigan": fastmrigan.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }
