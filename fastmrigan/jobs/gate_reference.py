"""What a job's slices are held against: the training set of its model, and what is usual in it.

Two tests, and what is refused in each is told by the set's own held-out slices, which are real and
were never trained on: what is further off, or more like a training slice, than they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import DatasetInfo, PreparedDataset, open_array, read_info
from fastmrigan.imaging.likeness import FEWEST_HELD_OUT, SPREADS, copy_threshold
from fastmrigan.imaging.quantise import to_float
from fastmrigan.imaging.radiomics import SMALLEST, radiomic_row
from fastmrigan.jobs.gate_copies import CopySearch
from fastmrigan.progress import Progress
from fastmrigan.runtime.model_file import ModelMetadata

MEASURED = 2000  # training slices, at most, that the mean and covariance are taken of
HELD_OUT = 1000  # held-out slices, at most, that say what is usual
QUANTILE = 0.999  # of their distances, that lies within the limit of an outlier
# Added to the variances: what lies within a hundredth of a feature's unit says nothing, also where
# no two training slices differ
RIDGE = 0.01**2
DIGITS = 4  # of a limit, so that it is the same wherever it is computed again

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UNKNOWN = (None, "unknown")  # contrasts that say nothing


class Outliers:
    """How far a slice's features lie from those of training slices, in their own spread.

    The Mahalanobis distance on the radiomic features of `evaluate`'s fd-radiomic: of the two
    feature spaces that need no weights, the one that needs no torch.
    """

    def __init__(self, rows: Float64) -> None:
        """rows: features of training slices, [T, d], T >= 2."""
        covariance = np.cov(rows, rowvar=False) + RIDGE * np.eye(rows.shape[1])  # [d, d]
        self._mean = rows.mean(axis=0)  # [d]
        self._whitening = np.linalg.inv(np.linalg.cholesky(covariance))  # [d, d]

    def __call__(self, row: Float32 | Float64) -> float:
        """The distance of features [d]."""
        return float(np.linalg.norm(self._whitening @ (row - self._mean)))


@dataclass(frozen=True)
class Reference:
    """A training set, read, and the limits that its held-out slices set."""

    fingerprint: str
    outliers: Outliers
    outlier_limit: float  # of the distance
    copies: CopySearch
    copy_limit: float  # of the likeness
    train: npt.NDArray[np.int64]  # [T], the index in the dataset of each training slice

    @cached_property
    def learned(self) -> frozenset[int]:
        """The same as a set."""
        return frozenset(self.train.tolist())

    @classmethod
    def open(cls, path: Path, model: ModelMetadata, *, shown: bool = True) -> Reference:
        """Reads a dataset that `check` has let pass, a slice at a time. Raises InputRejected where
        its bytes are not those of its fingerprint."""
        dataset = PreparedDataset.open(path)
        dataset.check_fingerprint()
        label = _label(dataset.info, model)
        train, held_out = dataset.select("train", label), dataset.select("test", label)
        held_out = _spread(held_out, HELD_OUT)
        measured = _spread(train, MEASURED)
        stored = open_array(path, _array(dataset.info, model), dataset.info)  # [all, H, W], on disk

        def slices(indices: npt.NDArray[np.int64]) -> Callable[[int], Float32]:
            return lambda i: to_float(stored[indices[i]])  # [H, W]

        total = len(train) + len(measured) + 2 * len(held_out)
        with Progress("gate's reference", total, "readings", shown=shown) as progress:

            def rows(indices: npt.NDArray[np.int64]) -> Float64:
                found = []
                for i in indices:
                    found.append(radiomic_row(to_float(stored[i])))
                    progress.advance()
                return np.array(found, np.float64)

            outliers = Outliers(rows(measured))
            far = [outliers(row) for row in rows(held_out)]
            copies = CopySearch(len(train), slices(train), progress.advance)
            near = []
            for i in range(len(held_out)):
                near.append(copies(slices(held_out)(i))[1])
                progress.advance()
        return cls(
            dataset.info.fingerprint,
            outliers,
            round(outlier_limit(np.array(far)), DIGITS),
            copies,
            round(copy_threshold(np.array(near, np.float32)), DIGITS),
            train,
        )


def outlier_limit(held_out: Float64) -> float:
    """The distance above which a slice is an outlier, from those of held-out slices [M].

    Their quantile of 99.9 %, or three robust deviations above the median of their logarithms,
    whichever is further: of fewer than a thousand slices the quantile is the largest of them, which
    one real slice in M would exceed.
    """
    logarithms = np.log(np.maximum(held_out, 1e-6))
    centre, high = np.quantile(logarithms, [0.5, 0.95])
    spread = max(1.4826 * np.median(np.abs(logarithms - centre)), (high - centre) / 1.6449)
    tail = np.exp(centre + SPREADS * spread)
    return float(max(tail, np.quantile(held_out, QUANTILE, method="higher")))


def check(dataset: PreparedDataset, model: ModelMetadata) -> None:
    """Raises UsageError where the dataset cannot be the training set of this model, or does not
    say what is usual."""
    info, path = dataset.info, dataset.path
    if info.size != model.slice_size:
        (height, width), made = info.size, model.slice_size
        raise UsageError(
            f"--gate-reference {path}: slices are {height}x{width}, the model makes "
            f"{made[0]}x{made[1]}; give the dataset it was trained on"
        )
    if min(info.size) < SMALLEST:
        raise UsageError(
            f"--gate-reference {path}: slices are {info.size[0]}x{info.size[1]}, at least "
            f"{SMALLEST}x{SMALLEST} are needed; leave --gate-reference out"
        )
    contrast = info.contrast if _array(info, model) == "slices.npy" else info.target_contrast
    makes = model.target_contrast
    if contrast not in UNKNOWN and makes not in UNKNOWN and contrast != makes:
        raise UsageError(
            f"--gate-reference {path}: slices are {contrast}, the model makes {makes}; give the "
            "dataset it was trained on"
        )
    label = _label(info, model)
    for split in ("train", "test"):
        count = len(dataset.select(split, label))
        if count < FEWEST_HELD_OUT:
            kind = "training" if split == "train" else "held-out"
            labelled = f" labelled {label!r}" if label is not None else ""
            raise UsageError(
                f"--gate-reference {path}: {count} {kind} slices{labelled}, at least "
                f"{FEWEST_HELD_OUT} are needed to tell what is usual; prepare it with another "
                "--test-fraction, or leave --gate-reference out"
            )


def mismatch(path: Path, model: ModelMetadata) -> str | None:
    """A line where the model file names another training set than this; None where it does not."""
    trained = _trained_on(model).get("fingerprint")
    fingerprint = read_info(path).fingerprint
    if trained is None or trained == fingerprint:
        return None
    return (
        f"--gate-reference {path}: is not what the model was trained on (fingerprint "
        f"{fingerprint[:12]}…, not {str(trained)[:12]}…): copies of that are not found"
    )


def _trained_on(model: ModelMetadata) -> dict[str, object]:
    """What the model file says of the dataset whose slices it learned to make."""
    data = model.training_data
    if model.training.get("back"):
        data = data.get("source", {})
    return data if isinstance(data, dict) else {}


def _label(info: DatasetInfo, model: ModelMetadata) -> str | None:
    """The label of the slices that the model was trained on, of this dataset; None: all."""
    trained = _trained_on(model)
    label = trained.get("label")
    known = trained.get("fingerprint") == info.fingerprint and label in info.labels
    return str(label) if known else None


def _array(info: DatasetInfo, model: ModelMetadata) -> str:
    """Which side of a paired dataset the model makes, by contrast; unknown: what it translates to.

    Returns the file's name.
    """
    if not info.paired:
        return "slices.npy"
    makes = model.target_contrast
    if makes not in UNKNOWN and makes in (info.contrast, info.target_contrast):
        return "targets.npy" if makes == info.target_contrast else "slices.npy"
    return "targets.npy" if model.task == "translate" else "slices.npy"


def _spread(indices: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """At most so many of them, evenly spread."""
    return indices[:: max(1, -(-len(indices) // most))]
