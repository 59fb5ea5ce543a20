"""What `prepare` can be asked for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.imaging.grading import GradingRule, parse_rule
from fastmrigan.imaging.position import PLANES
from fastmrigan.imaging.readers import MIN_SIDE
from fastmrigan.imaging.split import METHODS

CONTRASTS = ("t1", "t1gd", "t2", "flair", "pd", "dwi", "ct", "unknown")
AUTO = "auto"  # a contrast: what dcm2niix makes of each DICOM series
FINEST = "finest"  # isotropic pixels as large as the smaller side of the source's
ANY_PLANE = "any"
BURNED_IN = ("no", "unknown", "yes")  # allowed values of BurnedInAnnotation: each adds to the last
RGB = ("refuse", "convert")


@dataclass(frozen=True)
class PrepareOptions:
    size: int = 64  # side of the prepared slices, in pixels
    label: str | None = None  # of all slices; None takes each file's folder under the source
    contrast: str = "unknown"  # one of CONTRASTS, or AUTO
    target_contrast: str = "unknown"  # of the twins in a paired set
    grading: str = "percentile"  # as grading.parse_rule reads it
    pairs: Path | None = None  # a CSV file or a folder of twins
    label_maps: str | None = None  # a folder, or a pattern with {folder} and {stem}
    tumour_area: float = 20.0  # mm² of labels from which a slice is "tumour": 5 mm across
    group_pattern: str | None = None  # its first group, found in the relative name, is the patient
    groups: Path | None = None  # a CSV with the columns file and group, which is the patient
    plane: str = ANY_PLANE  # or one of PLANES: slices of other planes are left out
    isotropic: str | None = None  # FINEST or millimetres: in-plane resampling
    rgb: str = "refuse"  # colour DICOM; pictures are always converted
    allow_burned_in: str = "no"  # one of BURNED_IN
    split: str = "auto"  # one of split.METHODS
    test_fraction: float = 0.1
    min_brain: float | None = 0.05  # share of a volume's slice that must be brain; None keeps all
    seed: int = 0
    force: bool = False  # replace a different data set
    workers: int | None = None  # processes that decode; None takes the processors there are

    def rule(self) -> GradingRule:
        return parse_rule(self.grading)

    def pixel_mm(self) -> float | None:
        """The side of resampled pixels, in mm; None for FINEST. Only where `isotropic` is set."""
        return None if self.isotropic in (None, FINEST) else float(self.isotropic)

    def check(self) -> None:
        """Raises UsageError naming the first option that makes no sense."""
        self.rule()
        if not MIN_SIDE <= self.size <= 4096:
            raise UsageError(f"--size {self.size}: expected {MIN_SIDE} to 4096")
        if not 0 <= self.test_fraction < 1:
            raise UsageError(f"--test-fraction {self.test_fraction:g}: expected 0 to below 1")
        if self.min_brain is not None and not 0 <= self.min_brain < 1:
            raise UsageError(f"--min-brain {self.min_brain:g}: expected 0 to below 1")
        if not 0 < self.tumour_area < math.inf:
            raise UsageError(f"--tumour-area {self.tumour_area:g}: expected mm² above 0")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected 0 or more")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: expected 1 or more")
        for option, value, known in (
            ("--split", self.split, METHODS),
            ("--contrast", self.contrast, (AUTO, *CONTRASTS)),
            ("--target-contrast", self.target_contrast, (AUTO, *CONTRASTS)),
            ("--plane", self.plane, (ANY_PLANE, *PLANES)),
            ("--rgb", self.rgb, RGB),
            ("--allow-burned-in", self.allow_burned_in, BURNED_IN),
        ):
            if value not in known:
                raise UsageError(f"{option} {value}: expected one of {', '.join(known)}")
        if self.label_maps is not None and self.label is not None:
            raise UsageError("--label-maps: names the labels tumour and normal; drop --label")
        self.check_isotropic()
        self.check_pattern()

    def check_isotropic(self) -> None:
        if self.isotropic in (None, FINEST):
            return
        try:
            millimetres = float(self.isotropic or "")
        except ValueError:
            millimetres = math.nan
        if not 0.05 <= millimetres <= 50:
            raise UsageError(
                f"--isotropic {self.isotropic}: expected {FINEST}, or millimetres from 0.05 to 50"
            )

    def check_pattern(self) -> None:
        if self.group_pattern is None:
            return
        if self.groups is not None:
            raise UsageError("--groups and --group-pattern both tell patients apart; give one")
        try:
            groups = re.compile(self.group_pattern).groups
        except re.error as error:
            raise UsageError(f"--group-pattern {self.group_pattern}: {error}") from error
        if groups < 1:
            raise UsageError(f"--group-pattern {self.group_pattern}: has no group in parentheses")
