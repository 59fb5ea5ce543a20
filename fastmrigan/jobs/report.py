"""job.html: what a job made, how fast, what limited it and what it left out, on one page.

Made of the files of the job's folder alone (run.json, logs, receipts, contact_sheet.png), so that
it covers all runs of a job, however they ended, and can be written at any time; what is missing or
unreadable is named on the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fastmrigan
from fastmrigan.files import write_whole
from fastmrigan.jobs import contact, history
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.history import UNKNOWN, History, Rejects, Run
from fastmrigan.jobs.locks import TOLD, in_turn
from fastmrigan.jobs.report_figures import (
    busy_of,
    duration_told,
    rate_told,
    throughput,
    times_table,
)
from fastmrigan.jobs.stages import limiting, shares
from fastmrigan.pages.page import figure, picture, settings_table, soft, table, tiles, whole_page
from fastmrigan.progress import counted

NAME = "job.html"
WHY_ENDED = ("error", "stopped")  # events that say it
STAGES = {
    "read": "inputs of a translation, read and made ready",
    "engine": "waiting for it, with the drawing of latents",
    "quantise": "slices rounded to integers",
    "write": "packed, written and on the disk",
    "gate": "the tests of --gate",
}
SHOWN = 40  # rows of a table
TURN_SECONDS = 10.0  # for another part of the job to write its page
INDICES = 8  # slices named for a reason
ENDS = {
    "stopped": "The last run{of} was stopped",
    "failed": "The last run{of} failed",
    UNKNOWN: "The last run{of} was killed, or is still running",
}
TASKS = {
    "sample": (
        "sampled",
        "The slices are synthetic. They show no patient, unless the model copies those it was "
        "trained with.",
    ),
    "translate": (
        "translated",
        "The slices are synthetic: translations of real ones. They keep the anatomy of the people "
        "in those, and are to be protected as those are.",
    ),
}


def write(out: Path) -> None:
    """Writes job.html, whole or not at all. Raises OSError or DiskFull where it cannot be."""
    with in_turn(out, TOLD, TURN_SECONDS):  # of two that end together, the later one knows of both
        write_whole(out / NAME, page(out).encode(), sync=False)  # it can be made again


def page(out: Path) -> str:
    """The whole page of a job's folder."""
    found = history.read(out)
    rejects = history.rejects(out, found)
    pinned = settings(out, found.missing)
    count = pinned.get("count")
    there = slices_there(out, pinned, found, rejects)
    start = found.runs[-1].start if found.runs else {}
    task, whose = TASKS[pinned.get("task", "sample")]
    if found.unreadable:
        found.missing.append(
            f"Lines of the log that a kill or a full disk left torn: {found.unreadable:,}."
        )
    if rejects.unlogged:
        lacking = counted(rejects.unlogged, "slice is", "slices are")
        found.missing.append(
            f"Missing in times and throughput: {lacking} there and not in the log, since a run was "
            "killed."
        )
    title = f"{start.get('recipe', 'A job')}: {counted(there, 'slice')} {task}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        soft(f"fastmrigan {start.get('command', '')}, {when(found.runs)}."),
        f'<p class="notice">{fastmrigan.NOTICE.capitalize()}. {whose}</p>',
        tiles(boxes(found, rejects, there, count)),
        *(
            f'<p class="warning">{escape(text)}</p>'
            for text in problems(found, whole=there + len(rejects.left_out) == count)
        ),
        "<h2>Throughput</h2>",
        throughput(found.runs),
        times_table(found.shards),
        "<h2>What limits</h2>",
        stages_table(found.runs),
        "<h2>Slices</h2>",
        sheet(out, found.missing),
        "<h2>Left out and flagged</h2>",
        rejects_table(rejects),
        "<h2>Runs</h2>",
        runs_table(found.runs),
        *events(found.runs),
        "<h2>Settings</h2>",
        settings_table(
            {
                "model": start.get("recipe", "unknown"),
                "contrast": start.get("contrast", "unknown"),
                "fastmrigan": start.get("version", "unknown"),
            }
            | {key: plain(value) for key, value in pinned.items()}
        ),
    ]
    sections += [soft(text) for text in found.missing]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections.append(soft(f"Written {now} by FastMRIGAN {fastmrigan.__version__}."))
    return whole_page(escape(title), sections)


