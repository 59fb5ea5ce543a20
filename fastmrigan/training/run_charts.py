"""The columns of metrics.jsonl as charts of the run's page."""

from __future__ import annotations

from html import escape

import numpy as np

from fastmrigan.pages.charts import Frame, nice_top
from fastmrigan.training.run_files import Columns, Values

POINTS = 240  # a longer curve is averaged into this many points
TOTALS = ("loss_d", "loss_g")
SERIES = 6  # lines a chart has colours for


def curves(columns: Columns) -> str:
    """Losses, the discriminator's verdicts, whatever else is logged, and the learning rates."""
    losses = columns.keys(r"loss.*")
    kinds: dict[str, list[str]] = {}  # the two totals, then a kind (cycle, l1, …) a chart
    for key in sorted(losses, key=lambda key: key not in TOTALS):
        kinds.setdefault("" if key in TOTALS else key.split("_")[:2][-1], []).append(key)
    accuracies = columns.keys(r".*accuracy.*")
    rates = columns.keys(r"lr.*")
    known = {*losses, *accuracies, *rates, *columns.keys(r".*_seconds"), "seconds", "epoch"}
    others = [key for key in columns.keys(r".*") if key not in known]
    figures = [
        *(chart(columns, part, "loss") for keys in kinds.values() for part in in_parts(keys)),
        *(chart(columns, part, "share", (0.0, 1.0)) for part in in_parts(accuracies)),
        *(chart(columns, [key], key) for key in others),
        *(chart(columns, part, "learning rate (1e-4)", scale=1e4) for part in in_parts(rates)),
    ]
    if not figures:
        return '<p class="soft">No step has been written down yet.</p>'
    note = "Losses do not say how good the slices are. Long runs are averaged in blocks of steps."
    return f'<div class="curves">{"".join(figures)}</div><p class="soft">{note}</p>'


def in_parts(keys: list[str]) -> list[list[str]]:
    """Keys by the chart: as many as a chart has colours and its legend has room for."""
    parts: list[list[str]] = []
    room = 0.0
    for key in keys:
        needed = 35 + 7.2 * len(key)  # as Frame.svg lays its legend out
        if not parts or len(parts[-1]) == SERIES or needed > room:
            parts.append([])
            room = 424.0
        parts[-1].append(key)
        room -= needed
    return parts


def chart(
    columns: Columns,
    keys: list[str],
    y_label: str,
    y_range: tuple[float, float] | None = None,
    *,
    scale: float = 1.0,
) -> str:
    """A figure of some columns over the steps; `scale` is for the axis, not for the caption."""
    series = {key: columns.series(key) for key in keys}
    drawn = [in_blocks(steps, scale * values) for steps, values in series.values()]
    last = max(float(steps[-1]) for steps, _ in drawn)
    frame = Frame((0.0, last), y_range or range_of([values for _, values in drawn]))
    lines = [
        f'<polyline class="s{i}" points="{frame.points(steps, values)}"/>'
        for i, (steps, values) in enumerate(drawn)
    ]
    newest = ", ".join(f"{key} {values[-1]:.4g}" for key, (_, values) in series.items())
    dropped = sum(len(columns.values[key]) - len(values) for key, (_, values) in series.items())
    if dropped:
        newest += f"; left out are {dropped:,} values that are not finite"
    return (
        f"<figure>{frame.svg(lines, keys, 'step', y_label)}"
        f"<figcaption>{escape(y_label)}; last: {escape(newest)}</figcaption></figure>"
    )


def in_blocks(steps: Values, values: Values) -> tuple[Values, Values]:
    """At most POINTS means over equal blocks of a curve, and the blocks' mean steps."""
    count = min(POINTS, len(values))
    parts = [np.array_split(x, count) for x in (steps, values)]
    means = [np.array([part.mean() for part in split]) for split in parts]
    return means[0], means[1]


def range_of(series: list[Values]) -> tuple[float, float]:
    """From 0, or below it where the curves go there, to a round number above all but spikes."""
    top = max(float(np.quantile(values, 0.99)) for values in series)
    low = min(float(np.quantile(values, 0.01)) for values in series)
    if low >= 0:
        return 0.0, nice_top(top)
    return -nice_top(-low), nice_top(top) if top > 0 else 0.0
