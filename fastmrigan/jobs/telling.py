"""Telling of a job without a say in it: what cannot be told is said once, and the job goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastmrigan.errors import DiskFull, FastMriganError
from fastmrigan.files import is_full
from fastmrigan.jobs.ours import TakenAway


class Telling:
    """Attempts to tell something, whose failures are said by `say`, a line each, none twice."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()

    def attempt(self, path: Path, tell: Callable[[], None]) -> bool:
        """Calls `tell`, which is to write `path`; False where something stood against it."""
        try:
            tell()
        except TakenAway as error:  # the slices are gone with the folder
            self._once(str(error), f"warning: {error}")
            return False
        except Exception as error:  # a mistake of ours in the telling is no reason to stop either
            reason = reason_of(error)
            self._once(
                reason,
                f"warning: {path}: {reason}; the slices are not affected, but what the job tells "
                "of itself may lack something",
            )
            return False
        return True

    def _once(self, reason: str, line: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            self._say(line)


def reason_of(error: Exception) -> str:
    """In a few words; of what is no error of a file or an input, its kind too."""
    if isinstance(error, DiskFull):
        return "no space left"
    if isinstance(error, OSError):
        return "no space left" if is_full(error) else f"cannot be written: {error.strerror}"
    return str(error) if isinstance(error, FastMriganError) else repr(error)
