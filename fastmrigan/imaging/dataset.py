"""The prepared data set: a folder of graded slices of one size, and the index that explains them.

- dataset.json: what the set is (`DatasetInfo`)
- index.jsonl: one `SliceRecord` a line, in the order of the slices
- slices.npy: uint16 [N, H, W], C order; 0 is -1 and 65535 is +1
- targets.npy: the registered twins of a paired set, same shape and order
- rejects.jsonl: {"name", "reason"} of every refused file
- contact_sheet.png: a look at it
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging import quantise
from fastmrigan.imaging.split import Side, Unit

Float32 = npt.NDArray[np.float32]
UInt16 = npt.NDArray[np.uint16]

SCHEMA = 1


class SplitInfo(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: Unit
    seed: int
    test_fraction: float  # as asked for; the counts are what came of it
    counts: dict[Side, int]


class DatasetInfo(BaseModel):
    """dataset.json"""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_version: int = Field(default=SCHEMA, alias="schema")
    count: int
    size: tuple[int, int]  # [H, W]
    grading: dict[str, str | float]  # the rule; each slice's own range is in the index
    labels: dict[str, int]  # slices of each label
    split: SplitInfo
    contrast: str
    target_contrast: str | None  # of paired sets
    paired: bool
    request: str  # sha256 of the options and the list of source files
    fingerprint: str  # sha256 of index.jsonl, slices.npy and targets.npy
    version: str  # of the fastmrigan that wrote it


class SliceGrading(BaseModel):
    model_config = ConfigDict(extra="forbid")

    method: str
    low: float  # the source's own unit
    high: float


class SliceRecord(BaseModel):
    """One line of index.jsonl. No name, number or date that could tell who was imaged."""

    model_config = ConfigDict(extra="forbid")

    index: int
    source: str  # first 16 hex digits of the sha256 of the source's relative name
    label: str
    source_size: tuple[int, int]  # [H, W] before padding and resizing
    mode: str  # the source's format and pixel type
    group: str | None  # patient, numbered in order of appearance
    exact_group: int | None
    near_group: int | None
    split: Side
    grading: SliceGrading
    target_grading: SliceGrading | None = None  # of paired sets


class PreparedDataset:
    """A prepared data set opened for reading; its arrays stay on disk until asked for."""

    def __init__(
        self,
        path: Path,
        info: DatasetInfo,
        records: list[SliceRecord],
        arrays: dict[str, UInt16],
    ) -> None:
        self.path, self.info, self.records = path, info, records
        self._arrays = arrays

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
        for name in (*names, "index.jsonl"):
            if not (path / name).is_file():
                raise damaged(path, f"{name} is missing")
        arrays = {name: open_array(path, name, info) for name in names}
        return cls(path, info, read_index(path, info), arrays)

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
        if fingerprint(self.path, paired=self.info.paired) != self.info.fingerprint:
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
        return DatasetInfo.model_validate(document)
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
    """One array file, memory-mapped and checked against dataset.json. Raises InputRejected."""
    try:
        array: UInt16 = np.load(path / name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise damaged(path, f"{name}: {fact(error)}") from error
    expected = (info.count, *info.size)
    if array.dtype != np.uint16 or array.shape != expected:
        raise damaged(path, f"{name} is {array.dtype} {array.shape}, expected uint16 {expected}")
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


def fingerprint(path: Path, *, paired: bool) -> str:
    """sha256, in hex, of index.jsonl, slices.npy and (paired) targets.npy, one after the other."""
    total = hashlib.sha256()
    for name in ("index.jsonl", "slices.npy", *(("targets.npy",) if paired else ())):
        with (path / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def write_info(path: Path, info: DatasetInfo) -> None:
    """Writes dataset.json, which makes a folder a data set: the last file to be written."""
    text = info.model_dump_json(by_alias=True, indent=2)
    (path / "dataset.json").write_text(text + "\n", encoding="utf-8")


class SliceWriter:
    """Appends slices to an .npy file whose count is known only at the end."""

    def __init__(self, path: Path, size: int) -> None:
        self.size, self.count = size, 0
        self._file = path.open("wb")
        self._head = self._write_header()

    def append(self, x: Float32) -> None:
        """Adds one graded slice, float32 [size, size] in [-1, 1]."""
        self._file.write(quantise.to_uint16(x).tobytes())
        self.count += 1

    def close(self) -> None:
        # numpy pads the header for a first axis that grows, so its length stays the same
        self._file.seek(0)
        if self._write_header() != self._head:
            raise AssertionError("the .npy header grew")
        self._file.close()

    def _write_header(self) -> int:
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": "<u2", "fortran_order": False, "shape": (self.count, self.size, self.size)},
        )
        return self._file.tell()
