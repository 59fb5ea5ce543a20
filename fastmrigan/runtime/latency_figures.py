"""What a bench says of a list of times: percentiles, and how steady they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NEEDS = {"p99": 100, "p99_9": 1000}  # calls below which it would be little more than the largest


def percentiles(times: Any) -> dict[str, Any]:
    """n, min, mean, p50, p90, p99, p99_9 and max of `times` (any unit, at least one).

    Linear interpolation between ranks, as numpy does; p99_9 is None under 1000 of them. p99 is a
    number even of fewer than it NEEDS: who shows it looks at n.
    """
    t = np.asarray(times, np.float64)
    p50, p90, p99, p99_9 = (float(p) for p in np.percentile(t, (50, 90, 99, 99.9)))
    found = {"min": float(t.min()), "mean": float(t.mean()), "p50": p50, "p90": p90, "p99": p99}
    rounded = {name: round(value, 5) for name, value in found.items()}
    tail = round(p99_9, 5) if t.size >= NEEDS["p99_9"] else None
    return {"n": int(t.size), **rounded, "p99_9": tail, "max": round(float(t.max()), 5)}


def jitter(turns: Sequence[Sequence[float]]) -> dict[str, float]:
    """How times (ms) differ, from call to call and over the run; turns in the order of the run.

    std_ms: standard deviation of all. step_ms: mean absolute difference of one call from the one
    before, within a turn; 0 where no turn holds two. drift_ms: the largest median of a turn less
    the smallest, which is what the machine does slowly.
    """
    steps = np.concatenate([np.abs(np.diff(np.asarray(t, np.float64))) for t in turns])
    medians = [median(turn) for turn in turns]
    return {
        "std_ms": round(float(np.std(np.concatenate([np.asarray(t) for t in turns]))), 5),
        "step_ms": round(float(steps.mean()) if steps.size else 0.0, 5),
        "drift_ms": round(max(medians) - min(medians), 5),
    }


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
