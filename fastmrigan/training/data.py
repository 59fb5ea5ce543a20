"""The slices a run trains on: one side for systems that sample, two for systems that translate.

Everything is read and checked before the first step, and is then in memory: there is no file left
that could turn out to be unreadable in the middle of a run. Sets too large for that (see
`DataOptions.memory_limit_bytes`) are checked in full as well, stay on disk, and are read batch by
batch (`SliceFile`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.training.order import Indices
from fastmrigan.training.recipe import SIZES
from fastmrigan.training.slice_file import SliceFile

IN_MEMORY = 4 * 2**30  # bytes: 16,384 slices of 256x256


@dataclass(frozen=True)
class DataOptions:
    """What a recipe asks of its data."""

    size: int  # side of the slices, in pixels
    batch: int  # of one rank
    world: int = 1  # ranks
    recipe: str = "the recipe"  # its name, for messages
    smallest_batch: int = 1  # that the system can train with: 2 where batch norm needs company
    memory_limit_bytes: int = IN_MEMORY  # float32, all splits and sides; above it: from disk


@dataclass(frozen=True)
class TrainingData:
    """float32 [N, 1, H, W] in [-1, 1]: the target domain, and the source domain where there is one.

    `slices` and `sources` are tensors, or `SliceFile`s that are indexed in the same way.
    """

    slices: Tensor | SliceFile  # the target domain; of systems that sample, the only one
    info: dict[str, Any]  # what the checkpoint and the model file say about the data; no paths
    sources: Tensor | SliceFile | None = None  # [M, 1, H, W]; paired: M = N, in the same order
    paired: bool = False  # sources[i] is the registered twin of slices[i]
    held_out: TrainingData | None = None  # the test split, where both sides have one

    @property
    def count(self) -> int:
        """Slices of an epoch: those of the larger side."""
        return max(len(self.slices), 0 if self.sources is None else len(self.sources))

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor | None]:
        """The slices [n, 1, H, W] of the target and of the source side.

        Raises InputRejected where they are on disk and cannot be read.
        """
        target = self.slices[indices.target]
        if self.sources is None or indices.source is None:
            return target, None
        return target, self.sources[indices.source]


def with_channels(slices: Tensor, channels: int) -> Tensor:
    """[N, 1, H, W] to [N, channels, H, W]: the grey slice, `channels` times."""
    return slices if channels == 1 else slices.repeat(1, channels, 1, 1)


def load_unconditional(
    folder: Path, options: DataOptions, *, label: str | None = None
) -> TrainingData:
    """The train split of a prepared dataset, of one label if given; of a paired set its sources.

    UsageError where the size is another, the label unknown or the batch too large; InputRejected
    where the dataset is damaged.
    """
    return load([Side(open_whole(folder), label=label)], options)


def load_paired(
    folder: Path, options: DataOptions, *, label: str | None = None, reverse: bool = False
) -> TrainingData:
    """A dataset prepared with --pairs: sources and their registered targets, slice by slice.

    reverse exchanges the two. Errors as `load_unconditional`, and UsageError where the set is not
    a paired one.
    """
    dataset = open_whole(folder)
    if not dataset.info.paired:
        raise UsageError(
            f"{folder}: not a paired data set, and {options.recipe} learns from registered pairs; "
            "prepare it with --pairs"
        )
    sides = [
        Side(dataset, "targets.npy", label, name="target"),
        Side(dataset, "slices.npy", label, name="source"),
    ]
    return load(sides[::-1] if reverse else sides, options, paired=True)


def load_unpaired(
    target: Path,
    options: DataOptions,
    *,
    source: Path | None = None,
    target_label: str | None = None,
    source_label: str | None = None,
    reverse: bool = False,
) -> TrainingData:
    """Two domains without a correspondence between their slices.

    - `target` and `source`: two prepared datasets, of one label each if given
    - `target` alone, prepared with --pairs: its targets and its sources, the pairing forgotten
      in training. The held-out slices keep it, so that translations are measured against the truth.
    - `target` alone, not paired: one prepared dataset, its two domains named by their labels

    reverse exchanges the two domains. Errors as `load_unconditional`, and UsageError where the two
    are the same slices, or not told apart.
    """
    first = open_whole(target)
    known_pairs = source is None and first.info.paired
    if known_pairs:
        sides = [
            Side(first, "targets.npy", target_label, name="target"),
            Side(first, "slices.npy", source_label, name="source"),
        ]
    else:
        second = first if source is None else open_whole(source)
        sides = [
            Side(first, label=target_label, name="target"),
            Side(second, label=source_label, name="source"),
        ]
        if source is None:
            check_labels(sides)
        else:
            check_two(sides)
    data = load(sides[::-1] if reverse else sides, options)
    if known_pairs and target_label == source_label and data.held_out is not None:
        return replace(data, held_out=replace(data.held_out, paired=True))
    return data


@dataclass(frozen=True)
class Side:
    """One domain: an array of a prepared dataset, and the label of the slices taken from it."""

    dataset: PreparedDataset
    array: Literal["slices.npy", "targets.npy"] = "slices.npy"
    label: str | None = None
    name: Literal["", "target", "source"] = ""  # as the messages call it

    @property
    def contrast(self) -> str | None:
        info = self.dataset.info
        return info.contrast if self.array == "slices.npy" else info.target_contrast

    @property
    def words(self) -> str:
        """E.g. "training slices of the source side labelled 'normal'"."""
        side = f" of the {self.name} side" if self.name else ""
        of_label = f" labelled {self.label!r}" if self.label is not None else ""
        return f"training slices{side}{of_label}"

    def split(self, name: Literal["train", "test"]) -> SliceFile:
        dataset = self.dataset
        return SliceFile(
            dataset.path, self.array, dataset.info, dataset.select(name, label=self.label)
        )

    def facts(self, training_slices: int) -> dict[str, Any]:
        info = self.dataset.info.model_dump(mode="json")
        kept = ("fingerprint", "count", "labels", "size", "grading")
        return {key: info[key] for key in kept} | {
            "contrast": self.contrast,
            "label": self.label,
            "training_slices": training_slices,
        }


def load(sides: list[Side], options: DataOptions, *, paired: bool = False) -> TrainingData:
    """The target side and, if given, the source side, checked and read."""
    check_sizes(sides, options)
    train = [side.split("train") for side in sides]
    test = [side.split("test") for side in sides]
    for side, slices in zip(sides, train, strict=True):
        check_count(side, len(slices), options)
    for dataset in {id(side.dataset): side.dataset for side in sides}.values():
        check_bytes(dataset)
    info = sides[0].facts(len(train[0]))
    if len(sides) == 2:
        source = sides[1].facts(len(train[1]))
        info |= {"paired": paired, "source_contrast": source.pop("contrast"), "source": source}
    in_memory = sum(part.nbytes for part in train + test) <= options.memory_limit_bytes

    def data(parts: list[SliceFile], held_out: TrainingData | None = None) -> TrainingData:
        read = [part.load() if in_memory else part for part in parts]
        return TrainingData(read[0], info, read[1] if len(read) == 2 else None, paired, held_out)

    return data(train, data(test) if all(len(part) for part in test) else None)


def open_whole(folder: Path) -> PreparedDataset:
    """The prepared dataset. A disk that fails is InputRejected, as a damaged file is."""
    try:
        return PreparedDataset.open(folder)
    except OSError as error:
        raise unreadable(folder, error) from error


def check_bytes(dataset: PreparedDataset) -> None:
    """InputRejected where any byte is not the one that was written, or cannot be read."""
    try:
        dataset.check_fingerprint()
    except OSError as error:
        raise unreadable(dataset.path, error) from error


def unreadable(folder: Path, error: OSError) -> InputRejected:
    file = Path(error.filename).name if isinstance(error.filename, str) else "a file of it"
    return InputRejected(
        f"{folder}: {file} cannot be read ({error.strerror or type(error).__name__}); mend that, "
        "or prepare the set again"
    )


def check_sizes(sides: list[Side], options: DataOptions) -> None:
    """UsageError where the slices are not of one size, the recipe's."""
    sizes = {side.dataset.path: side.dataset.info.size for side in sides}
    wanted = (options.size, options.size)
    if set(sizes.values()) == {wanted}:
        return
    if len(set(sizes.values())) == 1:
        sizes = dict(list(sizes.items())[:1])
    found = "; ".join(f"{path}: slices are {h}x{w}" for path, (h, w) in sizes.items())
    remedy = f"prepare them with --size {options.size}"
    height, width = next(iter(sizes.values()))
    if len(sizes) == 1 and height == width and height in SIZES:
        remedy += f", or train at theirs with --set size={height}"
    raise UsageError(f"{found}, {options.recipe} trains at {options.size}x{options.size}; {remedy}")


