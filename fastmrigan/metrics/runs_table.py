"""Many runs and reports of one folder in a few tables, recipe by recipe.

Figures compare only where they were taken against the same real slices with as many synthetic
ones, so every such group has a table of its own, and only within it is a best one marked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import yaml

import fastmrigan
from fastmrigan.errors import UsageError
from fastmrigan.metrics.evaluation import KIND, SCHEMA
from fastmrigan.metrics.report_tables import number
from fastmrigan.metrics.slice_sets import need_folder
from fastmrigan.pages.page import whole_page
from fastmrigan.training.evaluation import BETTER, FILE
from fastmrigan.training.run_files import is_number, read_document, read_evaluations

RUNS_KIND = "fastmrigan-runs"
RUNS_SCHEMA = 1
DEPTH = 4  # folders below the one given
TITLE = "Runs by recipe"


@dataclass(frozen=True)
class Line:
    """A run's best evaluation while it trained, or a report."""

    recipe: str
    name: str  # path below the folder
    step: int | None
    against: str  # what has to be equal for figures to compare
    figures: dict[str, float]
    note: str = ""


@dataclass(frozen=True)
class RunsTable:
    """What a folder holds."""

    folder: Path
    runs: list[Line]
    reports: list[Line]
    unread: list[str]  # what was found and could not be read, a sentence each
    better: dict[str, str]  # figure: lower, higher, near reference or context

    def document(self) -> dict[str, Any]:
        def plain(line: Line) -> dict[str, Any]:
            return {
                "recipe": line.recipe,
                "name": line.name,
                "step": line.step,
                "against": line.against,
                "figures": line.figures,
                "note": line.note,
            }

        return {
            "schema": RUNS_SCHEMA,
            "kind": RUNS_KIND,
            "notice": fastmrigan.NOTICE,
            "runs": [plain(line) for line in self.runs],
            "reports": [plain(line) for line in self.reports],
            "unread": self.unread,
            "versions": {"fastmrigan": fastmrigan.__version__},
        }


def read_runs(folder: Path) -> RunsTable:
    """Every run folder with evaluations, and every report.json, in `folder` and below it.

    Raises UsageError where there is no such folder or neither in it.
    """
    need_folder(folder, "name the folder that holds runs or reports", "--runs")
    runs: list[Line] = []
    reports: list[Line] = []
    unread: list[str] = []
    better: dict[str, str] = dict(BETTER)
    for path in below(folder):
        if path.name == "run.json" and (path.parent / "config.yaml").is_file():
            line = run_line(path.parent, folder, unread)
            runs += [] if line is None else [line]
        elif path.suffix == ".json":
            document = report_document(path, unread)
            if document is not None:
                reports.append(report_line(document, str(path.relative_to(folder))))
                better |= {key: m["better"] for key, m in document["measures"].items()}
    if not runs and not reports:
        raise UsageError(
            f"--runs {folder}: holds no run with evaluations (evaluate_every of `fastmrigan "
            "train`) and no report of `fastmrigan evaluate`; name a folder above some"
        )
    for lines in (runs, reports):
        lines.sort(key=lambda line: (line.recipe, line.name))
    return RunsTable(folder, runs, reports, unread, better)


