"""What a job makes, in which pieces, and what is said of every slice of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan import NOTICE
from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import SliceRecord
from fastmrigan.progress import counted

Slices = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Part = bytes | memoryview  # of a file, one of them of bytes
Parts = Sequence[Part]


@dataclass(frozen=True)
class Shard:
    """Slices `first` .. `first + count - 1` of a job."""

    number: int
    first: int
    count: int

    def name(self, suffix: str, stem: str = "shard") -> str:
        return f"{stem}-{self.number:06}{suffix}"


@dataclass(frozen=True)
class Plan:
    """How a job is cut up: fixed by count and shard size alone."""

    count: int
    shard_size: int

    def __len__(self) -> int:
        return -(-self.count // self.shard_size)

    def __iter__(self) -> Iterator[Shard]:
        for number in range(len(self)):
            first = number * self.shard_size
            yield Shard(number, first, min(self.shard_size, self.count - first))


def read_range(text: str) -> tuple[int, int | None]:
    """The A and B of "A:B", 0 and None where they are left out. Raises UsageError where it can be
    no part of any plan."""
    parts = re.fullmatch(r"([0-9]*):([0-9]*)", text)
    if parts is None:
        raise UsageError(f"--shard-range {text}: expected A:B, of whole numbers, such as 0:10")
    start, stop = int(parts[1] or 0), int(parts[2]) if parts[2] else None
    if stop is not None and start >= stop:
        raise UsageError(f"--shard-range {text}: is empty, since B is left out; take a greater B")
    return start, stop


def shard_range(text: str, shards: int) -> range:
    """The places "A:B" of a plan of `shards` shards: from A up to B, B left out; without A from the
    first one, without B to the last one. Raises UsageError where that is no part of the plan."""
    given = f"--shard-range {text}"
    whole = f"the plan has {counted(shards, 'shard')}, 0:{shards}"
    start, end = read_range(text)
    stop = shards if end is None else end
    if start >= stop:
        raise UsageError(f"{given}: is empty; {whole}")
    if stop > shards:
        raise UsageError(f"{given}: ends beyond the plan; {whole}")
    return range(start, stop)


@dataclass(frozen=True)
class Content:
    """What came of a shard: those of its slices that were made, in their order."""

    shard: Shard
    slices: Slices  # [n, H, W]
    indices: Sequence[int]  # [n], rising: the shard's, but for those left out
    left_out: Mapping[int, str] = field(default_factory=dict)  # index: why
    flagged: Mapping[int, str] = field(default_factory=dict)  # index of a slice that is there: why

    @classmethod
    def whole(cls, shard: Shard, slices: Slices) -> Content:
        """Every slice of a shard, [shard.count, H, W]."""
        return cls(shard, slices, range(shard.first, shard.first + shard.count))

    def without(self, left_out: Mapping[int, str]) -> Content:
        """The rest, where these are left out too; others than the shard's own are passed over."""
        kept = [place for place, index in enumerate(self.indices) if index not in left_out]
        gone = {index: left_out[index] for index in self.indices if index in left_out}
        if not gone:
            return self
        return Content(
            self.shard,
            self.slices[kept],
            [self.indices[place] for place in kept],
            {**self.left_out, **gone},
            {index: why for index, why in self.flagged.items() if index not in gone},
        )


@dataclass(frozen=True)
class Sources:
    """What a job translates: entry i is the input of slice i."""

    dataset: str  # fingerprint of the prepared dataset
    index: Sequence[int]  # [N], in that dataset
    source: Sequence[str]  # [N], the hash that index.jsonl keeps of each source's name
    # [N], the rest of index.jsonl; what DICOM and NIfTI ask for, and nothing else
    records: Sequence[SliceRecord] = ()


@dataclass(frozen=True)
class Origin:
    """What every slice of a job is labelled with: a seed where it is sampled, or its source."""

    seed: int | None
    model_sha256: str
    sources: Sources | None = None
    # The rest is for DICOM alone
    recipe: str = "unnamed"  # of the model
    contrast: str = "unknown"  # that it makes
    run: str = ""  # what run.json pins, as a hash: identifiers are made of it

    def record(self, index: int) -> dict[str, object]:
        """The label of slice `index`, without None."""
        labels = {
            "index": index,
            "model_sha256": self.model_sha256,
            "notice": NOTICE,
            "seed": self.seed,
            "synthetic": True,
        }
        if self.sources is not None:
            labels |= {
                "dataset": self.sources.dataset,
                "source": self.sources.source[index],
                "source_index": self.sources.index[index],
            }
        return {name: value for name, value in labels.items() if value is not None}

    def arrays(self, indices: Sequence[int]) -> dict[str, Any]:
        """`record` for the slices of a shard, [n]: scalars, and [n] where slices differ."""
        labels: dict[str, Any] = {"index": np.array(indices, np.int64)}
        if self.seed is not None:
            labels["seed"] = np.uint64(self.seed)
        labels |= {"model_sha256": np.str_(self.model_sha256), "notice": np.str_(NOTICE)}
        if self.sources is not None:
            labels |= {
                "dataset": np.str_(self.sources.dataset),
                "source": np.array([self.sources.source[i] for i in indices]),
                "source_index": np.array([self.sources.index[i] for i in indices], np.int64),
            }
        return labels
