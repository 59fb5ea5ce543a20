"""What an evaluation is asked for, and all that it reads: checked before anything is measured."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import fastmrigan
from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.metrics.direction import Direction, direction_of
from fastmrigan.metrics.extraction import (
    FeatureNetwork,
    check_precision,
    inception_network,
    onnx_network,
)
from fastmrigan.metrics.features import DIMENSION, FEATURES_SEED, FEATURES_VERSION
from fastmrigan.metrics.inception import ENVIRONMENT
from fastmrigan.metrics.slice_sets import SliceSet, need_folder, read_labelled, read_slice_set
from fastmrigan.training.checkpoint import LoadedGenerator, load_generator
from fastmrigan.training.logging import read_metrics

CURVES = ("epoch", "loss_d", "loss_g")


@dataclass(frozen=True)
class Asked:
    """What an evaluation is asked for: the options of the command."""

    real: Path  # prepared dataset, or a folder of slices
    synthetic: Path  # the --out of synth or translate
    label: str | None = None  # of the real slices; default: what the generator was trained on
    run: Path | None = None  # for its discriminator, curves and untrained generator
    model: Path | None = None  # the model file that made the slices
    classifier_data: Path | None = None  # prepared dataset, one of its labels tumour
    inception_weights: Path | None = None
    inception_precision: str = "fp32"  # or bf16
    features: Path | None = None  # an ONNX network of the user's own
    limit: int | None = None  # synthetic slices, the first ones
    seed: int = 0
    only: tuple[str, ...] = ()  # names of choice.MEASURES
    skip: tuple[str, ...] = ()
    thorough: bool = False  # the slow measures too


@dataclass(frozen=True)
class Inputs:
    """Everything that the measures are taken from."""

    asked: Asked
    real: SliceSet
    made: SliceSet
    direction: Direction
    trained: LoadedGenerator | None
    labelled: tuple[SliceSet, npt.NDArray[np.bool_]] | None  # slices, True where tumour
    inception: FeatureNetwork | None
    own: FeatureNetwork | None  # of --features
    curves: list[dict[str, Any]]  # rows of the run's metrics.jsonl

    @property
    def label(self) -> str | None:
        """What the synthetic slices are meant to be."""
        return self.asked.label if self.asked.label is not None else self.direction.label


def check_asked(asked: Asked) -> None:
    """UsageError for options that are wrong by themselves; reads no slices."""
    check_precision(asked.inception_precision, "--inception-precision")
    wanted = "give the folder of a prepared dataset"
    for option, path, remedy in (
        ("--real", asked.real, f"{wanted} or of generated slices"),
        ("--synthetic", asked.synthetic, "give the --out of `fastmrigan synth` or `translate`"),
        ("--run", asked.run, "give the --out of `fastmrigan train`"),
        ("--classifier-data", asked.classifier_data, wanted),
    ):
        if path is not None:
            need_folder(path, remedy, option)
    if (asked.synthetic / "dataset.json").is_file():
        raise UsageError(
            f"{asked.synthetic}: a prepared dataset, which holds real slices; give --synthetic the "
            "--out of `fastmrigan synth`"
        )
    if asked.real.resolve() == asked.synthetic.resolve():
        raise UsageError(
            f"--real and --synthetic are the same folder, {asked.real}: every distance of a set to "
            "itself is 0 and says nothing; give two"
        )


def read_inputs(asked: Asked, chosen: frozenset[str]) -> Inputs:
    """Reads and checks all of it; networks only where one of the measures `chosen` needs them.

    Raises UsageError for sets too small or of different sizes, InputRejected for damaged ones,
    ModelRefused for weights, checkpoints or model files that must not be used.
    """
    check_asked(asked)
    run = asked.run
    trained = None if run is None else load_generator(run)
    curves = [] if run is None else read_curves(run / "metrics.jsonl")
    made = read_slice_set(asked.synthetic, limit=asked.limit)
    direction = direction_of(asked.real, made, trained, asked.model, asked.limit)
    label = asked.label if asked.label is not None else direction.label
    real = read_slice_set(asked.real, label=label, twins=direction.targets)
    same_size(real, made)
    if run is not None and trained is not None:
        size_of_run(run, trained.recipe.size, real)
        task_of_run(run, trained.recipe.task, made)
    if len(real.slices) < 4:
        raise UsageError(f"{asked.real}: {len(real.slices)} real slices, a split in halves needs 4")
    labelled = None
    if asked.classifier_data is not None:
        labelled = read_labelled(asked.classifier_data)
        same_size(labelled[0], made)
    weights, precision = asked.inception_weights, asked.inception_precision
    features = chosen & {"frechet", "kid", "manifold", "copies"}
    wanted = features and (weights is not None or os.environ.get(ENVIRONMENT))
    return Inputs(
        asked=asked,
        real=real,
        made=made,
        direction=direction,
        trained=trained,
        labelled=labelled,
        inception=inception_network(weights, precision) if wanted else None,
        own=onnx_network(asked.features) if features and asked.features is not None else None,
        curves=curves,
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


def task_of_run(run: Path, task: str, made: SliceSet) -> None:
    """UsageError where the slices were sampled and the run translates, or the other way round."""
    # The run.json of sampled slices names their model and no task; a plain folder has neither.
    did = made.facts.get("task", "sample" if "model_sha256" in made.facts else task)
    if did != task:
        verbs = {"sample": "samples slices", "translate": "translates slices"}
        raise UsageError(
            f"{run}: its generator {verbs[task]}, and {made.path} holds the work of one that "
            f"{verbs.get(str(did), str(did))}; give the run that made them, or leave --run out"
        )


def size_of_run(run: Path, size: int, real: SliceSet) -> None:
    height, width = real.slices.shape[1:]
    if (height, width) != (size, size):
        raise UsageError(
            f"{run} was trained on {size}x{size} slices, but {real.path} and the synthetic ones "
            f"are {height}x{width}; give the run that made them, or leave --run out"
        )


def settings(inputs: Inputs) -> dict[str, Any]:
    """What was asked and what was found, for the page and report.json."""
    asked, real, made = inputs.asked, inputs.real, inputs.made
    height, width = real.slices.shape[1:]
    rows = {
        "real": str(real.path),
        **{f"real, {key}": value for key, value in real.facts.items()},
        "synthetic": str(made.path),
        **{f"synthetic, {key}": value for key, value in made.facts.items()},
        "real slices": len(real.slices),
        "synthetic slices": len(made.slices),
        "patients": "unknown" if real.groups is None else len(np.unique(real.groups)),
        "slice size": f"{height}x{width}, one grey channel",
        "seed": asked.seed,
        "measures asked for": measures_asked(asked),
        "features": f"fd-random version {FEATURES_VERSION}, {DIMENSION} numbers a slice, "
        f"seed {FEATURES_SEED}",
    }
    for name, network in (("Inception", inputs.inception), ("own features", inputs.own)):
        if network is not None:
            rows[name] = f"{network.name}, {network.dimension} numbers a slice"
            rows |= {f"{name}, {key}": value for key, value in network.facts.items()}
    if inputs.trained is not None:
        rows |= {
            "run": str(asked.run),
            "recipe": inputs.trained.recipe.name,
            "step": inputs.trained.step,
        }
    rows |= inputs.direction.facts
    if asked.classifier_data is not None:
        rows["classifier data"] = str(asked.classifier_data)
    return rows


def measures_asked(asked: Asked) -> str:
    """As on the command line."""
    parts = [f"only {', '.join(asked.only)}"] if asked.only else []
    parts += ["thorough"] if asked.thorough else []
    parts += [f"skip {', '.join(asked.skip)}"] if asked.skip else []
    return "; ".join(parts) or "the quick ones"


def versions() -> dict[str, str]:
    return {
        "fastmrigan": fastmrigan.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }
