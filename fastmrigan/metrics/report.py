"""The evaluation as one HTML page that needs nothing else, and the same numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import fastmrigan
from fastmrigan.errors import UsageError
from fastmrigan.files import beside, write_whole
from fastmrigan.metrics.paired import PairResult
from fastmrigan.metrics.report_pictures import change_maps, difference_maps, neighbours, sheets
from fastmrigan.metrics.report_tables import (
    measures_table,
    pairs_table,
    terminal_table,
    tiles,
)
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.metrics.sources import Changes
from fastmrigan.pages.charts import histogram, line_chart
from fastmrigan.pages.page import settings_table, whole_page

if TYPE_CHECKING:
    from fastmrigan.metrics.evaluation import Evaluation

__all__ = ["check_writable", "page", "terminal_table", "write_report"]

TITLE = "Synthetic slices against real ones"
BINS = 64
BLACK = -0.98  # at or below this a pixel counts as background


def check_writable(out: Path) -> None:
    """Finds out before the work whether the report can be written; makes its folder."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: the report is an HTML page; give --out a name ending in .html")
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; give --out the name of a file")
    trial = beside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        trial.open("xb").close()  # never over a file that is there
        trial.unlink()
    except FileExistsError as error:
        raise UsageError(f"{out}: cannot be written: {error.filename} is a file") from error
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error


def write_report(evaluation: Evaluation, out: Path) -> Path:
    """Writes the page at `out` and the numbers beside it; returns the JSON's path."""
    return write_both(out, page(evaluation), evaluation.document())


def write_both(out: Path, html: str, document: Mapping[str, Any]) -> Path:
    """A page and its numbers, each whole or not at all; returns the JSON's path."""
    numbers = out.with_suffix(".json")
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    write_whole(numbers, text.encode())
    write_whole(out, html.encode())
    return numbers


def page(evaluation: Evaluation) -> str:
    """The whole page: style, pictures and charts inside, no link to anything outside."""
    real, made, pairs = evaluation.real, evaluation.synthetic, evaluation.pairs
    made_on = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = [
        f"<h1>{TITLE}</h1>",
        f'<p class="soft">{len(made.slices):,} synthetic and {len(real.slices):,} real slices of '
        f"{real.slices.shape[1]}x{real.slices.shape[2]} pixels, one grey channel. FastMRIGAN "
        f"{escape(fastmrigan.__version__)}, {made_on}.</p>",
        f'<p class="notice">{fastmrigan.NOTICE.capitalize()}. {whom(evaluation)}</p>',
        tiles(evaluation.measures),
        *(f'<p class="warning">{escape(text)}</p>' for text in evaluation.warnings),
    ]
    if pairs is not None:
        sections += pair_sections(pairs)
    sections += [
        "<h2>Numbers</h2>",
        f'<p class="soft">Over {escape(evaluation.over)}, but where a row says otherwise.</p>',
        *([same_heads()] if pairs is not None else []),
        measures_table(evaluation.measures),
        f'<p class="soft">{intervals_text(real, evaluation.changes)}</p>',
        *left_out(evaluation.left_out),
        "<h2>Slices</h2>",
        sheets(real, made, int(evaluation.settings["seed"])),
        *(change_sections(evaluation.changes) if pairs is None else []),
        "<h2>Intensities</h2>",
        intensities(real, made),
    ]
    if evaluation.curves:
        sections += ["<h2>The training run</h2>", curves(evaluation)]
    if evaluation.nearest is not None:
        sections += ["<h2>Nearest real slices</h2>", neighbours(evaluation.nearest, real, made)]
    sections += ["<h2>Settings</h2>", settings_table(evaluation.settings | evaluation.versions)]
    return whole_page(TITLE, sections)


def whom(evaluation: Evaluation) -> str:
    """Whether the synthetic slices show anybody."""
    if evaluation.synthetic.facts.get("task") == "translate":
        return (
            "The synthetic slices are translations of real ones: they keep the anatomy of the "
            "people in them, and are to be protected as those are."
        )
    if evaluation.value("copies_flagged"):
        return (
            "Some of the synthetic slices copy training slices, and show the patients in those: "
            "they are to be protected as those are."
        )
    return "The synthetic slices show no patient."


