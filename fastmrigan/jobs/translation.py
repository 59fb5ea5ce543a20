"""The bulk job that translates: every slice of a selection of a prepared dataset, in its order."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

import numpy as np

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import PreparedDataset, open_array
from fastmrigan.imaging.quantise import to_float
from fastmrigan.jobs.formats_nifti import series_shards
from fastmrigan.jobs.gate import GateOptions
from fastmrigan.jobs.job import Job, Work
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.run import JobResult, run
from fastmrigan.jobs.shards import Origin, Shard, Sources
from fastmrigan.jobs.stages import Stopwatch
from fastmrigan.runtime.backends.base import Float32
from fastmrigan.runtime.engine_file import EngineFile
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.model_file import ModelFile

UNKNOWN = (None, "unknown")  # contrasts that say nothing


def translation(
    model: ModelFile | EngineFile,
    dataset: PreparedDataset,
    output: Output,
    *,
    split: str = "all",
    label: str | None = None,
    read: bool = False,
) -> Work:
    """What a job that translates makes; arguments and errors as those of `translate`.

    read: the dataset's bytes are known to be those of its fingerprint.
    """
    output.check()
    selected = dataset.select(split, label)  # int64 [N]
    check_inputs(model, dataset)
    if not len(selected):
        of_label = f" labelled {label!r}" if label is not None else ""
        raise UsageError(f"{dataset.path}: no slices{of_label} in split {split}; take another")
    if output.out.resolve() == dataset.path.resolve():
        raise UsageError(f"{output.out}: is the prepared dataset itself; take another --out")
    if not read:
        dataset.check_fingerprint()
    shards = None
    if output.format == "nifti":
        chosen = [dataset.records[index] for index in selected]
        indices, shards = series_shards(chosen, str(dataset.path))
        selected = np.array(indices, np.int64)
    slices = open_array(dataset.path, "slices.npy", dataset.info)  # uint16 [all, H, W], on disk
    fingerprint = dataset.info.fingerprint
    reading = Stopwatch()

    def inputs(shards: Iterable[Shard], batch: int, skipped: Container[int]) -> Iterator[Float32]:
        for shard in shards:
            end = shard.first + shard.count
            for start in range(shard.first, end, batch):
                stop = min(start + batch, end)
                kept = [index for index in range(start, stop) if index not in skipped]
                with reading:
                    x = to_float(slices[selected[kept]])  # [<= batch, H, W]
                    if len(kept) < stop - start:  # the others keep their places in the call
                        made, x = x, np.full((stop - start, *slices.shape[1:]), -1, np.float32)
                        x[np.array(kept, int) - start] = made
                yield x

    sources = Sources(
        fingerprint,
        [int(index) for index in selected],
        [dataset.records[index].source for index in selected],
        [dataset.records[index] for index in selected],
    )
    return Work(
        command="translate",
        task="translate",
        count=len(selected),
        batches=lambda generator, shards, skipped: generator.translate_all(
            inputs(shards, generator.batch, skipped)
        ),
        origin=Origin(
            None,
            model.sha256,
            sources,
            recipe=model.metadata.recipe,
            contrast=model.metadata.target_contrast or "unknown",
        ),
        pins={"task": "translate", "dataset": fingerprint, "split": split, "label": label},
        shards=shards,
        warnings=tuple(filter(None, [contrast_mismatch(model, dataset)])),
        reading=reading,
    )


def translate(
    generator: Generator,
    dataset: PreparedDataset,
    output: Output,
    *,
    split: str = "all",
    label: str | None = None,
    gate: GateOptions | None = None,
) -> JobResult:
    """Translates every slice of a selection that is not in the output folder yet.

    Slice i is made of input i of `dataset.select(split, label)`, by itself; of a paired dataset,
    of its source slices. Inputs are read a batch at a time. For NIfTI the inputs are ordered by
    series and place, and a shard is a series.
    gate: which slices are left out or flagged; None keeps all, unseen.
    Raises as `synthesise` does; UsageError too where the model samples, the selection is empty or
    the slices are not of the model's size, and InputRejected where the dataset's bytes are not
    those of its fingerprint.
    """
    work = translation(generator.model, dataset, output, split=split, label=label)
    opened = None if gate is None else gate.open(generator.model.metadata, output)
    return run(Job(work, output, generator, gate=opened))


def check_inputs(model: ModelFile | EngineFile, dataset: PreparedDataset) -> None:
    """Raises UsageError where the model samples, or translates slices of another size."""
    check_task(model)
    if dataset.info.size != model.metadata.slice_size:
        (height, width), expected = dataset.info.size, model.metadata.slice_size
        raise UsageError(
            f"{dataset.path}: slices are {height}x{width}, {model.path} translates "
            f"{expected[0]}x{expected[1]}; prepare them with --size {max(expected)}"
        )


def check_task(model: ModelFile | EngineFile) -> None:
    """Raises UsageError where the model samples."""
    if model.metadata.task != "translate":
        raise UsageError(
            f"{model.path}: samples slices and cannot translate them; use `fastmrigan synth`"
        )


def contrast_mismatch(model: ModelFile | EngineFile, dataset: PreparedDataset) -> str | None:
    """A line where dataset and model name different source contrasts; None where one is unknown."""
    have, wants = dataset.info.contrast, model.metadata.source_contrast
    if have in UNKNOWN or wants in UNKNOWN or have == wants:
        return None
    return f"{dataset.path}: slices are {have}, {model.path} was trained to translate {wants}"
