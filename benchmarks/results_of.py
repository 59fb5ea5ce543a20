"""A recipe trained on real slices and measured: every command of it, then its figures as a table.

    python benchmarks/results_of.py RECIPE [--only EXPERIMENT] [--data ../shared/data]
                                    [--work build/results] [--json FILE] [--list]

The experiments of a recipe are in results_plans.py: commands of fastmrigan, and which figures of
their reports count against which bar. Floors (the intensity table, the plain copy, a split half of
the real slices) come from the same reports, over the same slices. A command that is done is not run
again; one that was interrupted goes on, and the seconds of all its runs are added up. --list prints
the commands. Exits 6 where a figure misses its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results_plans import PLANS, Experiment, Figure
from timing import write_json

import fastmrigan
from fastmrigan.runtime.machine import machine

ROOT = Path(__file__).parents[1]
LEDGER = "steps.jsonl"  # of an experiment's folder: what was run, a line a run


def run_steps(experiment: Experiment, data: Path, folder: Path) -> list[dict[str, Any]]:
    """Runs what is not done yet; of each command what it took, over all its runs."""
    folder.mkdir(parents=True, exist_ok=True)
    experiment.lay_out(data, folder)
    steps = []
    for words in experiment.commands(data, folder):
        runs = [run for run in ledger(folder) if run["command"] == words]
        if not any(run["status"] == 0 for run in runs):
            print(f"$ {shlex.join(['fastmrigan', *words])}", flush=True)
            runs.append(run_once(words, folder))
        steps.append(
            {
                "command": shlex.join(["fastmrigan", *words]),
                "seconds": round(sum(run["seconds"] for run in runs), 1),
                "peak_mb": max(run["peak_mb"] for run in runs),
                "commit": runs[-1]["commit"],
                "ended": runs[-1]["ended"],
                "threads": runs[-1]["threads"],
            }
        )
    return steps


def run_once(words: list[str], folder: Path) -> dict[str, Any]:
    """Runs a command, and notes that it did; ends this process with its status where it fails."""
    began = time.monotonic()
    child = started(words)
    try:
        _, status, used = os.wait4(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
    except KeyboardInterrupt:  # the command had it too, and saves what it has
        _, status, used = os.wait4(child.pid, 0)
        code = 130
    child.returncode = code  # it has been waited for
    run = {
        "command": words,
        "status": code,
        "seconds": round(time.monotonic() - began, 1),
        "peak_mb": used.ru_maxrss // 1024,
        "commit": commit(),
        "ended": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }
    with (folder / LEDGER).open("a") as file:
        file.write(json.dumps(run) + "\n")
    if code != 0:
        sys.exit(code)
    return run


def started(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-P", "-m", "fastmrigan", *words])


def ledger(folder: Path) -> list[dict[str, Any]]:
    path = folder / LEDGER
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def commit() -> str:
    """Of this source; with a + where it was changed since."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def table(experiment: Experiment, figures: list[Figure]) -> str:
    """The rows of RESULTS.md."""
    rows = [
        f"### {experiment.title}",
        "",
        "| measure | value | beside it | bar |",
        "|---|---|---|---|",
    ]
    for figure in figures:
        bar = "" if figure.met is None else f"{figure.bar}: {'met' if figure.met else 'MISSED'}"
        rows.append(f"| {figure.name} | {figure.text} | {figure.beside} | {bar} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=sorted(PLANS))
    parser.add_argument("--only", action="append", help="this experiment; may be repeated")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("FASTMRIGAN_REAL_DATA", ROOT.parent / "shared" / "data")),
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "results")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    options = parser.parse_args()
    known = {experiment.name: experiment for experiment in PLANS[options.recipe]}
    if unknown := set(options.only or ()) - set(known):
        parser.error(f"--only {unknown.pop()}: choose among {', '.join(known)}")
    document: dict[str, Any] = {
        "benchmark": "results",
        "recipe": options.recipe,
        "machine": machine(),
        "fastmrigan": fastmrigan.__version__,
        "experiments": {},
    }
    tables, missed = [], False
    for name in options.only or known:
        experiment, folder = known[name], options.work.resolve() / options.recipe / name
        if options.list:
            for words in experiment.commands(options.data.resolve(), folder):
                print(shlex.join(["fastmrigan", *words]))
            continue
        steps = run_steps(experiment, options.data.resolve(), folder)
        figures = experiment.figures(folder)
        missed |= any(figure.met is False for figure in figures)
        tables.append(table(experiment, figures))
        document["experiments"][name] = {
            "steps": relative(steps, options.data, folder),
            "figures": [figure.document() for figure in figures],
        }
        write_json(options.json, document)
    print("\n\n".join(tables))
    return 6 if missed else 0


def relative(steps: list[dict[str, Any]], data: Path, folder: Path) -> list[dict[str, Any]]:
    """The commands as anybody would give them, without the folders of this machine."""

    def anywhere(command: str) -> str:
        return command.replace(str(folder), "WORK").replace(str(data.resolve()), "DATA")

    return [step | {"command": anywhere(step["command"])} for step in steps]


if __name__ == "__main__":
    sys.exit(main())
