"""Interleaved timing, shared by the benchmarks: every side in turn, in many short rounds.

A shared machine is slow for seconds at a time and then fast again; sides that are timed within the
same few milliseconds are slow together, so their ratio holds where their times do not.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """How many times longer one side takes than the other."""

    of_medians: float
    per_round: float  # median of the ratios within a round
    low: float  # quartiles of the same
    high: float

    def __str__(self) -> str:
        return f"{self.of_medians:.2f}x ({self.per_round:.2f}, {self.low:.2f} to {self.high:.2f})"


def ratio(slow: list[float], fast: list[float]) -> Ratio:
    """slow, fast: seconds per call, one a round, of the same rounds."""
    per_round = [s / f for s, f in zip(slow, fast, strict=True)]
    low, middle, high = statistics.quantiles(per_round, n=4, method="inclusive")
    return Ratio(statistics.median(slow) / statistics.median(fast), middle, low, high)


def interleave(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    budget: float = 12.0,
    turn: float = 4e-3,
    least: int = 9,
    alone: Mapping[str, float] | None = None,
) -> dict[str, list[float]]:
    """Seconds per call of each side, one a round; the order is turned round every second round.

    A side's turn holds as many calls as fill `turn` seconds, at least one. There are `rounds`
    rounds, or as many as fill `budget` seconds where that is fewer, but at least `least`. alone:
    seconds of a call of each side, where they are warm and that is known; else both come first.
    """
    alone = alone or {name: _seconds(call, 3) for name, call in sides.items()}
    calls = {name: max(1, math.ceil(turn / one)) for name, one in alone.items()}
    fitting = budget / sum(calls[name] * alone[name] for name in sides)
    rounds = min(rounds, max(least, int(fitting)))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
                began = time.perf_counter()
                for _ in range(calls[name]):
                    sides[name]()
                seconds[name].append((time.perf_counter() - began) / calls[name])
    finally:
        if collecting:
            gc.enable()
    return seconds


def _seconds(call: Callable[[], object], tries: int) -> float:
    """The shortest of a few calls, after two that warm up."""
    call()
    call()
    best = math.inf
    for _ in range(tries):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return max(best, 1e-9)


def summary(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Minimum and median of each side, in milliseconds."""
    return {
        name: {"min_ms": 1e3 * min(times), "median_ms": 1e3 * statistics.median(times)}
        for name, times in seconds.items()
    }