def check_count(side: Side, count: int, options: DataOptions) -> None:
    """UsageError where one side holds fewer slices than one batch of all ranks."""
    path = side.dataset.path
    if count == 0:
        raise UsageError(
            f"{path}: 0 {side.words}: none is in the train split; prepare more slices, or with a "
            "smaller --test-fraction"
        )
    batch, world = options.batch, options.world
    if count >= batch * world:
        return
    largest = count // world
    ranks = f" ({batch} on each of {world} ranks)" if world > 1 else ""
    if largest >= options.smallest_batch:
        remedy = f"use --set batch={largest}"
    else:
        remedy = "prepare more slices" + (" or start fewer ranks" if world > 1 else "")
    raise UsageError(
        f"{path}: {count} {side.words} are fewer than one batch of {batch * world}{ranks}; {remedy}"
    )


def check_labels(sides: list[Side]) -> None:
    """UsageError where two labels do not tell the domains of one dataset apart."""
    target, source = sides
    dataset = target.dataset
    has = ", ".join(repr(name) for name in dataset.info.labels)
    if target.label is None or source.label is None:
        raise UsageError(
            f"{dataset.path}: which slices are the source and which the target? Give source_label "
            f"and target_label (it has {has}), or a second prepared data set with --source-data"
        )
    if target.label == source.label:
        raise UsageError(
            f"{dataset.path}: source_label and target_label are both {target.label!r}; name two "
            f"of its labels ({has})"
        )


def check_two(sides: list[Side]) -> None:
    """UsageError where two datasets are not the two domains they should be."""
    target, source = sides
    for side in sides:
        if side.dataset.info.paired:
            raise UsageError(
                f"{side.dataset.path}: a paired data set holds both sides already; give it alone, "
                "without --source-data, or prepare one side of it without --pairs"
            )
    same = target.dataset.info.fingerprint == source.dataset.info.fingerprint
    if same and target.label == source.label:
        raise UsageError(
            f"{source.dataset.path}: source and target are the same slices; give two data sets, or "
            "one with source_label and target_label"
        )
