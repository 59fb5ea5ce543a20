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
from fastmrigan.progress import counted

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
            "or inputs. The keys are the options of `synth` and `translate`, but for those of "
            "several processes and machines; paths are relative to the file.",
        ),
    ],
    dry_run: bulk.DryRun = False,
    budget_check: bulk.BudgetCheck = True,
    workers: bulk.Workers = None,
) -> None:
    """Run the jobs of a file one after another; the same command goes on where it stopped.

    All are checked before the first begins. One that fails for reasons of its own does not stop
    the others; a full disk and Ctrl-C do.
    """
    from fastmrigan.errors import FastMriganError
    from fastmrigan.jobs.file import read_jobs
    from fastmrigan.jobs.supervisor import of_each

    specs = read_jobs(file)
    if workers is not None:
        specs = [of_each(spec, workers) for spec in specs]  # also for a dry run
    entries = [Entry(number, spec) for number, spec in enumerate(specs, start=1)]
    look_at(file, entries)
    with contextlib.ExitStack() as scratch:
        try:
            make_ready(entries, scratch if dry_run else None)
            if dry_run:
                show_plans(entries, workers)
            if budget_check:
                check_budget(entries)
            if not dry_run:
                begin(entries, workers)
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
    from fastmrigan.cli import one_line, said_by
    from fastmrigan.errors import EXIT_BUG, DiskFull, FastMriganError, Interrupted
    from fastmrigan.files import is_full
    from fastmrigan.imaging.walker import printable

    try:
        yield
    except BaseException as error:
        own = isinstance(error, FastMriganError)
        text = said_by(error) if own else one_line(f"{type(error).__name__} {error}")
        full = isinstance(error, DiskFull) or (isinstance(error, OSError) and is_full(error))
        if full or isinstance(error, Interrupted) or not isinstance(error, Exception):
            entry.how = f"stopped: {printable(text)}"
            raise
        entry.error, entry.how = error, f"failed: {printable(text)}"
        entry.code = error.exit_code if own else EXIT_BUG
        print(f"{entry.name}: {entry.how}", file=sys.stderr)


def look_at(file: Path, entries: Sequence[Entry]) -> None:
    """Reads every model and looks at every input. Raises UsageError, before anything begins, where
    a job cannot be meant as it stands; a refused model or input is the job's own affair."""
    from fastmrigan.errors import UsageError
    from fastmrigan.jobs.ready import looked_at

    wrong = []
    for entry in entries:
        with by_itself(entry):
            try:
                entry.looked = looked_at(entry.spec)
            except UsageError as error:
                wrong.append((entry, error))
    if wrong:
        (first, fact), *others = wrong
        for entry, error in others:
            print(f"{entry.name}: {error}", file=sys.stderr)
        more = f" (and {len(others)} more, named above)" if others else ""
        raise UsageError(f"{file}: job {first.number}: {fact}{more}")


def make_ready(entries: Sequence[Entry], scratch: contextlib.ExitStack | None) -> None:
    """Prepares the inputs of all jobs, so that it is known what they need."""
    for entry in going(entries):
        with by_itself(entry):
            entry.ready = bulk.made_ready(entry.looked, scratch)


def check_budget(entries: Sequence[Entry]) -> None:
    from fastmrigan.jobs import budget

    budget.check([(entry.spec.output.out, entry.ready.need) for entry in going(entries)])


def show_plans(entries: Sequence[Entry], workers: int | None) -> None:
    """The plan of each job, and when all would have ended."""
    from fastmrigan.jobs.budget import Need, amount
    from fastmrigan.progress import duration

    after, need = 0.0, Need()
    for entry in going(entries):
        with by_itself(entry):
            after += show_plan(entry.ready, after, workers=workers)
            need += entry.ready.need
            entry.code, entry.how = bulk.rejects_code(entry.ready), "can begin"
    print(f"all: {amount(need.disk)}, after {duration(after)}")


def begin(entries: Sequence[Entry], workers: int | None) -> None:
    for entry in going(entries):
        with by_itself(entry):
            if entry.ready.todo:
                print(f"{entry.name}:", flush=True)
                entry.code, entry.how = bulk.start(entry.ready, workers), "done"
            else:
                shards = counted(len(entry.ready.plan), "shard is", "shards are")
                print(f"{entry.name}: nothing to make, its {shards} there", flush=True)
                entry.code, entry.how = bulk.tell_rejects(entry.ready), "done before"


def tell(entries: Sequence[Entry]) -> None:
    """How each job ended."""
    for entry in entries:
        rejects = "; some inputs were rejected" if entry.code and entry.error is None else ""
        print(f"{entry.name}: {entry.how}{rejects}")
