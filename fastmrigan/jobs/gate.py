"""The quality gate of a job: slices that are not worth keeping are left out, or named.

A verdict depends on the slice alone, as it is stored, and on limits that are fixed before the first
slice is made and pinned in run.json. A slice that is left out keeps its index; the receipt of its
shard says why. In their order:

blank       its grey values hardly differ
saturated   much of it is white
outlier     its features are further from those of training slices than held-out ones are
copy        it is more like a training slice than held-out ones are

The last two need the training set. The translation of a training slice is meant to be like that
slice's twin: it is no copy, and not searched for. An outlier is a slice of another kind or texture:
radiomic features say little of anatomy, so a well-drawn head with a wrong shape passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import PreparedDataset, read_info
from fastmrigan.imaging.quantise import to_float
from fastmrigan.imaging.radiomics import radiomic_row
from fastmrigan.jobs import receipts
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.gate_reference import Reference, check, mismatch
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Content, Shard, Slices, Sources
from fastmrigan.progress import counted
from fastmrigan.runtime.model_file import ModelMetadata

ACTIONS = {"drop": "dropped", "flag": "flagged"}
# Of the grey range: real slices' standard deviation is 0.1 and more (t2-tumour-nontumour and
# yesno-253 at 64x64, 1,422 slices), and 2 in 1,000 of them are more than a tenth white
BLANK = 0.02  # a standard deviation below it
SATURATED = 0.5  # a share of white pixels above it
KINDS = {  # how a reason begins: one and several of them
    "blank": ("blank", "blank"),
    "saturated": ("saturated", "saturated"),
    "outlier": ("outlier", "outliers"),
    "copy": ("copy of a training slice", "copies of training slices"),
}


@dataclass(frozen=True)
class GateOptions:
    """What becomes of slices that the gate refuses, and what they are held against."""

    action: str = "drop"  # or flag
    reference: Path | None = None  # the training set; None: blank and saturated slices alone

    @property
    def fingerprint(self) -> str | None:
        """Of the reference. Raises UsageError and InputRejected where it is none."""
        return None if self.reference is None else read_info(self.reference).fingerprint

    def check(self, model: ModelMetadata, output: Output) -> None:
        """All that is quick. Raises UsageError, and InputRejected for a damaged reference."""
        if self.action not in ACTIONS:
            raise UsageError(f"--gate {self.action}: unknown; choose one of {', '.join(ACTIONS)}")
        if self.action == "drop" and output.format == "nifti":
            raise UsageError("--gate drop: a volume cannot have holes; take --gate flag")
        if self.reference is not None:
            check(PreparedDataset.open(self.reference), model)

    def warnings(self, model: ModelMetadata) -> tuple[str, ...]:
        """Lines for who began the job."""
        line = None if self.reference is None else mismatch(self.reference, model)
        return () if line is None else (line,)

    def open(self, model: ModelMetadata, output: Output, *, shown: bool = True) -> Gate:
        """Reads the reference, which takes some milliseconds a slice; `shown` false keeps its
        progress to itself. Raises as `check` does, and InputRejected where the reference's bytes
        are not those of its fingerprint."""
        self.check(model, output)
        if self.reference is None:
            return Gate(self.action)
        return Gate(self.action, Reference.open(self.reference, model, shown=shown))


class Gate:
    """Decides slice by slice; `action` and `reference` as `GateOptions` say."""

    def __init__(self, action: str = "drop", reference: Reference | None = None) -> None:
        self.action, self._reference = action, reference

    @property
    def pins(self) -> dict[str, Any]:
        """What the verdicts depend on beside the slices."""
        limits = {"blank": BLANK, "saturated": SATURATED}
        if self._reference is None:
            return {"gate": self.action, "gate_limits": limits}
        limits |= {"outlier": self._reference.outlier_limit, "copy": self._reference.copy_limit}
        fingerprint = self._reference.fingerprint
        # Before the limits, which differ where it does: the first that differs is what is told
        return {"gate": self.action, "gate_reference": fingerprint, "gate_limits": limits}

    def __call__(self, content: Content, sources: Sources | None = None) -> Content:
        """The content of a shard, with what is refused left out or flagged.

        sources: what its slices are translated from; None where they are sampled.
        """
        learned = self._learned(sources)
        refused = {}
        for index, x in zip(content.indices, content.slices, strict=True):
            copied = sources is None or sources.index[index] not in learned
            why = self.verdict(x, copied)
            if why is not None:
                refused[index] = why
        if self.action == "drop":
            return content.without(refused)
        return replace(content, flagged={**content.flagged, **refused})

    def _learned(self, sources: Sources | None) -> frozenset[int]:
        """The inputs of a translation that its model was trained on, by index in their dataset."""
        if sources is None or self._reference is None:
            return frozenset()
        same = sources.dataset == self._reference.fingerprint
        return self._reference.learned if same else frozenset()

    def verdict(self, x: Slices, copied: bool = True) -> str | None:
        """Why a slice [H, W] is refused, beginning with one of KINDS; None where it is not.

        copied: whether it is searched for among the training slices.
        """
        top = np.iinfo(x.dtype).max
        spread = float(x.std(dtype=np.float64)) / top
        if spread < BLANK:
            return f"blank: standard deviation {spread:.4f} of the grey range, below {BLANK}"
        white = np.count_nonzero(x == top) / x.size
        if white > SATURATED:
            return f"saturated: {white:.0%} of it white, above {SATURATED:.0%}"
        if self._reference is None:
            return None
        return _held_against(self._reference, to_float(x), copied)


def _held_against(reference: Reference, x: npt.NDArray[np.float32], copied: bool) -> str | None:
    distance, limit = reference.outliers(radiomic_row(x)), reference.outlier_limit
    if distance > limit:
        return f"outlier: distance {distance:.2f} from the training slices, above {limit}"
    if not copied:
        return None
    (nearest, likeness), limit = reference.copies(x), reference.copy_limit
    if likeness > limit:
        index = reference.train[nearest]
        return f"copy: of training slice {index}, likeness {likeness:.3f}, above {limit}"
    return None


def summary(output: Output, shards: Iterable[Shard], action: str) -> str:
    """`12 dropped: 9 blank, 3 copies of training slices`, of those of `shards` that are there,
    whichever run made them."""
    counts: Counter[str] = Counter()
    for shard in shards:
        path = receipts.path_of(output.out, FORMATS[output.format].name(shard))
        if not path.exists():
            continue
        receipt = receipts.read(path)
        found = receipt.left_out if action == "drop" else receipt.flagged
        counts.update(why.partition(":")[0] for why in found.values())
    kinds = [
        counted(counts[kind], one, many) for kind, (one, many) in KINDS.items() if counts[kind]
    ]
    total = sum(counts[kind] for kind in KINDS)
    return f"{total:,} {ACTIONS[action]}" + (f": {', '.join(kinds)}" if kinds else "")
