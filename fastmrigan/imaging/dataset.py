"""The prepared data set: a folder of graded slices of one size, and the index that explains them.

- dataset.json: what the set is (`DatasetInfo`)
- index.jsonl: one `SliceRecord` a line, in the order of the slices
- slices.npy: uint16 [N, H, W], C order; 0 is -1 and 65535 is +1
- targets.npy: the registered twins of a paired set, same shape and order
- labels.npy: uint8 [N, H, W], the label maps of a set that has them
- rejects.jsonl: {"name", "reason"} of every refused file
- quarantine.jsonl: the same of DICOM files that may have text in their pixels, if any
- contact_sheet.png: a look at it
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging import quantise
from fastmrigan.imaging.array_file import SliceWriter
from fastmrigan.imaging.records import (
    SCHEMA,
    DatasetInfo,
    RecordedPosition,
    SliceGrading,
    SliceRecord,
    SplitInfo,
)

__all__ = [
    "DatasetInfo",
    "Marks",
    "PreparedDataset",
    "RecordedPosition",
    "SliceGrading",
    "SliceRecord",
    "SliceWriter",
    "SplitInfo",
    "fingerprint",
    "marks",
    "open_array",
    "read_info",
    "write_info",
]

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]
Marks = tuple[tuple[str, int, int, int], ...]  # of `marks`

FILES = ("dataset.json", "index.jsonl", "slices.npy", "targets.npy", "labels.npy")


class PreparedDataset:
    """A prepared data set opened for reading; its arrays stay on disk until asked for."""

    def __init__(
        self,
        path: Path,
        info: DatasetInfo,
        records: list[SliceRecord],
        arrays: dict[str, UInt16],
        labels: UInt8 | None = None,
    ) -> None:
        self.path, self.info, self.records = path, info, records
        self._arrays, self._labels = arrays, labels

    @classmethod
    def open(cls, path: Path | str) -> PreparedDataset:
        """Opens and checks a prepared data set.

        Raises UsageError where there is none, InputRejected where it is newer than this program,
        incomplete or at odds with itself.
        """
        path = Path(path)
        if not (path / "dataset.json").is_file():
            raise UsageError(
                f"{path}: not a prepared data set (no dataset.json); make one with "
                "`fastmrigan prepare`"
            )
        info = read_info(path)
        names = ("slices.npy", "targets.npy") if info.paired else ("slices.npy",)
        mapped = ("labels.npy",) if info.label_maps else ()
        for name in (*names, *mapped, "index.jsonl"):
            if not (path / name).is_file():
                raise damaged(path, f"{name} is missing")
        arrays = {name: open_array(path, name, info) for name in names}
        labels = open_labels(path, info) if info.label_maps else None
        return cls(path, info, read_index(path, info), arrays, labels)

    def __len__(self) -> int:
        return self.info.count

    def slices(self, split: str = "train", label: str | None = None) -> Float32:
        """The slices of one split ("train", "test", "guard" or "all") and, if given, one label.

        Returns float32 [N, H, W] in [-1, 1]. Raises UsageError for an unknown split or label.
        """
        return self._take("slices.npy", split, label)

    def targets(self, split: str = "train", label: str | None = None) -> Float32:
        """The registered twins of `slices` with the same arguments, float32 [N, H, W] in [-1, 1].

        Raises UsageError where the set is not paired.
        """
        if not self.info.paired:
            raise UsageError(f"{self.path}: not a paired data set; prepare it with --pairs")
        return self._take("targets.npy", split, label)

    def label_maps(self, split: str = "train", label: str | None = None) -> UInt8:
        """The label maps of `slices` with the same arguments, uint8 [N, H, W]; 0 is no label.

        Raises UsageError where the set has none.
        """
        if self._labels is None:
            raise UsageError(f"{self.path}: has no label maps; prepare it with --label-maps")
        return self._labels[self.select(split, label)]

    def select(self, split: str = "train", label: str | None = None) -> npt.NDArray[np.int64]:
        """The indices that `slices` with the same arguments returns, int64 [N]."""
        if split not in ("train", "test", "guard", "all"):
            raise UsageError(f"{self.path}: unknown split {split!r}; train, test, guard or all")
        if label is not None and label not in self.info.labels:
            has = ", ".join(repr(name) for name in self.info.labels)
            raise UsageError(f"{self.path}: no label {label!r}; it has {has}")
        wanted = [
            record.index
            for record in self.records
            if split in ("all", record.split) and label in (None, record.label)
        ]
        return np.array(wanted, dtype=np.int64)

    def check_fingerprint(self) -> None:
        """Reads every byte and raises InputRejected where they are not those that were written."""
        info = self.info
        written = fingerprint(self.path, paired=info.paired, label_maps=info.label_maps)
        if written != info.fingerprint:
            raise damaged(self.path, "its bytes are not those of its fingerprint")

    def _take(self, name: str, split: str, label: str | None) -> Float32:
        return quantise.to_float(self._arrays[name][self.select(split, label)])


def read_info(path: Path) -> DatasetInfo:
    """dataset.json, checked. Raises InputRejected."""
    try:
        document = json.loads((path / "dataset.json").read_text(encoding="utf-8"))
        schema = document["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise InputRejected(
                f"{path}: a prepared data set of schema {schema}, newer than the {SCHEMA} known "
                "here; update fastmrigan or prepare it again"
            )
        info = DatasetInfo.model_validate(document)
        if info.checksum is not None and info.sealed() != info:
            raise ValueError("its facts are not those of its checksum")
        return info
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"dataset.json: {fact(error)}") from error


def read_index(path: Path, info: DatasetInfo) -> list[SliceRecord]:
    """index.jsonl, checked against dataset.json. Raises InputRejected."""
    lines = (path / "index.jsonl").read_bytes().splitlines()
    if len(lines) != info.count:
        raise damaged(path, f"index.jsonl has {len(lines)} records, not {info.count}")
    records = []
    for number, line in enumerate(lines):
        try:
            record = SliceRecord.model_validate_json(line)
        except ValidationError as error:
            raise damaged(path, f"index.jsonl, line {number + 1}: {fact(error)}") from error
        if record.index != number:
            raise damaged(path, f"index.jsonl, line {number + 1}: index {record.index}")
        records.append(record)
    return records


def open_array(path: Path, name: str, info: DatasetInfo) -> UInt16:
    """One array of slices, memory-mapped and checked against dataset.json. Raises InputRejected."""
    array: UInt16 = open_npy(path, name, info, np.dtype(np.uint16))
    return array


def open_labels(path: Path, info: DatasetInfo) -> UInt8:
    """labels.npy, memory-mapped and checked against dataset.json. Raises InputRejected."""
    array: UInt8 = open_npy(path, "labels.npy", info, np.dtype(np.uint8))
    return array


def open_npy(path: Path, name: str, info: DatasetInfo, kind: np.dtype[Any]) -> Any:
    try:
        array = np.load(path / name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise damaged(path, f"{name}: {fact(error)}") from error
    expected = (info.count, *info.size)
    if array.dtype != kind or array.shape != expected:
        raise damaged(path, f"{name} is {array.dtype} {array.shape}, expected {kind} {expected}")
    return array


def damaged(path: Path, reason: str) -> InputRejected:
    return InputRejected(f"{path}: a damaged data set ({reason}); prepare it again")


def fact(error: Exception) -> str:
    """The first fact of an error, short."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error).split("\n")[0]


