"""`fastmrigan run`: several jobs, one after another."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastmrigan.cli import bulk
from fastmrigan.cli.plan import show_plan

if TYPE_CHECKING:
    from fastmrigan.jobs.ready import Looked, Ready
    from fastmrigan.jobs.spec import JobSpec


@dataclass
class Entry:
    """A job of the file, and what has come of it so far."""

    number: int
    spec: JobSpec
    looked: Looked | None = None  # once it is looked at
    ready: Ready | None = None  # once its inputs are there
    how: str = "not begun"
    code: int = 0
    error: Exception | None = None  # why it made nothing, or not all

    @property
    def name(self) -> str:
        return f"job {self.number} ({self.spec.output.out})"


def run(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="JOBS.toml",
            help="What all jobs share, then a [[job]] for each, with model, out and either count "
            "or inputs. The keys are the options of `synth` and `translate`; paths are relative to "
            "the file.",
        ),
    ],
    dry_run: bulk.DryRun = False,
    budget_check: bulk.BudgetCheck = True,
) -> None:
    """Run the jobs of a file one after another; the same command goes on where it stopped.

    All are checked before the first begins. One that fails for reasons of its own does not stop
    the others; a full disk and Ctrl-C do.
    """
    from fastmrigan.errors import FastMriganError
    from fastmrigan.jobs.file import read_jobs

    entries = [Entry(number, spec) for number, spec in enumerate(read_jobs(file), start=1)]
    look_at(file, entries)
    with contextlib.ExitStack() as scratch:
        try:
            make_ready(entries, scratch if dry_run else None)
            if dry_run:
                show_plans(entries)
            if budget_check:
                check_budget(entries)
            if not dry_run:
                begin(entries)
        except BaseException:  # what stops all
            if any(entry.how != "not begun" for entry in entries):
                tell(entries)
            raise
    tell(entries)
    first = next((entry for entry in entries if entry.code), None)
    if first is None:
        return
    if first.error is not None and not isinstance(first.error, FastMriganError):
        raise first.error  # with where to report it
    raise typer.Exit(first.code)


def going(entries: Sequence[Entry]) -> list[Entry]:
    """The jobs that have not failed."""
    return [entry for entry in entries if entry.error is None]


@contextlib.contextmanager
def by_itself(entry: Entry) -> Iterator[None]:
    """Keeps to the job what went wrong with it; a full disk and Ctrl-C are everybody's."""
    from fastmrigan.errors import EXIT_BUG, DiskFull, FastMriganError, Interrupted
    from fastmrigan.files import is_full

    try:
        yield
    except (DiskFull, Interrupted) as error:
        entry.how = f"stopped: {error}"
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_full(error):
            raise
        entry.error, entry.how = error, f"failed: {error}"
        entry.code = error.exit_code if isinstance(error, FastMriganError) else EXIT_BUG
        print(f"{entry.name}: {entry.how}", file=sys.stderr)


def look_at(file: Path, entries: Sequence[Entry]) -> None:
    """Reads every model and looks at every input. Raises UsageError, before anything begins, where
    a job cannot be meant as it stands; a refused model or input is the job's own affair."""
    from fastmrigan.errors import UsageError
    from fastmrigan.jobs.ready import looked_at

    for entry in entries:
        with by_itself(entry):
            entry.looked = looked_at(entry.spec)
    wrong = [entry for entry in entries if isinstance(entry.error, UsageError)]
    if wrong:
        more = f" (and {len(wrong) - 1} more, named above)" if wrong[1:] else ""
        raise UsageError(f"{file}: job {wrong[0].number}: {wrong[0].error}{more}")


def make_ready(entries: Sequence[Entry], scratch: contextlib.ExitStack | None) -> None:
    """Prepares the inputs of all jobs, so that it is known what they need."""
    for entry in going(entries):
        with by_itself(entry):
            entry.ready = bulk.made_ready(entry.looked, scratch)


def check_budget(entries: Sequence[Entry]) -> None:
    from fastmrigan.jobs import budget

    budget.check([(entry.spec.output.out, entry.ready.need) for entry in going(entries)])


def show_plans(entries: Sequence[Entry]) -> None:
    """The plan of each job, and when all would have ended."""
    from fastmrigan.jobs.budget import Need, amount
    from fastmrigan.progress import duration

    after, need = 0.0, Need()
    for entry in going(entries):
        with by_itself(entry):
            after += show_plan(entry.ready, after)
            need += entry.ready.need
            entry.code, entry.how = bulk.rejects_code(entry.ready), "can begin"
    print(f"all: {amount(need.disk)}, after {duration(after)}")


def begin(entries: Sequence[Entry]) -> None:
    for entry in going(entries):
        print(f"{entry.name}:", flush=True)
        with by_itself(entry):
            if entry.ready.todo:
                entry.code, entry.how = bulk.start(entry.ready), "done"
            else:
                entry.code, entry.how = bulk.tell_rejects(entry.ready), "done before"


def tell(entries: Sequence[Entry]) -> None:
    """How each job ended."""
    for entry in entries:
        rejects = "; some inputs were rejected" if entry.code and entry.error is None else ""
        print(f"{entry.name}: {entry.how}{rejects}")
