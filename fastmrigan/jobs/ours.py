"""Whose folder it is that a job writes to: run.json says what the job there pins.

The lock does not tell: it goes with a folder that is removed or moved while the job runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastmrigan.errors import UsageError


class TakenAway(UsageError):
    """The folder is not the job's any more: nothing may be written there."""


def check_ours(out: Path, pinned: dict[str, Any]) -> None:
    """Raises TakenAway where the folder was taken away since, or another job began in its place."""
    try:
        known = pinned_in(out)
        ours = not differing(known, pinned, known | pinned)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError):
        ours = False
    if not ours:
        raise TakenAway(taken_away(out))


def pinned_in(out: Path) -> dict[str, Any]:
    """What the job in `out` pins. Raises OSError, ValueError."""
    known: dict[str, Any] = json.loads((out / "run.json").read_text())
    return known


def differing(known: dict[str, Any], pinned: dict[str, Any], keys: Iterable[str]) -> list[str]:
    """Which of the names in run.json two jobs pin differently."""
    return [key for key in keys if known.get(key) != pinned.get(key)]


def taken_away(out: Path) -> str:
    return (
        f"{out}: was removed, moved or replaced while this job ran; what it had made is not there "
        "any more, and nothing else is written: run the same command to make all of it"
    )
