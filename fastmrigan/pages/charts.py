"""Two small charts as inline SVG: no scripts, no fonts to fetch, colours from the page's CSS.

Series i takes the CSS classes `s<i>` (line) and `f<i>` (filled area); text and grid take the
page's own colours, so a chart reads in light and dark alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 30, 38  # room for the legend above and the labels
POINTS = 240  # a longer series is averaged into this many points


def line_chart(
    x: Values,
    series: dict[str, Values],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> str:
    """Lines of several series over x > 0, each [N]; averaged in blocks where N is large."""
    if y_range is None:
        # The few highest spikes of a loss would flatten all the rest.
        top = max(float(np.quantile(_blocks(values), 0.99)) for values in series.values())
        y_range = (0.0, nice_top(top))
    frame = Frame((0.0, float(x[-1])), y_range)
    drawn = [
        f'<polyline class="s{i}" points="{frame.points(_blocks(x), _blocks(values))}"/>'
        for i, values in enumerate(series.values())
    ]
    return frame.svg(drawn, list(series), x_label, y_label)


def histogram(
    edges: Values,
    series: dict[str, Values],
    *,
    x_range: tuple[float, float],
    x_label: str,
    y_label: str,
) -> str:
    """Filled steps of several series of bin heights [B] over edges [B + 1] within x_range."""
    top = nice_top(max(float(heights.max()) for heights in series.values()))
    frame = Frame(x_range, (0.0, top))
    drawn = []
    for i, heights in enumerate(series.values()):
        x = np.concatenate([edges[:1], edges.repeat(2)[1:-1], edges[-1:]])
        y = np.concatenate([[0.0], heights.repeat(2), [0.0]])
        points = frame.points(x, y)
        drawn.append(f'<polygon class="f{i}" points="{points}"/>')
        drawn.append(f'<polyline class="s{i}" points="{points}"/>')
    return frame.svg(drawn, list(series), x_label, y_label)


class Frame:
    """The plotting area: data coordinates to SVG's, axes, grid and legend."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self.x0, self.x1 = x_range
        self.y0, self.y1 = y_range
        if self.x1 <= self.x0:
            self.x1 = self.x0 + 1.0

    def px(self, x: Values) -> Values:
        return LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def py(self, y: Values) -> Values:
        share = np.clip((y - self.y0) / (self.y1 - self.y0), 0, 1)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def points(self, x: Values, y: Values) -> str:
        pairs = zip(self.px(x), self.py(y), strict=True)
        return " ".join(f"{px:.1f},{py:.1f}" for px, py in pairs)

    def svg(self, drawn: list[str], names: Sequence[str], x_label: str, y_label: str) -> str:
        parts = []
        for y in np.linspace(self.y0, self.y1, 5):
            height = float(self.py(y))
            value = f"{y:.3g}" if abs(y) < 1000 else f"{y:,.0f}"
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
                f'y1="{height:.1f}" y2="{height:.1f}"/>'
                f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{value}</text>'
            )
        for x in round_ticks(self.x0, self.x1):
            at = float(self.px(x))
            anchor = "end" if at > WIDTH - 30 else "middle"
            parts.append(
                f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" '
                f'text-anchor="{anchor}">{x:,.6g}</text>'
            )
        parts.append(
            f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">'
            f"{escape(x_label)}</text>"
        )
        at = float(LEFT)
        for i, name in enumerate(names):
            parts.append(f'<rect class="key{i}" x="{at:.0f}" y="8" width="12" height="12"/>')
            parts.append(f'<text x="{at + 17:.0f}" y="18">{escape(name)}</text>')
            at += 17 + 7.2 * len(name) + 18
        label = escape(f"{y_label} by {x_label}: {', '.join(names)}", quote=True)
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
            + "".join(parts + drawn)
            + "</svg>"
        )


def nice_top(value: float) -> float:
    """A round number at or above value, its quarters round too."""
    if not value > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    steps = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
    return float(power * next(step for step in steps if step * power >= value * (1 - 1e-9)))


def round_ticks(low: float, high: float) -> Values:
    """The multiples of a round number within [low, high], about four of them."""
    step = nice_top((high - low) / 4)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return step * np.arange(first, last + 1) + 0.0  # + 0.0: the ceiling of -1e-9 is -0.0


def _blocks(values: Values) -> Values:
    """At most POINTS means over equal blocks of a series."""
    return np.array([part.mean() for part in np.array_split(values, min(POINTS, len(values)))])
