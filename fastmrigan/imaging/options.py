"""What `prepare` can be asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.imaging.grading import GradingRule, parse_rule
from fastmrigan.imaging.readers import MIN_SIDE
from fastmrigan.imaging.split import METHODS

CONTRASTS = ("t1", "t1gd", "t2", "flair", "pd", "dwi", "ct", "unknown")


@dataclass(frozen=True)
class PrepareOptions:
    size: int = 64  # side of the prepared slices, in pixels
    label: str | None = None  # of all slices; None takes each file's folder under the source
    contrast: str = "unknown"  # one of CONTRASTS
    target_contrast: str = "unknown"  # of the twins in a paired set
    grading: str = "percentile"  # as grading.parse_rule reads it
    pairs: Path | None = None  # a CSV file or a folder of twins
    group_pattern: str | None = None  # its first group, found in the relative name, is the patient
    split: str = "auto"  # one of split.METHODS
    test_fraction: float = 0.1
    min_brain: float = 0.05  # share of a volume's slice that must be brain
    seed: int = 0
    force: bool = False  # replace a different data set

    def rule(self) -> GradingRule:
        return parse_rule(self.grading)

    def check(self) -> None:
        """Raises UsageError naming the first option that makes no sense."""
        self.rule()
        if not MIN_SIDE <= self.size <= 4096:
            raise UsageError(f"--size {self.size}: expected {MIN_SIDE} to 4096")
        if not 0 <= self.test_fraction < 1:
            raise UsageError(f"--test-fraction {self.test_fraction:g}: expected 0 to below 1")
        if not 0 <= self.min_brain < 1:
            raise UsageError(f"--min-brain {self.min_brain:g}: expected 0 to below 1")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected 0 or more")
        if self.split not in METHODS:
            raise UsageError(f"--split {self.split}: expected one of {', '.join(METHODS)}")
        for option, value in (
            ("--contrast", self.contrast),
            ("--target-contrast", self.target_contrast),
        ):
            if value not in CONTRASTS:
                raise UsageError(f"{option} {value}: expected one of {', '.join(CONTRASTS)}")
        if self.group_pattern is not None:
            try:
                groups = re.compile(self.group_pattern).groups
            except re.error as error:
                raise UsageError(f"--group-pattern {self.group_pattern}: {error}") from error
            if groups < 1:
                raise UsageError(
                    f"--group-pattern {self.group_pattern}: has no group in parentheses"
                )
