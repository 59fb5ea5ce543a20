"""DICOM that may carry text in its pixels: a name burned in is identity that no header gives away.

BurnedInAnnotation (0028,0301, PS3.3 C.7.6.1.1.5) says whether it does; most scanners leave it out.
Pictures carry no such word and are not quarantined: look at the contact sheet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from fastmrigan.imaging.options import BURNED_IN
from fastmrigan.imaging.walker import Refused

REASONS = {
    "unknown": "does not say whether text is burned into its pixels (BurnedInAnnotation absent)",
    "yes": "text is burned into its pixels (BurnedInAnnotation YES)",
}


def reason(burned_in: Literal["no", "unknown", "yes"], allowed: str) -> str | None:
    """Why a file is set aside; None where it may be used. allowed: one of options.BURNED_IN."""
    if BURNED_IN.index(burned_in) <= BURNED_IN.index(allowed):
        return None
    return REASONS[burned_in]


def remedy(quarantined: Sequence[Refused]) -> str:
    """One line: how many files of each kind, and what lets them in."""
    kinds = Counter("yes" if REASONS["yes"] in each.reason else "unknown" for each in quarantined)
    told = {"unknown": "without BurnedInAnnotation", "yes": "with text burned in"}
    counts = ", ".join(f"{kinds[kind]:,} {told[kind]}" for kind in told if kinds[kind])
    least = "yes" if kinds["yes"] and not kinds["unknown"] else "unknown"
    return f"{counts}; look at them, and use --allow-burned-in {least} where there is no text"
