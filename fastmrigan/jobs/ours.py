"""Whose folder it is that a job writes to: run.json says what the job there pins.

The lock does not tell: it goes with a folder that is removed or moved while the job runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastmrigan.errors import UsageError
from fastmrigan.runtime.backends.base import MOST_STREAMS, BackendOptions

CHOSEN = (  # by an option of that name
    *("count", "seed", "split", "label", "shard_size", "format", "dtype", "gate"),
    *("batch", "backend", "precision", "mode"),
)


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


def telling(differs: Sequence[str]) -> str:
    """The name to tell first: streams follow from the threads, for which there is an option."""
    return "threads" if differs[0] == "streams" and "threads" in differs else differs[0]


def settings_of(known: Mapping[str, Any], key: str) -> str:
    """The option with which a run has the `key` that is `known` of a job, where there is one."""
    if key in ("threads", "streams"):
        threads = _threads(known)
        return "with the same settings" if threads is None else f"with --threads {threads}"
    value, option = known.get(key), f"--{key.replace('_', '-')}"
    if key not in CHOSEN or isinstance(value, list):
        return "with the same settings"
    return f"without {option}" if value is None else f"with {option} {value}"


def _threads(known: Mapping[str, Any]) -> int | None:
    """The --threads that are cut into the job's streams, which may be more than these have: of 9,
    4 streams have 2 each. None where no number is."""
    streams, threads = known.get("streams"), known.get("threads")
    if not isinstance(streams, int) or not isinstance(threads, int) or min(streams, threads) < 1:
        return None
    options = BackendOptions(mode=str(known.get("mode")))
    for asked in range(threads, threads + MOST_STREAMS):
        if options.shared_out(asked) == (streams, threads // streams):
            return asked
    return None


def taken_away(out: Path) -> str:
    return (
        f"{out}: was removed, moved or replaced while this job ran; what it had made is not there "
        "any more, and nothing else is written: run the same command to make all of it"
    )
