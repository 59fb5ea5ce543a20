"""How commands name the inputs they refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastmrigan.progress import counted

if TYPE_CHECKING:
    from fastmrigan.imaging.walker import Refused

SHOWN = 5  # things of a kind named on the terminal; a file has all


def print_refused(refused: Sequence[Refused], listed: Path, verb: str = "refused") -> None:
    """The first few refused files with their reasons, and where the others are listed."""
    if not refused:
        return
    print(f"{verb} {counted(len(refused), 'file')}, named with the reason in {listed}:")
    for each in refused[:SHOWN]:
        print(f"  {each}")
    if refused[SHOWN:]:
        print(f"  and {len(refused) - SHOWN:,} more")