def fingerprint(path: Path, *, paired: bool, label_maps: bool = False) -> str:
    """sha256, in hex, of the sha256 of index.jsonl, slices.npy and, as the set has them,
    targets.npy and labels.npy.

    What dataset.json says stands under its own checksum, so that damage shows when it is opened.
    """
    total = hashlib.sha256()
    names = ["index.jsonl", "slices.npy"]
    names += ["targets.npy"] * paired + ["labels.npy"] * label_maps
    for name in names:
        with (path / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def marks(path: Path) -> Marks:
    """What tells the files of a set from any others, and from themselves once changed, without
    reading them: name, inode, bytes and the time of the last change in ns. A shared folder shows
    them alike on every machine that mounts it; a copy has others. Raises InputRejected."""
    found = []
    for name in FILES:
        try:
            status = (path / name).stat()
        except (FileNotFoundError, NotADirectoryError):  # not every set has each
            continue
        except OSError as error:
            raise InputRejected(f"{path / name}: cannot be read ({error.strerror})") from error
        found.append((name, status.st_ino, status.st_size, status.st_ctime_ns))
    return tuple(found)


def write_info(path: Path, info: DatasetInfo) -> None:
    """Writes dataset.json, which makes a folder a data set: the last file to be written."""
    text = info.sealed().model_dump_json(by_alias=True, indent=2)
    (path / "dataset.json").write_text(text + "\n", encoding="utf-8")
