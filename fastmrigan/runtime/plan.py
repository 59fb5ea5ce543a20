"""What a job makes, in which pieces, and what is said of every slice of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan import NOTICE
from fastmrigan.imaging.dataset import SliceRecord

Slices = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


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

    def arrays(self, shard: Shard) -> dict[str, Any]:
        """`record` for a whole shard: scalars, and [shard.count] where slices differ."""
        part = slice(shard.first, shard.first + shard.count)
        labels: dict[str, Any] = {"index": np.arange(part.start, part.stop)}
        if self.seed is not None:
            labels["seed"] = np.uint64(self.seed)
        labels |= {"model_sha256": np.str_(self.model_sha256), "notice": np.str_(NOTICE)}
        if self.sources is not None:
            labels |= {
                "dataset": np.str_(self.sources.dataset),
                "source": np.array(self.sources.source[part]),
                "source_index": np.array(self.sources.index[part], np.int64),
            }
        return labels