def settings(out: Path, missing: list[str]) -> dict[str, Any]:
    """run.json; empty where it cannot be read."""
    try:
        document = json.loads((out / "run.json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        missing.append(f"run.json cannot be read ({type(error).__name__}).")
        return {}
    return document if isinstance(document, dict) else {}


def plain(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def slices_there(out: Path, pinned: Mapping[str, Any], found: History, rejects: Rejects) -> int:
    """Slices in the folder: those of shards that are there, less those left out."""
    fmt = FORMATS[pinned.get("format", "shard")]
    names = {path.name for path in out.glob(f"{fmt.stem}-*{fmt.suffix}")}
    logged: int = sum(
        line["count"]
        for line in found.shards
        if f"{fmt.stem}-{line['number']:06}{fmt.suffix}" in names
        or line["number"] in rejects.without_files
    )
    return logged + rejects.unlogged - len(rejects.left_out)


def when(runs: list[Run]) -> str:
    if not runs:
        return "at a time that no log tells"
    first, last = (str(runs[at].start["at"])[:16].replace("T", " ") for at in (0, -1))
    begun = f"begun {first} UTC"
    return begun if len(runs) == 1 else f"{begun}, run {len(runs)} begun {last} UTC"


def boxes(found: History, rejects: Rejects, there: int, count: int | None) -> list[tuple[str, str]]:
    seconds = history.timeline(found.runs)[1]
    side_by_side = seconds < 0.999 * sum(run.elapsed for run in found.runs)
    made = sum(run.made for run in found.runs)
    of = "slices" if count is None else f"slices there, of {count:,} planned"
    values = [(f"{there:,}", of)]
    if made:
        values.append((rate_told(made / max(seconds, 1e-9)), "slices/s, over all runs"))
    once = "; time that runs share counts once" if side_by_side else ""
    values.append((duration_told(seconds), f"of work, engine start left out{once}"))
    values.append((f"{len(found.runs):,}", "run" if len(found.runs) == 1 else "runs"))
    for kind, why in (("left out", rejects.left_out), ("flagged", rejects.flagged)):
        values.append((f"{len(why):,}", f"{'slice' if len(why) == 1 else 'slices'} {kind}"))
    return values


def problems(found: History, *, whole: bool) -> Iterable[str]:
    """What whoever opens the page must not overlook. whole: every slice of the plan is there, or
    left out, so that other runs have made up for those that did not finish."""
    if not found.runs:
        return
    silent = []
    for run in history.unfinished(found.runs):
        if whole and run is not found.runs[-1]:
            continue
        why = "".join(f": {e.get('message')}" for e in run.others if e["event"] in WHY_ENDED)
        if run.part is not None and run.state == UNKNOWN:
            silent.append(shards_told(run))
        else:
            of = "" if run.part is None else f" of shards {shards_told(run)}"
            yield f"{ENDS[run.state].format(of=of)}{why}."
    if silent:
        yield f"Runs that were killed, or are still running: of shards {', '.join(silent)}."
    quarantined = [e for run in found.runs for e in run.others if e["event"] == "quarantine"]
    if quarantined:
        yield f"Inputs that the job gave up: {len(quarantined):,}; quarantine.jsonl names them."


def stages_table(runs: list[Run]) -> str:
    """Each stage's share of the time, with a bar."""
    seconds = busy_of(runs)
    found = shares(seconds, sum(run.elapsed * run.workers for run in runs), 1)
    made = sum(run.made for run in runs)
    if not found or not made:
        return soft("No stage has been timed yet.")
    body = "".join(
        f'<tr><td class="name">{escape(stage)}</td><td class="number">{100 * share:.1f} %</td>'
        f'<td class="share"><i style="width:{100 * share:.1f}%"></i></td>'
        f'<td class="number">&nbsp; {1000 * seconds[stage] / made:.3g}</td></tr>\n'
        for stage, share in found.items()
    )
    return (
        f'<table><thead><tr><th>stage</th><th>share</th><th class="share"></th>'
        f"<th>ms a slice</th></tr></thead><tbody>\n{body}</tbody></table>"
        + soft(
            f"The stage that took most of the time, and so limits the job, is {limiting(found)}. "
            "Stages overlap, so that their shares may add up to more than 100 %. "
            + "; ".join(f"{stage}: {STAGES[stage]}" for stage in found if stage in STAGES)
            + ". Shares are means over the workers."
        )
    )


def sheet(out: Path, missing: list[str]) -> str:
    try:
        with Image.open(out / contact.NAME, formats=["PNG"]) as opened:
            pixels = np.asarray(opened.convert("L"))
    except FileNotFoundError:
        return soft("There is a contact sheet once a run has finished.")
    except (OSError, ValueError, SyntaxError) as error:
        missing.append(f"{contact.NAME} cannot be read ({type(error).__name__}).")
        return ""
    shown = picture(pixels, "slices of the job")
    return figure(shown, "Slices spread evenly over the job, in their order; none picked by hand.")


def rejects_table(rejects: Rejects) -> str:
    rows = [
        (fate, reason, indices)
        for fate, why in (("left out", rejects.left_out), ("flagged", rejects.flagged))
        for reason, indices in history.by_reason(why)
    ]
    if not rows:
        return soft("No slice was left out or flagged.")
    return (
        table(
            ("slices", "how many", "why", "index"),
            [(fate, f"{len(of):,}", why, some(of)) for fate, why, of in rows[:SHOWN]],
        )
        + soft("Slices that are left out keep their index; the others keep theirs.")
        + soft(f"{more(rows, 'more reason')} in receipts/." if rows[SHOWN:] else "")
    )


def some(indices: list[int]) -> str:
    more = f" and {len(indices) - INDICES:,} more" if indices[INDICES:] else ""
    return ", ".join(f"{index:,}" for index in indices[:INDICES]) + more


def shards_told(run: Run) -> str:
    """A:B, as --shard-range has it."""
    return "all" if run.part is None else f"{run.part.start}:{run.part.stop}"


def runs_table(runs: list[Run]) -> str:
    if not runs:
        return soft("No log tells of a run.")
    parts = any(run.part is not None for run in runs)
    return (
        table(
            (
                *("run", "begun (UTC)", "end", "slices", "time", "slices/s", "workers"),
                *(["shards"] if parts else []),
            ),
            [
                (
                    str(number),
                    str(run.start["at"])[:19].replace("T", " "),
                    run.state,
                    f"{run.made:,}",
                    duration_told(run.elapsed),
                    rate_told(run.made / max(run.elapsed, 1e-9)),
                    str(run.workers),
                    *([shards_told(run)] if parts else []),
                )
                for number, run in list(enumerate(runs, 1))[-SHOWN:]
            ],
        )
        + soft(
            f"Slices: made or left out by the run. {UNKNOWN.capitalize()}: it has not said that "
            "it ended; its time is that of its last line in the log."
        )
        + earlier(runs)
    )


def earlier(rows: Sequence[object]) -> str:
    """How many rows are not shown."""
    return soft(f"{more(rows, 'earlier one')} in the logs.") if rows[SHOWN:] else ""


def more(rows: Sequence[object], one: str) -> str:
    """E.g. "2 earlier ones are": what is not shown."""
    return counted(len(rows) - SHOWN, f"{one} is", f"{one}s are")


def events(runs: list[Run]) -> list[str]:
    """What happened beside shards: errors and stops, inputs given up, workers that died."""
    rows = [(number, event) for number, run in enumerate(runs, 1) for event in run.others]
    if not rows:
        return []
    items = "".join(
        f"<li>run {number}, after {duration_told(event.get('elapsed', 0.0))}: "
        f"{escape(event['event'])}{escape(facts(event))}</li>"
        for number, event in rows[-SHOWN:]
    )
    return ["<h2>Events</h2>", f"<ul>{items}</ul>", earlier(rows)]


def facts(event: Mapping[str, Any]) -> str:
    """What an event says beside its kind and time."""
    told = {k: v for k, v in event.items() if k not in ("event", "at", "elapsed")}
    if set(told) == {"message"}:
        return f": {told['message']}"
    return "".join(f", {key} {plain(value)}" for key, value in told.items())
