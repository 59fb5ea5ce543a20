"""What the stages of a job take: each process counts its seconds, and their sums tell what limits.

A stage is a piece of work that occupies one thread of a process. Its share is the part of the time
in which that thread was at it, the mean over the workers; the stage with the largest share limits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

STAGES = ("read", "engine", "quantise", "write")  # in the order of the work; a job may add others


class Stopwatch:
    """`seconds` spent in its `with` statements so far; of one thread."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.seconds += time.perf_counter() - self._began


class Stages:
    """Adds up what several processes count, each from 0 on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}  # by stage, of all workers together
        self._counted: dict[int, dict[str, float]] = {}  # by worker

    def add(self, worker: int, busy: Mapping[str, float]) -> dict[str, float]:
        """Takes a worker's counts; returns the seconds by stage since the last ones.

        A count below the last one is that of a process that took the dead worker's place.
        """
        before = self._counted.get(worker, {})
        if any(busy.get(stage, 0.0) < counted for stage, counted in before.items()):
            before = {}
        self._counted[worker] = dict(busy)
        spent = {stage: counted - before.get(stage, 0.0) for stage, counted in busy.items()}
        for stage, seconds in spent.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        return spent


def shares(seconds: Mapping[str, float], elapsed: float, workers: int) -> dict[str, float]:
    """The share of each stage that took any time, 0 to 1, in the order of the work."""
    order = [*STAGES, *(stage for stage in seconds if stage not in STAGES)]
    whole = max(elapsed * workers, 1e-9)
    return {s: min(1.0, seconds[s] / whole) for s in order if seconds.get(s, 0.0) > 0}


def limiting(found: Mapping[str, float]) -> str | None:
    """The stage of the largest share."""
    return max(found, key=lambda stage: found[stage]) if found else None
