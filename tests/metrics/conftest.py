"""A small world to evaluate: a labelled dataset, generated shards and a short run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from fastmrigan.imaging import dataset
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.jobs import shards

if TYPE_CHECKING:
    from fastmrigan.metrics.evaluation import Evaluation


@dataclass(frozen=True)
class World:
    data: Path  # prepared dataset, labels tumour (110 slices) and normal (60)
    synthetic: Path  # 50 slices in shards
    run: Path  # a few steps of a narrow phantom-quick on the tumour slices


def discs(count: int, seed: int, *, tumour: bool, size: int = 64) -> np.ndarray:
    """Discs of random size with, if tumour, a bright blob: float32 [N, H, W] in [-1, 1]."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    slices = draws.normal(-0.95, 0.03, (count, size, size))
    for each in slices:
        each[np.hypot(x, y) < draws.uniform(0.6, 0.9)] += draws.uniform(0.6, 0.9)
        if tumour:
            u, v = draws.uniform(-0.35, 0.35, 2)
            each[np.hypot(x - u, y - v) < draws.uniform(0.12, 0.25)] += 0.6
    return slices.clip(-1, 1).astype(np.float32)


def write_dataset(path: Path, labelled: dict[str, np.ndarray]) -> Path:
    """A prepared dataset of the slices of each label; every fifth slice is for testing."""
    path.mkdir()
    labels = [label for label, slices in labelled.items() for _ in slices]
    everything = np.concatenate(list(labelled.values()))
    writer = dataset.SliceWriter(path / "slices.npy", everything.shape[1])
    lines = []
    for i, (each, label) in enumerate(zip(everything, labels, strict=True)):
        writer.append(each)
        record = dataset.SliceRecord(
            index=i,
            source=f"{i:016x}",
            label=label,
            source_size=each.shape,
            mode="PNG L",
            group=None,
            exact_group=None,
            near_group=None,
            split="test" if i % 5 == 0 else "train",
            grading=dataset.SliceGrading(method="minmax", low=0, high=255),
        )
        lines.append(record.model_dump_json() + "\n")
    writer.close()
    (path / "index.jsonl").write_text("".join(lines))
    info = dataset.DatasetInfo(
        count=len(labels),
        size=everything.shape[1:],
        grading={"method": "minmax"},
        labels={label: len(slices) for label, slices in labelled.items()},
        split=dataset.SplitInfo(by="duplicates", seed=0, test_fraction=0.2, counts={}),
        contrast="t2",
        target_contrast=None,
        paired=False,
        request="0" * 64,
        fingerprint=dataset.fingerprint(path, paired=False),
        version="0",
    )
    dataset.write_info(path, info)
    return path


def write_shards(
    path: Path,
    slices: np.ndarray,
    fmt: str = "shard",
    sources: tuple[str, list[int]] | None = None,
) -> Path:
    """A job's folder; sources: fingerprint and indices of what the slices were translated from."""
    path.mkdir()
    grey = to_uint8(slices)
    origin = shards.Origin(0, "0" * 64)
    if sources is not None:
        dataset, index = sources
        names = [f"{i:016x}" for i in index]
        origin = shards.Origin(None, "0" * 64, shards.Sources(dataset, index, names))
        run = {"task": "translate", "count": len(slices), "model_sha256": "0" * 64}
        (path / "run.json").write_text(json.dumps(run))
    for shard in shards.Plan(len(grey), 16):
        part = grey[shard.first : shard.first + shard.count]
        shards.commit(path, shards.FORMATS[fmt], shards.Content.whole(shard, part), origin)
    return path


def write_pairs(
    path: Path,
    sources: np.ndarray,
    targets: np.ndarray,
    splits: Sequence[str],
    groups: Sequence[str | None] | None = None,
) -> Path:
    """A paired prepared dataset from t1 to t2 with these splits and patients."""
    write_dataset(path, {"head": sources})
    writer = dataset.SliceWriter(path / "targets.npy", sources.shape[1])
    for each in targets:
        writer.append(each)
    writer.close()
    records = [json.loads(line) for line in (path / "index.jsonl").read_text().splitlines()]
    for i, record in enumerate(records):
        record |= {"split": splits[i], "group": None if groups is None else groups[i]}
    (path / "index.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    info = dataset.read_info(path)
    changed = {"paired": True, "contrast": "t1", "target_contrast": "t2"}
    changed["fingerprint"] = dataset.fingerprint(path, paired=True)
    dataset.write_info(path, info.model_copy(update=changed))
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    from fastmrigan.training.loading import load_training_data
    from fastmrigan.training.loop import train
    from fastmrigan.training.recipe_file import load_recipe

    folder = tmp_path_factory.mktemp("world")
    data = write_dataset(
        folder / "data",
        {"tumour": discs(110, 0, tumour=True), "normal": discs(60, 1, tumour=False)},
    )
    synthetic = write_shards(folder / "synthetic", discs(50, 2, tumour=True))
    (synthetic / "run.json").write_text(
        '{"seed": 7, "count": 50, "model_sha256": "<abc>", "plan": {"x": 1}}'
    )
    settings = ["generator.width=8", "discriminator.width=8", "batch=8", "precision=fp32"]
    recipe = load_recipe("phantom-quick", [*settings, "label=tumour", "steps=12"])
    train(recipe, load_training_data(data, recipe), folder / "run", device="cpu")
    return World(data, synthetic, folder / "run")


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The helpers above, for tests that need other folders."""
    return SimpleNamespace(
        discs=discs, dataset=write_dataset, shards=write_shards, pairs=write_pairs
    )


@pytest.fixture(scope="module")
def short_classifier() -> Iterator[None]:
    """The classifier on a budget of a few seconds."""
    from fastmrigan.metrics import classifier_measures, two_sample

    patch = pytest.MonkeyPatch()
    train = partial(classifier_measures.train_tumour_classifier, steps=30, batch=32)
    patch.setattr(classifier_measures, "train_tumour_classifier", train)
    patch.setattr(classifier_measures, "real_or_fake", partial(two_sample.real_or_fake, steps=20))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def measure() -> Callable[..., Evaluation]:
    """measure(real, synthetic, **options) is the evaluation of both."""
    from fastmrigan.metrics.evaluation import evaluate
    from fastmrigan.metrics.evaluation_inputs import Asked

    return lambda real, synthetic, **options: evaluate(Asked(real, synthetic, **options))


@pytest.fixture(scope="session")
def invoke() -> Callable[..., str]:
    """invoke(*arguments) is what the command prints; an expected error is raised."""
    from fastmrigan.cli.evaluate import evaluate

    app = Typer()
    app.command()(evaluate)

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run