def pair_sections(pairs: PairResult) -> list[str]:
    items = "".join(f"<li>{escape(note)}</li>" for note in pairs.notes)
    return [
        "<h2>Against the true targets</h2>",
        pairs_table(pairs.rows),
        f'<ul class="soft">{items}</ul>',
        "<h2>Difference maps</h2>",
        difference_maps(pairs),
    ]


def change_sections(changes: Changes | None) -> list[str]:
    return [] if changes is None else ["<h2>What changed</h2>", change_maps(changes)]


def same_heads() -> str:
    return (
        '<p class="soft">The synthetic slices are translations, and the real ones are their true '
        "targets: both sets show the same heads, so a distance between them can fall below its "
        "floor, which is between different slices.</p>"
    )


def intervals_text(real: SliceSet, changes: Changes | None) -> str:
    """What the intervals of the table of measures are."""
    if real.groups is None:
        by = (
            "Slices are taken for independent, since no two patients are named; slices of one head "
            "are not, and the true intervals are wider"
        )
    else:
        by = (
            f"Real slices are taken by patient ({len(np.unique(real.groups)):,}), synthetic ones "
            "for independent"
        )
    if changes is not None and changes.groups is not None:
        by += ", but translations beside their sources by patient"
    return (
        "Intervals of 95 %: of distances by the jackknife (blocks left out in turn), of shares by "
        f"Wilson's formula, of means and medians by the bootstrap. {by}."
    )


def left_out(reasons: Mapping[str, str]) -> list[str]:
    if not reasons:
        return []
    items = "".join(
        f"<li><b>{escape(name)}</b>: {escape(reason)}</li>" for name, reason in reasons.items()
    )
    return ["<h3>Not measured</h3>", f"<ul>{items}</ul>"]


def intensities(real: SliceSet, made: SliceSet) -> str:
    edges = np.linspace(BLACK, 1.0, BINS + 1)
    heights, black = {}, {}
    for name, side in (("real", real), ("synthetic", made)):
        foreground = side.slices[side.slices > BLACK]
        counts, _ = np.histogram(foreground, edges)
        heights[name] = 100 * counts / max(1, len(foreground))
        black[name] = 100 * (1 - len(foreground) / side.slices.size)
    chart = histogram(
        edges,
        heights,
        x_range=(-1.0, 1.0),
        x_label="intensity (-1 black, 1 white)",
        y_label="% of pixels",
    )
    return (
        f"<figure>{chart}<figcaption>Share of the foreground pixels (%) by intensity. Background, "
        f"at or below {BLACK}, is left out: {black['real']:.1f} % of the real and "
        f"{black['synthetic']:.1f} % of the synthetic pixels.</figcaption></figure>"
    )


def curves(evaluation: Evaluation) -> str:
    rows = evaluation.curves
    steps = np.array([row["step"] for row in rows], np.float64)

    def of(key: str) -> npt.NDArray[np.float64]:
        return np.array([row[key] for row in rows], np.float64)

    charts = [
        (
            line_chart(
                steps,
                {"discriminator": of("loss_d"), "generator": of("loss_g")},
                x_label="step",
                y_label="loss",
            ),
            "Losses. They do not say how good the slices are; a discriminator loss that stays near "
            "0 (a Wasserstein loss apart) says that training has stalled.",
        )
    ]
    if all("d_real_accuracy" in row and "d_fake_accuracy" in row for row in rows):
        accuracies = {
            "real called real": of("d_real_accuracy"),
            "fake called fake": of("d_fake_accuracy"),
        }
        charts.append(
            (
                line_chart(
                    steps,
                    accuracies,
                    x_label="step",
                    y_label="share of the batch",
                    y_range=(0.0, 1.0),
                ),
                "Share of each batch that the discriminator called right while training.",
            )
        )
    figures = "".join(
        f"<figure>{chart}<figcaption>{caption}</figcaption></figure>" for chart, caption in charts
    )
    return (
        f'<div class="pair">{figures}</div>'
        f'<p class="soft">Up to step {int(steps[-1]):,}, epoch {rows[-1]["epoch"]:,.1f}; long runs '
        "are averaged in blocks of steps.</p>"
    )
