"""What the slices of a translation were made of, by the labels `fastmrigan translate` gives."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import InputRejected
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.jobs.shards import DAMAGE, in_order, own_dicom


@dataclass(frozen=True)
class Origins:
    """Entry i is the input of slice i."""

    dataset: str  # fingerprint of the prepared dataset that was translated
    index: npt.NDArray[np.int64]  # [N], in that dataset


def read_origins(folder: Path, limit: int | None = None) -> Origins | None:
    """The inputs of the first `limit` slices of a folder that `fastmrigan translate` wrote.

    None where its slices do not say what they were made of. Raises InputRejected where they come
    of several datasets, or a shard is damaged.
    """
    labels = list(islice(_labels(folder), limit))
    if not labels or any(label is None for label in labels):
        return None
    datasets = {dataset for dataset, _ in filter(None, labels)}
    if len(datasets) > 1:
        raise InputRejected(
            f"{folder}: translations of {len(datasets)} datasets in one folder; translate each "
            "into a folder of its own"
        )
    index = np.array([index for _, index in filter(None, labels)], np.int64)
    return Origins(datasets.pop(), index)


def check_known(origins: Origins, count: int, dataset: PreparedDataset) -> None:
    """Raises InputRejected where `dataset` lacks the input of one of `count` translations."""
    if len(origins.index) != count or origins.index.max() >= len(dataset):
        raise InputRejected(
            f"{dataset.path}: has no input for each translated slice, though its fingerprint is "
            "theirs; translate again"
        )


def _labels(folder: Path) -> Iterator[tuple[str, int] | None]:
    readers = {".tar": _of_tar, ".npz": _of_npz, "": _of_folder}
    for path in in_order(p for p in folder.glob("shard-*") if p.suffix in readers):
        try:
            yield from readers[path.suffix](path)
        except DAMAGE as error:
            raise InputRejected(f"{path}: not a whole shard ({error}); make it again") from error


def _of_tar(path: Path) -> Iterator[tuple[str, int] | None]:
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.endswith(".json"):
                file = tar.extractfile(member)
                if file is None:
                    raise ValueError(f"{member.name} is not a file")
                yield _label(json.loads(file.read()))


def _of_npz(path: Path) -> Iterator[tuple[str, int] | None]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if "source_index" not in arrays or "dataset" not in arrays:
            yield None
            return
        dataset = str(arrays["dataset"])
        yield from ((dataset, index) for index in arrays["source_index"].tolist())


def _of_folder(path: Path) -> Iterator[tuple[str, int] | None]:
    from PIL import Image

    for file in in_order(path.iterdir()):
        if file.suffix == ".png":
            with Image.open(file) as image:
                yield _label(json.loads(image.info.get("fastmrigan", "null")))
        elif file.suffix == ".dcm":
            header = own_dicom(io.BytesIO(file.read_bytes()), pixels=False)
            yield _label(json.loads(header.get("ImageComments", "")))


def _label(record: Any) -> tuple[str, int] | None:
    if not isinstance(record, dict) or not {"dataset", "source_index"} <= record.keys():
        return None
    return str(record["dataset"]), int(record["source_index"])
