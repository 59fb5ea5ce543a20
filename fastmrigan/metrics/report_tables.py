"""The tables of a report, on the page and in the terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from html import escape

from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.paired import Row

BETTER = {
    "lower": "lower is better",
    "higher": "higher is better",
    "near reference": "near the reference is better",
    "context": "for comparison",
}
SECTIONS = {  # of the table of measures, in their order
    "sets": "Synthetic against real slices",
    "sources": "Translations against their sources",
    "tumours": "Tumours",
    "copies": "Copies of training slices",
    "run": "The run's own discriminator",
}
TILES = (
    "ssim_brain",
    "psnr_brain",
    "mae_brain",
    "fid",
    "fd_random",
    "fd_random_over_floor",
    "fd_random_over_untrained",
    "fd_random_over_untranslated",
    "called_tumour",
    "real_or_fake",
    "copies_flagged",
)
MOST_TILES = 6
NAME_WIDTH = 36  # characters, in the terminal
INDENT = " " * 4  # of what goes on below its line there


def shown(measure: Measure, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if measure.share else f"{value:.4g}"


def shown_interval(measure: Measure) -> str:
    """`low to high`, or nothing."""
    return "" if measure.interval is None else span(measure.interval, share=measure.share)


def span(interval: tuple[float, float], *, share: bool = False) -> str:
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f} %" if share else f"{low:.3g} to {high:.3g}"


def tiles(measures: Iterable[Measure]) -> str:
    """The figures to see first, each with the slices it is over."""
    found = {m.key: m for m in measures}
    boxes = [tile(found[key]) for key in TILES if key in found]
    return f'<div class="tiles">{"".join(boxes[:MOST_TILES])}</div>'


def tile(m: Measure) -> str:
    lines = [
        m.name,
        shown_interval(m),
        f"reference {shown(m, m.reference)}" if m.better == "near reference" else "",
        BETTER[m.better],
        f"over {m.over}" if m.over else "",
    ]
    text = "<br>".join(escape(line) for line in lines if line)
    remark = f'<span class="remark">{escape(m.remark)}</span>' if m.remark else ""
    return f'<div class="tile"><b>{shown(m, m.value)}</b><span>{text}</span>{remark}</div>'


def measures_table(measures: Iterable[Measure]) -> str:
    """Every measure but those of the pairs, which have a table of their own."""
    body = ""
    found = list(measures)
    for section, title in SECTIONS.items():
        rows = [measure_row(m) for m in found if m.section == section]
        if rows:
            body += f'<tr class="part"><th colspan="5">{title}</th></tr>\n{"".join(rows)}'
    return (
        '<table class="measures"><thead><tr><th>measure</th><th>value, 95 % interval</th>'
        "<th>reference</th><th>direction</th><th>what it means</th></tr></thead><tbody>\n"
        f"{body}</tbody></table>"
    )


def measure_row(m: Measure) -> str:
    remark = f" <b>{escape(m.remark)}</b>" if m.remark else ""
    return (
        f'<tr><td class="name">{escape(m.name)}</td>'
        + number("value", shown(m, m.value), shown_interval(m))
        + (number("reference", shown(m, m.reference)) if m.reference is not None else "<td></td>")
        + f'<td class="direction">{BETTER[m.better]}</td>'
        + f"<td>{escape(m.meaning)}{remark}</td></tr>\n"
    )


def pairs_table(rows: Iterable[Row]) -> str:
    """The translation beside its two floors."""
    body = ""
    for row in rows:
        m = row.measure
        gain = "" if row.gain is None else f"{row.gain:+.3g}"
        reach = "" if row.gain_interval is None else span(row.gain_interval)
        body += (
            f'<tr><td class="name">{escape(m.name)}'
            f'<span class="hint">{escape(row.hint)}</span></td>'
            + number("translation", shown(m, m.value), shown_interval(m))
            + number("plain copy", "exact" if row.copy is None else shown(m, row.copy))
            + number("intensity table", shown(m, row.table))
            + number("better than the table by", gain, reach)
            + f'<td class="direction">{BETTER[m.better]}</td></tr>\n'
        )
    return (
        '<table class="measures"><thead><tr><th>measure</th><th>translation</th>'
        "<th>plain copy</th><th>intensity table</th><th>better than the table by</th>"
        f"<th>direction</th></tr></thead><tbody>\n{body}</tbody></table>"
    )


def number(name: str, value: str, interval: str = "") -> str:
    """A cell; `name` stands before the value where the page is narrow."""
    if not value:
        return "<td></td>"
    reach = f'<span class="interval">{interval}</span>' if interval else ""
    return f'<td class="number" data-name="{escape(name)}">{value}{reach}</td>'


def terminal_table(measures: Iterable[Measure]) -> str:
    """The numbers as plain lines, aligned, no wider than the terminal (80 where unknown).

    What has no room goes on below its line; nothing is left out.
    """
    rows = [
        (
            m.name,
            shown(m, m.value),
            f"({shown_interval(m)})" if m.interval is not None else "",
            f"ref. {shown(m, m.reference)}" if m.reference is not None else "",
            BETTER[m.better] if m.better in ("lower", "higher") else "",
            m.remark,
        )
        for m in measures
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    columns = shutil.get_terminal_size().columns
    room = max(8, columns - widths[1] - 2)  # for names, beside values
    widths[0] = min(widths[0], NAME_WIDTH, room)  # what is longer shifts its own line
    lines = []
    for name, value, interval, reference, better, remark in rows:
        *above, last = textwrap.wrap(name, room) or [""]
        lines += above
        line = f"{last:<{widths[0]}}  {value:>{widths[1]}}"
        for part, width in ((interval, widths[2]), (reference, widths[3]), (better, 0)):
            longer = f"{line}  {part:<{width}}"
            if part and len(longer.rstrip()) > columns:
                longer = f"{line.rstrip()}  {part}"  # not aligned
                if len(longer) > columns:
                    lines.append(line.rstrip())
                    longer = f"{INDENT}{part:<{width}}"
            line = longer
        lines.append(line.rstrip())
        lines += textwrap.wrap(
            remark, max(8, columns), initial_indent=INDENT, subsequent_indent=INDENT
        )
    return "\n".join(lines)
