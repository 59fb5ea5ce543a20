"""fastmrigan bench: cold start, latency and throughput of a model file on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmrigan.progress import counted


def bench(
    model: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Model file (.onnx) or engine (.engine).")
    ] = None,
    batch: Annotated[str, typer.Option(help="Slices a call, comma-separated.")] = "1,8,64",
    backend: Annotated[
        str, typer.Option(help="Backend names, comma-separated, or all that run here.")
    ] = "all",
    seconds: Annotated[
        float, typer.Option(help="Seconds of timed calls for each row of the tables.")
    ] = 5.0,
    threads: Annotated[
        str | None,
        typer.Option(help="Engine threads, comma-separated [default: all usable cores]."),
    ] = None,
    scope: Annotated[
        str,
        typer.Option(help="engine (its own call), end-to-end (pixels in, pixels out), or both."),
    ] = "engine,end-to-end",
    rate: Annotated[
        str | None,
        typer.Option(
            help="Also calls that arrive at these rates a second, comma-separated; their latency "
            "counts from when each should have begun."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    mode: Annotated[
        str,
        typer.Option(
            help="latency (one call at a time on all threads), throughput (several at once), or "
            "both, comma-separated."
        ),
    ] = "latency",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for bench.json and bench.png [default: NAME-bench]."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="The JSON goes here instead of bench.json.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw bench.png.")] = True,
    budget_ms: Annotated[
        float | None,
        typer.Option(help="Exit with 6 where a call's p99 of any measurement is above this."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Measure nothing; compare two earlier runs."),
    ] = None,
) -> None:
    """Measure cold start, latency and throughput of a model file on this machine.

    Backends take turns within one run. Calls are timed one after another (in --mode throughput
    several at once) and, with --rate, as they arrive; at the engine (latents or slices in, slices
    out) and end to end; the cold start in fresh processes.
    """
    import json
    from importlib.util import find_spec

    from fastmrigan.cli.own_json import check_own_json
    from fastmrigan.errors import CheckFailed, UsageError
    from fastmrigan.files import write_whole

    if compare is not None:
        if model is not None or budget_ms is not None:
            raise UsageError(
                "bench: --compare takes two files and measures nothing; leave the rest"
            )
        from fastmrigan.cli.bench_compare import compared, read_bench

        print("\n".join(compared(*map(read_bench, compare))))
        return
    if model is None:
        raise UsageError("bench: name a model file, or two runs with --compare A.json B.json")
    if budget_ms is not None and not budget_ms > 0:
        raise UsageError(f"bench: --budget-ms {budget_ms:g}: expected milliseconds above 0")
    if plot and find_spec("matplotlib") is None:
        raise UsageError(
            "bench: the plot needs matplotlib, which is not installed: pip install matplotlib, "
            "or add --no-plot"
        )
    from fastmrigan.runtime import latency
    from fastmrigan.runtime.engine_file import read_model

    names = () if backend == "all" else tuple(n.strip() for n in backend.split(","))
    options = latency.BenchOptions(
        backends=names,
        batches=numbers("--batch", batch),
        seconds=seconds,
        threads=numbers("--threads", threads) if threads else (None,),
        scopes=tuple(dict.fromkeys(part.strip() for part in scope.split(","))),
        rates=rates(rate) if rate else (),
        precision=precision,
        modes=tuple(dict.fromkeys(part.strip() for part in mode.split(","))),
    )
    latency.check(options)
    read_model(model)  # refused here, before a folder is made for it
    folder = out or Path(f"{model.stem}-bench")
    json_path, plot_path = json_file or folder / "bench.json", folder / "bench.png"
    check_own_json(json_path, latency.KIND, "--json" if json_file else "--out")
    needed = {json_path.parent, plot_path.parent} if plot else {json_path.parent}
    for parent in needed:
        parent.mkdir(parents=True, exist_ok=True)

    from fastmrigan.cli.bench_table import table

    document = latency.bench(model, options)
    print("\n".join(table(document)))
    write_whole(json_path, (json.dumps(document, indent=1) + "\n").encode())
    if plot:
        from fastmrigan.cli.bench_plot import draw

        write_whole(plot_path, draw(document))
    print(f"wrote {json_path}" + (f" and {plot_path}" if plot else ""))
    if budget_ms is not None:
        past = latency.past_budget(document, budget_ms)
        if past:
            of = counted(len(document["measurements"]), "measurement")
            raise CheckFailed(
                f"{model}: past the budget of {budget_ms:g} ms a call in {len(past)} of {of}: "
                f"{'; '.join(past)}"
            )


def numbers(option: str, text: str) -> tuple[int, ...]:
    """ "1,8,64" to (1, 8, 64), each once, in order."""
    from fastmrigan.errors import UsageError

    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: expected whole numbers, e.g. 1,8,64") from error


def rates(text: str) -> tuple[float, ...]:
    """ "5,20.5" to (5.0, 20.5), each once, in order."""
    from fastmrigan.errors import UsageError

    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise UsageError(f"--rate {text!r}: expected calls a second, e.g. 5,20") from error
