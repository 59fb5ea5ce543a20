"""`fastmrigan evaluate`: real and synthetic slices to one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmrigan.cli.freed_memory import KeepFreedMemory


def evaluate(
    real: Annotated[
        Path, typer.Option(help="Prepared dataset, or a folder as `fastmrigan synth` writes it.")
    ],
    synthetic: Annotated[
        Path, typer.Option(help="The --out of `fastmrigan synth` or `fastmrigan translate`.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write; its numbers go into .json beside.")],
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder, for its discriminator, curves and untrained generator."),
    ] = None,
    classifier_data: Annotated[
        Path | None,
        typer.Option(help="Prepared dataset labelled tumour and normal, to train a classifier on."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Compare with real slices of this label; default: the run's, else all."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=2, help="Read at most so many synthetic slices, the first ones.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of halves, pairs and chosen slices.")] = 0,
    keep_freed_memory: KeepFreedMemory = True,
) -> None:
    """Measure synthetic slices against real ones; write one HTML page and a JSON file."""
    from importlib.util import find_spec

    from fastmrigan.errors import MissingDependency

    for package in ("torch", "tensorboard"):
        if find_spec(package) is None:
            raise MissingDependency(package, "train", "fastmrigan evaluate")

    from fastmrigan.cli.own_json import check_own_json
    from fastmrigan.metrics.evaluation import KIND
    from fastmrigan.metrics.evaluation import evaluate as measure
    from fastmrigan.metrics.report import check_writable, terminal_table, write_report
    from fastmrigan.ops import memory

    memory.keep_freed_memory(keep_freed_memory)
    check_writable(out)
    check_own_json(out.with_suffix(".json"), KIND, "--out")
    result = measure(
        real,
        synthetic,
        label=label,
        run=run,
        classifier_data=classifier_data,
        limit=limit,
        seed=seed,
    )
    numbers = write_report(result, out)
    print(terminal_table(result.measures))
    for warning in result.warnings:
        print(warning)
    print(f"{out}: the report; {numbers}: its numbers")
