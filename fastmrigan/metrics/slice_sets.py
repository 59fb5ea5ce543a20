"""Reading the two sides of an evaluation: prepared datasets and generated folders."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset, SliceRecord
from fastmrigan.imaging.quantise import to_float
from fastmrigan.jobs.shards import read_slices


@dataclass(frozen=True)
class SliceSet:
    """Slices of one side, and what is known about them."""

    path: Path
    slices: npt.NDArray[np.float32]  # [N, H, W] in [-1, 1]
    held_out: npt.NDArray[np.bool_]  # [N], True where a dataset keeps the slice for testing
    facts: dict[str, Any] = field(default_factory=dict)  # for the report's settings
    groups: npt.NDArray[np.int64] | None = None  # [N], the patients, where all are known
    # [N], of generated slices: the index of each in its job, which may have left some out
    index: npt.NDArray[np.int64] | None = None

    @property
    def train(self) -> npt.NDArray[np.float32]:
        return self.slices[~self.held_out]

    def number(self, row: int) -> int:
        """What slice `row` is called: its index in the job that made it, where there is one."""
        return row if self.index is None else int(self.index[row])

    @property
    def test(self) -> npt.NDArray[np.float32]:
        return self.slices[self.held_out]


def need_folder(path: Path, wanted: str, option: str = "") -> None:
    """UsageError where `path` is no folder; `wanted` says what to give, `option` how it came."""
    if path.is_dir():
        return
    fact = "is a file" if path.exists() else "no such folder"
    raise UsageError(f"{option} {path}: {fact}; {wanted}".strip())


def read_slice_set(
    path: Path, *, label: str | None = None, limit: int | None = None, twins: bool = False
) -> SliceSet:
    """A prepared dataset, or a folder of shards, PNG or NPZ as `fastmrigan synth` writes it.

    label: only slices of this label, prepared datasets alone; twins: of a paired dataset the
    targets instead of the sources; limit: the first so many slices of
    a generated folder. Raises UsageError for a missing or empty folder or an unknown label,
    InputRejected for a dataset whose bytes are not those of its fingerprint.
    """
    need_folder(path, "give the folder of a prepared dataset or of generated slices")
    if (path / "dataset.json").is_file():
        found = _from_dataset(path, label, twins)
    elif label is not None:
        raise UsageError(f"{path}: is no prepared dataset, so it has no label {label!r}")
    else:
        found = _from_folder(path, limit)
    if len(found.slices) < 2:
        raise UsageError(f"{path}: {len(found.slices)} slices found, at least 2 are needed")
    return found


def read_labelled(path: Path) -> tuple[SliceSet, npt.NDArray[np.bool_]]:
    """A prepared dataset's slices with and without tumour, and True [N] where tumour.

    Tumours have the label tumour; the others normal, or the one other label there is. Raises
    UsageError where a label is missing.
    """
    others = [label for label in PreparedDataset.open(path).info.labels if label != "tumour"]
    tumour = read_slice_set(path, label="tumour")
    normal = read_slice_set(path, label=others[0] if len(others) == 1 else "normal")
    both = SliceSet(
        path,
        np.concatenate([tumour.slices, normal.slices]),
        np.concatenate([tumour.held_out, normal.held_out]),
    )
    return both, np.arange(len(both.slices)) < len(tumour.slices)


def _from_dataset(path: Path, label: str | None, twins: bool) -> SliceSet:
    dataset = PreparedDataset.open(path)
    dataset.check_fingerprint()
    twins = twins and dataset.info.paired
    side = dataset.targets if twins else dataset.slices
    train = side("train", label)  # [N, H, W]
    test = side("test", label)  # [M, H, W]
    records = [
        dataset.records[i] for part in ("train", "test") for i in dataset.select(part, label)
    ]
    known = patients(records)
    return SliceSet(
        path,
        np.concatenate([train, test]),
        np.arange(len(train) + len(test)) >= len(train),
        {
            "label": label or "all",
            "train slices": len(train),
            "test slices": len(test),
            "fingerprint": dataset.info.fingerprint,
        }
        | ({"side": "targets of the pairs"} if twins else {}),
        known if known is not None and known.any() else None,  # one alone varies with nobody
    )


def patients(records: list[SliceRecord]) -> npt.NDArray[np.int64] | None:
    """The number of each record's patient, [N], from 0 on; None where one is not known."""
    names = [record.group for record in records]
    if None in names:
        return None
    return np.unique(np.array(names, np.str_), return_inverse=True)[1].astype(np.int64)


def _from_folder(path: Path, limit: int | None) -> SliceSet:
    numbered = list(islice(read_slices(path), limit))
    grey = [x for _, x in numbered]  # N x [H, W]
    sizes = {x.shape for x in grey}
    if len(sizes) > 1:
        named = " and ".join(f"{height}x{width}" for height, width in sorted(sizes)[:2])
        raise UsageError(
            f"{path}: slices of different sizes ({named}) in one folder; DICOM has "
            "those of its sources: translate again with --format shard, png or npz"
        )
    slices = np.stack([to_float(x) for x in grey]) if grey else np.empty((0, 0, 0), np.float32)
    index = np.array([number for number, _ in numbered], np.int64)
    return SliceSet(path, slices, np.zeros(len(slices), bool), _run_facts(path), index=index)


def _run_facts(path: Path) -> dict[str, Any]:
    """The plain values of the run.json that `synth` leaves beside its slices."""
    run = path / "run.json"
    if not run.is_file():
        return {}
    try:
        document = json.loads(run.read_bytes())
    except ValueError as error:
        raise InputRejected(f"{run}: not JSON ({error}); generate the slices again") from error
    if not isinstance(document, dict):
        raise InputRejected(
            f"{run}: not the run.json of `fastmrigan synth` (no JSON object); generate the slices "
            "again"
        )
    return {key: value for key, value in document.items() if isinstance(value, str | int | float)}
