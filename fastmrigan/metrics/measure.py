"""One number of a report: what it is called, what it means, which way is better, how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "near reference", "context"]


@dataclass(frozen=True)
class Measure:
    """One number of the report."""

    key: str  # stable name in report.json
    name: str
    value: float
    better: Better
    meaning: str
    reference: float | None = None  # the value that real slices themselves give, where there is one
    share: bool = False  # a share of slices, shown in per cent
    interval: tuple[float, float] | None = None  # of 95 %
    section: str = "sets"  # what it stands under on the page: of report_tables.SECTIONS, or pairs
    over: str = ""  # which slices it was taken over, for "over …"
    remark: str = ""  # what must stand beside the value wherever it is shown
