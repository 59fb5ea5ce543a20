"""RUN/run.html: what a run folder holds, on one page that needs nothing else.

Made from the files of the folder alone, so that it can be written in the middle of a run, after
it, or for half a run folder; what is missing or unreadable is named on the page. No script, no
network; style and charts are those of the evaluation report.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import yaml

import fastmrigan
from fastmrigan.errors import UsageError
from fastmrigan.files import write_whole
from fastmrigan.pages.page import settings_table, soft, whole_page
from fastmrigan.pages.page import tiles as page_tiles
from fastmrigan.progress import duration
from fastmrigan.training.evaluation import BETTER, FILE
from fastmrigan.training.run_charts import curves
from fastmrigan.training.run_files import (
    Columns,
    is_number,
    read_columns,
    read_document,
    read_evaluations,
)
from fastmrigan.training.run_pictures import grids

PAGE = "run.html"
SHOWN_EVALUATIONS = 40  # rows of the table, the newest

_BOTH_WAYS = (
    "A row: a source slice, translated to the target, and back again; "
    "then a target slice, translated to the source, and back again."
)
GRID = {  # by the recipe's system: what its grids show
    "gan": "From the same latents at every step.",
    "progan": "From the same latents at every step.",
    "cyclegan": _BOTH_WAYS,
    "style-transfer-gan": _BOTH_WAYS,
    "pix2pix": "A row: a source slice, its translation, and its true target.",
}
FIGURES = {  # by a figure of evaluation.jsonl: what is to be known about it and its like
    "fd_random": "fd_random: Frechet distance to real slices on fixed random features; it is not "
    "FID. fd_random_floor: the same between halves of the real slices.",
    "psnr": "psnr in dB, mae in units of [-1, 1]; those ending in _brain are taken inside the "
    "brain alone.",
}

STYLE = """
.s2 { stroke: #2f8f5b; } .s3 { stroke: #8a52b8; } .s4 { stroke: #b03a5b; } .s5 { stroke: #7d7420; }
.key2 { fill: #2f8f5b; } .key3 { fill: #8a52b8; } .key4 { fill: #b03a5b; } .key5 { fill: #7d7420; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.curves { gap: 1.2rem 1rem; }
.thumbs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(45%, 12rem), 1fr)); }
.thumbs { gap: .9rem; }
.thumbs img, .newest img { image-rendering: auto; }
.newest img { width: auto; max-width: 100%; min-width: min(100%, 32rem); }
.best { font-weight: 700; }
.settings td { padding-top: .25rem; padding-bottom: .25rem; }
.settings td:first-child { width: 18rem; font-size: .875rem; }
@media (max-width: 640px) {
  .settings td:first-child { width: 50%; }
}
"""


def write_run_page(run: Path) -> Path:
    """Writes RUN/run.html, whole or not at all, and returns its path.

    Raises UsageError where there is no such folder, DiskFull or another OSError where the page
    cannot be written; nothing the folder holds or lacks raises.
    """
    target = run / PAGE
    write_whole(target, page(run).encode(), sync=False)  # it can be made again
    return target


def page(run: Path) -> str:
    """The whole page of a run folder, at most 2 MB."""
    if not run.is_dir():
        raise UsageError(f"{run}: no such run folder; give the --out of a training run")
    missing: list[str] = []
    facts = read_document(run / "run.json", json.loads, missing)
    recipe = read_document(run / "config.yaml", yaml.safe_load, missing)
    columns = read_columns(run / "metrics.jsonl", missing)
    evaluations = read_evaluations(run / FILE, missing)
    pictures = grids(run / "samples", missing)
    dataset = facts.pop("dataset", None)

    name = str(facts.get("recipe", recipe.get("name", "a run")))
    sections = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="soft">{escape(str(recipe.get("paper", "")))}</p>',
        tiles(facts, columns),
        *(f'<p class="warning">{escape(text)}</p>' for text in missing),
        "<h2>Slices made on the way</h2>",
        soft(GRID.get(str(recipe.get("system")), "")),
        pictures,
        "<h2>Evaluation</h2>",
        evaluation_table(evaluations),
        "<h2>Curves</h2>",
        curves(columns),
        "<h2>Time</h2>",
        phases(columns),
    ]
    for title, document in (("Recipe", recipe), ("Dataset", dataset), ("Run", facts)):
        sections.append(f"<h2>{title}</h2>")
        rows = dict(flat(document)) if isinstance(document, dict) else {}
        sections.append(settings_table(rows) if rows else soft("Nothing is known yet."))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections.append(
        f'<p class="soft">Written {now} by FastMRIGAN {escape(fastmrigan.__version__)} from '
        f"the folder {escape(run.resolve().name)}. {fastmrigan.NOTICE.capitalize()}.</p>"
    )
    return whole_page(f"{escape(name)}: training run", sections, STYLE)


def tiles(facts: Mapping[str, Any], columns: Columns) -> str:
    """Where the run stands; the metrics know it sooner than run.json does."""
    status = str(facts.get("status", "unknown"))
    boxes = [(status, "status when run.json was written")]
    step = columns.last.get("step", facts.get("step"))
    if is_number(step):
        boxes.append((f"{step:,}", "steps"))
    epoch = columns.last.get("epoch", facts.get("epoch"))
    if is_number(epoch):
        boxes.append((f"{epoch:,.1f}", "epochs"))
    seconds = columns.last.get("seconds", facts.get("elapsed_seconds"))
    if is_number(seconds) and math.isfinite(seconds):
        time = duration(seconds)
        boxes.append((time, f"of training ({'h:mm:ss' if time.count(':') == 2 else 'm:ss'})"))
    return page_tiles(boxes)


def evaluation_table(rows: list[dict[str, Any]]) -> str:
    """A row an evaluation, the newest first; the best of each metric in bold."""
    if not rows:
        return soft("No evaluation has been written down.")
    names = list(dict.fromkeys(key for row in rows for key in row if key not in ("step", "epoch")))
    best = {name: best_row(rows, name) for name in names if name in BETTER}
    head = "".join(
        f"<th>{escape(name)}{f'<br>{BETTER[name]} is better' if name in BETTER else ''}</th>"
        for name in names
    )
    shown = list(enumerate(rows))[: -SHOWN_EVALUATIONS - 1 : -1]
    body = ""
    for index, row in shown:
        cells = [f'<td class="number">{row["step"]:,}</td>', number_cell(row.get("epoch"), "")]
        cells += [
            number_cell(row.get(name), " best" if best.get(name) == index else "") for name in names
        ]
        body += f"<tr>{''.join(cells)}</tr>\n"
    left_out = len(rows) - len(shown)
    notes = [text for name, text in FIGURES.items() if name in names]
    notes += ["Bold: the best so far."] if best else []
    notes += [f"{left_out:,} earlier evaluations are in {FILE}."] if left_out else []
    return (
        f'<div class="wide"><table><thead><tr><th>step</th><th>epoch</th>{head}</tr></thead>'
        f"<tbody>\n{body}</tbody></table></div>{soft(' '.join(notes))}"
    )


def best_row(rows: list[dict[str, Any]], name: str) -> int | None:
    """The first row with the best finite value of a metric."""
    found = {
        i: float(row[name])
        for i, row in enumerate(rows)
        if is_number(row.get(name)) and not math.isnan(row[name])
    }
    if not found:
        return None
    choose = max if BETTER[name] == "higher" else min
    return choose(found, key=lambda i: found[i])


def number_cell(value: object, extra: str) -> str:
    text = f"{value:.4g}" if is_number(value) else "" if value is None else str(value)
    return f'<td class="number{extra}">{escape(text)}</td>'


def phases(columns: Columns) -> str:
    """Each phase's share of the time and its mean a step, over all the steps written down."""
    totals = {
        key.removesuffix("_seconds").replace("_", " "): float(columns.series(key)[1].sum())
        for key in columns.keys(r".*_seconds")
    }
    timed = sum(totals.values())
    if not timed > 0:
        return soft("No phase has been timed yet.")
    steps = max(map(len, columns.values.values()))  # not every step has every phase
    whole = timed
    elapsed = columns.last.get("seconds")
    rows = dict(sorted(totals.items(), key=lambda item: -item[1]))
    if is_number(elapsed) and math.isfinite(elapsed) and elapsed > timed:
        whole = elapsed
        rows["outside the steps (samples, checkpoints, evaluation)"] = elapsed - timed
    body = "".join(
        f'<tr><td class="name">{escape(name)}</td>'
        f'<td class="number">{100 * total / whole:.1f} %</td>'
        f'<td class="share"><i style="width:{100 * total / whole:.1f}%"></i></td>'
        f'<td class="number">&nbsp; {1000 * total / steps:.3g}</td></tr>\n'
        for name, total in rows.items()
    )
    return (
        '<table><thead><tr><th>phase</th><th>share</th><th class="share"></th>'
        f"<th>ms a step</th></tr></thead><tbody>\n{body}</tbody></table>"
    )


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Leaves by their dotted names; a list of texts a row each, of numbers all in one."""
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(item, str) for item in value):
            for number, item in enumerate(value, 1):
                yield f"{prefix}{key} {number}", item
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{prefix}{key}", "none" if value is None else as_yaml(value)


def as_yaml(value: object) -> object:
    """True as a recipe writes it."""
    return str(value).lower() if isinstance(value, bool) else value
