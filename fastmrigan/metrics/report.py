"""The evaluation as one HTML page that needs nothing else, and the same numbers as JSON."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import fastmrigan
from fastmrigan.errors import UsageError
from fastmrigan.files import beside, write_whole
from fastmrigan.imaging.contact_sheet import contact_sheet
from fastmrigan.metrics.charts import histogram, line_chart
from fastmrigan.metrics.evaluation import Evaluation
from fastmrigan.metrics.measures import Measure
from fastmrigan.metrics.slice_sets import SliceSet

Float32 = npt.NDArray[np.float32]

TITLE = "Synthetic slices against real ones"
BINS = 64
BLACK = -0.98  # at or below this a pixel counts as background

BETTER = {
    "lower": "lower is better",
    "higher": "higher is better",
    "near reference": "near the reference is better",
    "context": "for comparison",
}
TILES = ("fd_random", "fd_random_over_floor", "fd_random_over_untrained", "called_tumour")


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
    numbers = out.with_suffix(".json")
    document = json.dumps(evaluation.document(), indent=2, allow_nan=False) + "\n"
    write_whole(numbers, document.encode())
    write_whole(out, page(evaluation).encode())
    return numbers


def page(evaluation: Evaluation) -> str:
    """The whole page: style, pictures and charts inside, no link to anything outside."""
    style = (resources.files("fastmrigan.metrics") / "report.css").read_text(encoding="utf-8")
    real, made = evaluation.real, evaluation.synthetic
    made_on = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = [
        f"<h1>{TITLE}</h1>",
        f'<p class="soft">{len(made.slices):,} synthetic and {len(real.slices):,} real slices of '
        f"{real.slices.shape[1]}x{real.slices.shape[2]} pixels, one grey channel. FastMRIGAN "
        f"{escape(fastmrigan.__version__)}, {made_on}.</p>",
        f'<p class="notice">{fastmrigan.NOTICE.capitalize()}. {whom(made)}</p>',
        tiles(evaluation),
        *(f'<p class="warning">{escape(text)}</p>' for text in evaluation.warnings),
        "<h2>Numbers</h2>",
        measures_table(evaluation.measures),
        "<h2>Slices</h2>",
        sheets(evaluation),
        "<h2>Intensities</h2>",
        intensities(real, made),
    ]
    if evaluation.curves:
        sections += ["<h2>The training run</h2>", curves(evaluation)]
    sections += [
        "<h2>Nearest real slices</h2>",
        neighbours(evaluation),
        "<h2>Settings</h2>",
        settings_table(evaluation.settings | evaluation.versions),
    ]
    body = "\n".join(sections).replace(" %", "&nbsp;%")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{TITLE}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )


def whom(made: SliceSet) -> str:
    """Whether the synthetic slices show anybody."""
    if made.facts.get("task") == "translate":
        return (
            "The synthetic slices are translations of real ones: they keep the anatomy of the "
            "people in them, and are to be protected as those are."
        )
    return "The synthetic slices show no patient."


def shown(measure: Measure, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if measure.share else f"{value:.4g}"


def tiles(evaluation: Evaluation) -> str:
    found = {m.key: m for m in evaluation.measures}
    boxes = [
        f'<div class="tile"><b>{shown(found[key], found[key].value)}</b>'
        f"<span>{escape(found[key].name)}<br>{BETTER[found[key].better]}</span></div>"
        for key in TILES
        if key in found
    ]
    return f'<div class="tiles">{"".join(boxes)}</div>'


def measures_table(measures: Iterable[Measure]) -> str:
    rows = "".join(
        f'<tr><td class="name">{escape(m.name)}</td>'
        f'<td class="number" data-name="value">{shown(m, m.value)}</td>'
        + (
            f'<td class="number" data-name="reference">{shown(m, m.reference)}</td>'
            if m.reference is not None
            else "<td></td>"
        )
        + f'<td class="direction">{BETTER[m.better]}</td><td>{escape(m.meaning)}</td></tr>\n'
        for m in measures
    )
    return (
        '<table class="measures"><thead><tr><th>measure</th><th>value</th><th>reference</th>'
        f"<th>direction</th><th>what it means</th></tr></thead><tbody>\n{rows}</tbody></table>"
    )


def sheets(evaluation: Evaluation) -> str:
    """Equally many slices of both sides, drawn at random, side by side."""
    height = max(evaluation.real.slices.shape[1:])
    columns = 8 if height <= 96 else 6 if height <= 160 else 4
    count = min(columns**2, len(evaluation.real.slices), len(evaluation.synthetic.slices))
    draws = np.random.default_rng(evaluation.settings["seed"])
    figures = []
    for name, side in (("real", evaluation.real), ("synthetic", evaluation.synthetic)):
        chosen = np.sort(draws.choice(len(side.slices), count, replace=False))
        sheet = contact_sheet(side.slices[chosen], columns=columns)
        figures.append(
            f"<figure>{picture(sheet, f'{count} {name} slices')}"
            f"<figcaption>{name}: {count} slices drawn at random, none picked by hand"
            "</figcaption></figure>"
        )
    return f'<div class="pair">{"".join(figures)}</div>'


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
                y_label="loss (nats)",
            ),
            "Losses (nats). They do not say how good the slices are; a discriminator loss near 0 "
            "says that training has stalled.",
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


def neighbours(evaluation: Evaluation) -> str:
    found = evaluation.neighbours
    figures = []
    for made, real, correlation in zip(
        evaluation.neighbour_of, found.index, found.correlation, strict=True
    ):
        pair = np.stack([evaluation.synthetic.slices[made], evaluation.real.slices[real]])
        picked = picture(contact_sheet(pair, columns=2), f"synthetic slice {made} and a real one")
        split = "test" if evaluation.real.held_out[real] else "train"
        figures.append(
            f"<figure>{picked}<figcaption>no. {made}, r = {correlation:.2f} ({split})"
            "</figcaption></figure>"
        )
    return (
        f'<p class="soft">{len(figures)} synthetic slices drawn at random (left of each pair), '
        "each with the real slice most like it (right), by pixel correlation r at 32x32. A pair "
        "that is the same in every fold is a copy, and a reason not to share the generator.</p>"
        f'<div class="neighbours">{"".join(figures)}</div>'
    )


def settings_table(rows: dict[str, object]) -> str:
    cells = "".join(
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>\n"
        for key, value in rows.items()
    )
    return f'<table class="settings"><tbody>\n{cells}</tbody></table>'


def picture(grey: npt.NDArray[np.uint8], description: str) -> str:
    """uint8 [H, W] as an <img> that carries its own PNG."""
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    height, width = grey.shape
    return (
        f'<img alt="{escape(description, quote=True)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">'
    )


def terminal_table(measures: Iterable[Measure]) -> str:
    """The numbers as plain lines, aligned, no wider than the terminal (80 where unknown)."""
    rows = [
        (
            m.name,
            shown(m, m.value),
            f"reference {shown(m, m.reference)}" if m.reference is not None else "",
            BETTER[m.better] if m.better in ("lower", "higher") else "",
        )
        for m in measures
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    columns = shutil.get_terminal_size().columns
    lines = []
    for name, value, reference, better in rows:
        line = f"{name:<{widths[0]}}  {value:>{widths[1]}}  {reference:<{widths[2]}}"
        whole = f"{line}  {better}".rstrip()
        lines.append(whole if len(whole) <= columns else line.rstrip())
    return "\n".join(lines)
