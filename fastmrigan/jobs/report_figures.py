"""The figures of a job's report: throughput over time, percentiles, the time of the stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fastmrigan.jobs.history import Event, Run, timeline
from fastmrigan.pages.charts import BOTTOM, HEIGHT, TOP, Frame, nice_top
from fastmrigan.pages.page import figure, soft, table
from fastmrigan.progress import duration
from fastmrigan.runtime.latency_figures import percentiles

Values = npt.NDArray[np.float64]

MOST_BLOCKS = 120  # of the chart
SHARDS_A_BLOCK = 4  # at least; fewer would show the shards and not the rate


def busy_of(runs: Iterable[Run]) -> dict[str, float]:
    """Seconds by stage, over all shards of all runs."""
    total: Counter[str] = Counter()
    for run in runs:
        for line in run.shards:
            total.update(line.get("busy", {}))
    return dict(total)


def rates(runs: Sequence[Run]) -> tuple[Values, Values]:
    """Slices/s [B], of all runs together, in even blocks of the time in which any was at work;
    their edges in seconds, [B + 1]."""
    starts, whole = timeline(runs)
    ends, counts = [], []
    for start, run in zip(starts, runs, strict=True):
        ends += [start + line["elapsed"] for line in run.shards]
        counts += [line["count"] for line in run.shards]
    blocks = max(1, min(MOST_BLOCKS, len(ends) // SHARDS_A_BLOCK))
    edges = np.linspace(0.0, max(whole, 1e-9), blocks + 1)
    made, _ = np.histogram(ends, edges, weights=counts)
    return edges, made / np.diff(edges)


def throughput(runs: Sequence[Run]) -> str:
    """A chart of slices/s over the time of the runs."""
    if not any(run.shards for run in runs):
        return soft("No shard has been made yet.")
    edges, heights = rates(runs)
    unit, seconds = next(
        (unit, s) for unit, s in (("hours", 3600), ("minutes", 60), ("seconds", 1))
        if edges[-1] >= 2 * s or s == 1
    )  # fmt: skip
    frame = Frame((0.0, float(edges[-1]) / seconds), (0.0, nice_top(float(heights.max()))))
    x = edges.repeat(2) / seconds
    y = np.concatenate([[0.0], heights.repeat(2), [0.0]])
    points = frame.points(x, y)
    drawn = [
        f'<polygon class="f0" points="{points}"/>',
        f'<polyline class="s0" points="{points}"/>',
    ]
    starts = sorted({start for start in timeline(runs)[0] if start > 0})
    for start in starts:
        at = float(frame.px(np.array(start / seconds)))
        drawn.append(
            f'<line class="grid" stroke-dasharray="4 3" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" '
            f'y2="{HEIGHT - BOTTOM}"/>'
        )
    chart = frame.svg(drawn, ["slices/s"], f"{unit} of work", "slices/s")
    caption = f"Slices/s in blocks of {duration_told(float(edges[1]))}, by when a shard was done."
    if starts:
        caption += " A dashed line is the start of another run; the time between runs is left out."
    return figure(chart, caption)


def times_table(shards: Iterable[Event]) -> str:
    """Percentiles of the seconds a shard took and for which batches of the engine were waited."""
    lines = list(shards)
    rows = {
        "a shard, from its first engine call to the disk": [x["seconds"] for x in lines],
        "waiting for a batch of the engine": [w for x in lines for w in x.get("waits", ())],
    }
    figures = {
        name: percentiles([1000 * s for s in found]) for name, found in rows.items() if found
    }
    if not figures:
        return ""
    keys = ("p50", "p90", "p99", "max")
    return table(
        ("time of", "n", "p50", "p90", "p99", "longest"),
        [
            (name, f"{found['n']:,}", *(time_told(found[key]) for key in keys))
            for name, found in figures.items()
        ],
    )


def time_told(ms: float) -> str:
    """In three figures: 12.3 ms, 4.56 s; all of them of more: 2,680 s."""
    return f"{ms:.3g} ms" if ms < 999.5 else f"{rate_told(ms / 1000)} s"


def rate_told(value: float) -> str:
    """In three figures: 4.56, 12.3; all of them before the point of more: 2,682."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def duration_told(seconds: float) -> str:
    """Under ten seconds with tenths, then m:ss or h:mm:ss with its unit."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    told = duration(seconds)
    return f"{told} {'h' if told.count(':') == 2 else 'min'}"