def below(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """JSON files, in order; not those inside the slices, pictures and checkpoints of a run."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and depth > 0 and not path.is_symlink():
            if path.name not in ("samples", "checkpoints", "tensorboard", "plots"):
                yield from below(path, depth - 1)
        elif path.suffix == ".json":
            yield path


def run_line(run: Path, folder: Path, unread: list[str]) -> Line | None:
    """The best evaluation of a run, or its last; None where it has none."""
    missing: list[str] = []
    facts = read_document(run / "run.json", json.loads, missing)
    recipe = read_document(run / "config.yaml", yaml.safe_load, missing)
    rows = read_evaluations(run / FILE, missing)
    name = str(run.relative_to(folder))
    unread += [f"{name}: {text}" for text in missing]
    if not rows:
        return None
    best = mapping(facts.get("best"))
    row = next((row for row in rows if row["step"] == best.get("step")), rows[-1])
    metric = f"best by {best.get('metric')}" if row["step"] == best.get("step") else "the last"
    figures = {
        key: float(value)
        for key, value in row.items()
        if key not in ("step", "epoch") and is_number(value) and math.isfinite(value)
    }
    dataset = mapping(facts.get("dataset"))
    return Line(
        str(facts.get("recipe", recipe.get("name", "unknown"))),
        name,
        row["step"],
        against(dataset.get("fingerprint"), dataset.get("label"), dataset.get("size"), None),
        figures,
        f"{metric}, of {len(rows)} evaluations; {facts.get('status', 'unknown')}",
    )


def mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def report_document(path: Path, unread: list[str]) -> dict[str, Any] | None:
    """A report.json of `fastmrigan evaluate`; None where the file is something else."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        return None
    schema = document.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        unread.append(f"{path.name}: a report of schema {schema}, newer than the {SCHEMA} known.")
        return None
    found, settings = document.get("measures"), document.get("settings")
    if (
        not isinstance(settings, dict)
        or not isinstance(found, dict)
        or not all(
            isinstance(m, dict) and is_number(m.get("value")) and isinstance(m.get("better"), str)
            for m in found.values()
        )
    ):
        unread.append(f"{path.name}: a damaged report; evaluate again.")
        return None
    return document


def report_line(document: Mapping[str, Any], name: str) -> Line:
    settings = document["settings"]
    step = settings.get("step")
    made = settings.get("synthetic slices")
    return Line(
        str(settings.get("recipe", settings.get("model, recipe", "unknown"))),
        name,
        step if isinstance(step, int) else None,
        ", ".join(
            [
                against(
                    settings.get("real, fingerprint"),
                    settings.get("real, label"),
                    settings.get("slice size"),
                    made,
                    folder=settings.get("real"),
                ),
                *what_was_judged(document),
            ]
        ),
        {key: float(m["value"]) for key, m in document["measures"].items()},
    )


def what_was_judged(document: Mapping[str, Any]) -> list[str]:
    """Of a report: which pairs, and on whose features, where those are not the fixed ones."""
    settings, pairs = mapping(document.get("settings")), document.get("pairs")
    parts = []
    if isinstance(pairs, dict):
        splits = {str(mapping(one).get("split")) for one in pairs.get("slices", [])}
        if pairs.get("judged") == "test":
            parts.append("held-out pairs")
        else:
            parts.append(f"pairs of {' and '.join(sorted(splits))}, none held out")
    for name in ("Inception", "own features"):
        if name in settings:
            parts.append(f"on {str(settings[name]).rpartition(', ')[0]}")  # less its dimension
    return parts


def against(
    fingerprint: object, label: object, size: object, made: object, folder: object = None
) -> str:
    """What figures are held against, as a heading; equal texts compare.

    folder: of real slices that have no fingerprint.
    """
    real = "an unknown dataset" if folder is None else f"folder {folder}"
    if isinstance(fingerprint, str):
        real = f"dataset {fingerprint[:12]}"
    if isinstance(size, list):
        size = "x".join(map(str, size))
    parts = [real, str(size).split(",")[0] if size else "", f"label {label or 'all'}"]
    parts += [f"{made:,} synthetic slices"] if isinstance(made, int) else []
    return ", ".join(part for part in parts if part)


def runs_page(table: RunsTable) -> str:
    """The whole page."""
    made_on = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = [
        f"<h1>{TITLE}</h1>",
        f'<p class="soft">{len(table.runs)} runs and {len(table.reports)} reports below '
        f"{escape(str(table.folder))}. FastMRIGAN {escape(fastmrigan.__version__)}, {made_on}.</p>",
        f'<p class="notice">{fastmrigan.NOTICE.capitalize()}.</p>',
        *(f'<p class="warning">{escape(text)}</p>' for text in table.unread),
    ]
    for title, lines, text in (
        (
            "Reports",
            table.reports,
            "Figures of fastmrigan evaluate. Bold: the best among those that compare, which are "
            "the ones against the same real slices with as many synthetic ones; none where "
            "several share it.",
        ),
        (
            "While training",
            table.runs,
            "Figures of each run's own evaluations, on slices it chose by its seed. Bold: the best "
            "on the same dataset, none where several share it. The best of many evaluations of one "
            "run is a little too good.",
        ),
    ):
        if lines:
            sections += [f"<h2>{title}</h2>", f'<p class="soft">{text}</p>']
            for heading in dict.fromkeys(line.against for line in lines):
                group = [line for line in lines if line.against == heading]
                sections += [f"<h3>{escape(heading)}</h3>", group_table(group, table.better)]
    return whole_page(TITLE, sections)


def group_table(lines: list[Line], better: Mapping[str, str]) -> str:
    """Lines that compare: a row each, a column a figure."""
    columns = [
        key
        for key in dict.fromkeys(key for line in lines for key in line.figures)
        if better.get(key) != "context"  # those are in the JSON
    ]
    best = {key: best_value(lines, key, better.get(key, "context")) for key in columns}
    head = "".join(
        f"<th>{escape(key)}"
        + (f"<br>{better[key]}" if better.get(key) in ("lower", "higher") else "")
        + "</th>"
        for key in columns
    )
    body = "".join(
        f'<tr><td class="name">{escape(line.recipe)}</td><td class="where">{escape(line.name)}'
        f'<span class="hint">{escape(line.note)}</span></td>'
        + number("step", "" if line.step is None else f"{line.step:,}")
        + "".join(cell(key, line.figures.get(key), best[key]) for key in columns)
        + "</tr>\n"
        for line in lines
    )
    return (
        '<div class="wide"><table class="measures"><thead><tr><th>recipe</th><th>where</th>'
        f"<th>step</th>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def cell(key: str, value: float | None, best: float | None) -> str:
    if value is None:
        return number(key, "")
    return number(key, f"<b>{shown(value)}</b>" if value == best else shown(value))


def shown(value: float) -> str:
    return f"{value:.4g}"


def best_value(lines: list[Line], key: str, better: str) -> float | None:
    """The best of at least two figures; None where neither way is better.

    None too where several look the same as the best: the digits shown do not part them.
    """
    known = [line.figures[key] for line in lines if key in line.figures]
    if len(known) < 2 or better not in ("lower", "higher"):
        return None
    best = min(known) if better == "lower" else max(known)
    return best if sum(shown(value) == shown(best) for value in known) == 1 else None


def runs_lines(table: RunsTable) -> str:
    """The same for a terminal, a line a run or report, its first few figures."""
    lines = [*table.reports, *table.runs]
    widths = [max(len(line.recipe) for line in lines), max(len(line.name) for line in lines)]
    return "\n".join(
        f"{line.recipe:<{widths[0]}}  {line.name:<{widths[1]}}  "
        + ", ".join(f"{key} {shown(value)}" for key, value in list(line.figures.items())[:3])
        for line in lines
    )
