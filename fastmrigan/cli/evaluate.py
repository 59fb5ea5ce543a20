"""`fastmrigan evaluate`: real and synthetic slices to one report, or many reports to one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastmrigan.cli.freed_memory import KeepFreedMemory

if TYPE_CHECKING:
    from fastmrigan.metrics.evaluation_inputs import Asked


def evaluate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The page to write; its numbers go into .json beside.")],
    real: Annotated[
        Path | None,
        typer.Option(help="Prepared dataset, or a folder as `fastmrigan synth` writes it."),
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="The --out of `fastmrigan synth` or `fastmrigan translate`.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder, for its discriminator, curves and untrained generator."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="The model file that made the slices, for what it says of them."),
    ] = None,
    classifier_data: Annotated[
        Path | None,
        typer.Option(help="Prepared dataset labelled tumour and normal, to train classifiers on."),
    ] = None,
    inception_weights: Annotated[
        Path | None,
        typer.Option(
            help="pt_inception-2015-12-05-6726825d.pth, for FID and KID; "
            "default: FASTMRIGAN_INCEPTION.",
        ),
    ] = None,
    inception_precision: Annotated[
        str, typer.Option(help="fp32, or bf16: faster, its drift is printed.")
    ] = "fp32",
    features: Annotated[
        Path | None, typer.Option(help="A feature network of yours (.onnx), for distances on it.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Compare with real slices of this label; default: the run's, else all."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=2, help="Read at most so many synthetic slices, the first ones.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of halves, pairs and chosen slices.")] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these measures, parted by commas: pairs, sources, frechet, kid, radiomics, "
            "manifold, diversity, copies, two-sample, classifier, utility, discriminator."
        ),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(help="All but these measures, parted by commas.")
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Also what takes minutes: two-sample, utility.")
    ] = False,
    runs: Annotated[
        Path | None,
        typer.Option(help="Instead: a table of the runs and reports in this folder and below."),
    ] = None,
    keep_freed_memory: KeepFreedMemory = True,
) -> None:
    """Measure synthetic slices against real ones; write one HTML page and a JSON file."""
    from importlib.util import find_spec

    from fastmrigan.errors import MissingDependency, UsageError

    for package in ("torch", "tensorboard"):
        if find_spec(package) is None:
            raise MissingDependency(package, "train", "fastmrigan evaluate")

    from fastmrigan.metrics.report import check_writable

    if runs is not None:
        beside = given(context) - {"--out", "--runs"}
        if beside:
            raise UsageError(
                "--runs makes a table of what is there and takes --out alone; leave "
                f"{', '.join(sorted(beside))} out"
            )
        check_writable(out)
        write_runs(runs, out)
        return
    if real is None or synthetic is None:
        raise UsageError("give --real and --synthetic, or --runs for a table of many reports")

    from fastmrigan.metrics.choice import choose
    from fastmrigan.metrics.evaluation_inputs import Asked, check_asked
    from fastmrigan.ops import memory

    memory.keep_freed_memory(keep_freed_memory)
    asked = Asked(
        real=real,
        synthetic=synthetic,
        label=label,
        run=run,
        model=model,
        classifier_data=classifier_data,
        inception_weights=inception_weights,
        inception_precision=inception_precision,
        features=features,
        limit=limit,
        seed=seed,
        only=tuple(only or ()),
        skip=tuple(skip or ()),
        thorough=thorough,
    )
    choose(asked.only, asked.skip, thorough=thorough)  # before anything is read
    check_asked(asked)
    check_writable(out)
    write_evaluation(asked, out)


def given(context: typer.Context) -> set[str]:
    """The options that the command line names."""
    return {
        option.opts[0]
        for option in context.command.params
        if option.name is not None
        and getattr(context.get_parameter_source(option.name), "name", "") == "COMMANDLINE"
    }


def write_evaluation(asked: Asked, out: Path) -> None:
    from fastmrigan.cli.own_json import check_own_json
    from fastmrigan.metrics.evaluation import KIND, evaluate
    from fastmrigan.metrics.report import terminal_table, write_report

    check_own_json(out.with_suffix(".json"), KIND, "--out")
    result = evaluate(asked)
    numbers = write_report(result, out)
    print(terminal_table(result.measures))
    for warning in result.warnings:
        print(warning)
    for name, reason in result.left_out.items():
        print(f"not measured: {name}: {reason}")
    print(f"{out}: the report; {numbers}: its numbers")


def write_runs(folder: Path, out: Path) -> None:
    from fastmrigan.cli.own_json import check_own_json
    from fastmrigan.metrics.report import write_both
    from fastmrigan.metrics.runs_table import RUNS_KIND, read_runs, runs_lines, runs_page

    check_own_json(out.with_suffix(".json"), RUNS_KIND, "--out")
    table = read_runs(folder)
    numbers = write_both(out, runs_page(table), table.document())
    print(runs_lines(table))
    print(f"{out}: the table; {numbers}: its numbers")
