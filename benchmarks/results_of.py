"""A recipe trained on real slices and measured: every command of it, then its figures as a table.

    python benchmarks/results_of.py RECIPE [--only EXPERIMENT] [--seed N] [--data ../shared/data]
                                    [--work build/results] [--json FILE] [--list]

The experiments of a recipe are in results_plans.py: commands of fastmrigan, and which figures of
their reports count against which bar. Floors (the intensity table, the plain copy, a split half of
the real slices) come from the same reports, over the same slices. A command that is done is not run
again, unless one before it was; one that was interrupted goes on, and the seconds of its runs are
added up. --seed trains with another seed than the recipe's, in a folder of its own: how much of a
figure is luck. --list prints the commands. Exits 6 where a figure misses its bar or was not
measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from json_file import add_json_option, write_json
from results_experiment import Experiment
from results_figures import Figure
from results_plans import PLANS

import fastmrigan
from fastmrigan.errors import EXIT_OK, EXIT_SOME_REJECTED
from fastmrigan.runtime.machine import machine

ROOT = Path(__file__).parents[1]
DONE = (EXIT_OK, EXIT_SOME_REJECTED)
LEDGER = "steps.jsonl"  # of an experiment's folder: what was run, a line a run


def run_steps(experiment: Experiment, data: Path, folder: Path) -> list[dict[str, Any]]:
    """Runs what is not done yet; of each command what it took, over all its runs."""
    steps: list[dict[str, Any]] = []
    if experiment.uses:
        steps += run_steps(used_by(experiment), data, folder.parents[1] / experiment.uses)
    since = max((step["ended"] for step in steps), default="")
    folder.mkdir(parents=True, exist_ok=True)
    experiment.lay_out(data, folder)
    at = -1  # the line of the ledger where the step before was done
    for words in experiment.commands(data, folder):
        lines = ledger(folder)
        done = [
            i for i, run in enumerate(lines) if run["command"] == words and run["status"] in DONE
        ]
        # Done with what is there now: after the step before, and after what it uses was made.
        if not done or done[-1] < at or lines[done[-1]]["ended"] < since:
            print(f"$ {shlex.join(['fastmrigan', *words])}", flush=True)
            lines.append(run_once(words, folder))
            done = [len(lines) - 1]
        at = done[-1]
        runs = [run for run in lines if run["command"] == words]
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


def used_by(experiment: Experiment) -> Experiment:
    """The experiment that it begins with."""
    recipe, _, name = experiment.uses.partition("/")
    return next(each for each in PLANS[recipe] if each.name == name)


def reseeded(experiment: Experiment, seed: int) -> Experiment:
    """The same, trained with that seed; what it uses keeps its own."""
    steps = [
        f"{step} --set seed={seed}" if step.startswith("train ") else step
        for step in experiment.steps
    ]
    return replace(
        experiment,
        name=f"{experiment.name}-seed-{seed}",
        title=f"{experiment.title}, seed {seed}",
        steps=tuple(steps),
    )


def run_once(words: list[str], folder: Path) -> dict[str, Any]:
    """Runs a command, and notes that it did; ends this process with its status where it fails."""
    source = commit()  # what is run; the tree may go on meanwhile
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
        "commit": source,
        "ended": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }
    with (folder / LEDGER).open("a") as file:
        file.write(json.dumps(run) + "\n")
    if code not in DONE:
        sys.exit(code)
    return run


def started(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-P", "-m", "fastmrigan", *words])


def ledger(folder: Path) -> list[dict[str, Any]]:
    path = folder / LEDGER
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]  # a kill may tear the last


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
    parser.add_argument("--seed", type=int, metavar="N", help="of training, in place of its own")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("FASTMRIGAN_REAL_DATA", ROOT.parent / "shared" / "data")),
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "results")
    add_json_option(parser)
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    options = parser.parse_args()
    if options.list:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` has seen enough
    if not options.data.is_dir():
        parser.error(f"--data {options.data}: no such folder; name the one with the real sets")
    known = {experiment.name: experiment for experiment in PLANS[options.recipe]}
    if unknown := set(options.only or ()) - set(known):
        parser.error(f"--only {unknown.pop()}: choose among {', '.join(known)}")
    chosen = [known[name] for name in options.only or known]
    if options.seed is not None:
        if options.seed < 0:
            parser.error(f"--seed {options.seed}: expected 0 or more")
        if not any(step.startswith("train ") for each in chosen for step in each.steps):
            parser.error(f"--seed {options.seed}: {options.recipe} trains nothing; leave it out")
        chosen = [reseeded(experiment, options.seed) for experiment in chosen]
    document: dict[str, Any] = {
        "benchmark": "results",
        "recipe": options.recipe,
        "machine": machine(),
        "fastmrigan": fastmrigan.__version__,
        "experiments": {},
    }
    tables, missed = [], False
    for experiment in chosen:
        folder = options.work.resolve() / options.recipe / experiment.name
        if options.list:
            data = options.data.resolve()
            if experiment.uses:
                used = options.work.resolve() / experiment.uses
                print_commands(used_by(experiment).commands(data, used))
            print_commands(experiment.commands(data, folder))
            continue
        steps = run_steps(experiment, options.data.resolve(), folder)
        figures = experiment.figures(folder)
        missed |= any(figure.met is False for figure in figures)
        tables.append(table(experiment, figures))
        document["experiments"][experiment.name] = {
            "steps": relative(steps, options.data, folder),
            "figures": [figure.document() for figure in figures],
        }
        write_json(options.json, document)
    print("\n\n".join(tables))
    return 6 if missed else 0


def print_commands(commands: list[list[str]]) -> None:
    for words in commands:
        print(shlex.join(["fastmrigan", *words]))


def relative(steps: list[dict[str, Any]], data: Path, folder: Path) -> list[dict[str, Any]]:
    """The commands as anybody would give them, without the folders of this machine."""

    def anywhere(command: str) -> str:
        own = command.replace(str(folder), "WORK").replace(str(data.resolve()), "DATA")
        return own.replace(str(folder.parents[1]), "RESULTS")

    return [step | {"command": anywhere(step["command"])} for step in steps]


if __name__ == "__main__":
    sys.exit(main())
