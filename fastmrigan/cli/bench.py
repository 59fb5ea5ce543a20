"""fastmrigan bench: cold start, latency and throughput of a model file on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bench(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="Model file (.onnx).")],
    batch: Annotated[str, typer.Option(help="Slices a call, comma-separated.")] = "1,8,64",
    backend: Annotated[
        str, typer.Option(help="Backend names, comma-separated, or all that run here.")
    ] = "all",
    seconds: Annotated[
        float, typer.Option(help="Seconds of timed calls for each backend and batch.")
    ] = 5.0,
    threads: Annotated[
        int | None, typer.Option(help="Engine threads [default: all usable cores].")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for bench.json and bench.png [default: NAME-bench]."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="The JSON goes here instead of bench.json.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw bench.png.")] = True,
) -> None:
    """Measure cold start, latency and throughput of a model file on this machine.

    Backends take turns within one run. A call is timed at the engine (latents or slices in, slices
    out), one after another; the cold start in fresh processes.
    """
    import json
    from importlib.util import find_spec

    from fastmrigan.cli.own_json import check_own_json
    from fastmrigan.errors import UsageError
    from fastmrigan.files import write_whole

    if plot and find_spec("matplotlib") is None:
        raise UsageError(
            "bench: the plot needs matplotlib, which is not installed: pip install matplotlib, "
            "or add --no-plot"
        )
    from fastmrigan.runtime import latency
    from fastmrigan.runtime.model_file import read_model_file

    names = () if backend == "all" else tuple(n.strip() for n in backend.split(","))
    options = latency.BenchOptions(
        backends=names,
        batches=numbers(batch),
        seconds=seconds,
        threads=threads,
        precision=precision,
    )
    latency.check(options)
    read_model_file(model)  # refused here, before a folder is made for it
    folder = out or Path(f"{model.stem}-bench")
    json_path, plot_path = json_file or folder / "bench.json", folder / "bench.png"
    check_own_json(json_path, latency.KIND, "--json" if json_file else "--out")
    needed = {json_path.parent, plot_path.parent} if plot else {json_path.parent}
    for parent in needed:
        parent.mkdir(parents=True, exist_ok=True)

    document = latency.bench(model, options)
    print("\n".join(table(document)))
    write_whole(json_path, (json.dumps(document, indent=1) + "\n").encode())
    if plot:
        write_whole(plot_path, draw(document))
    print(f"wrote {json_path}" + (f" and {plot_path}" if plot else ""))


def numbers(text: str) -> tuple[int, ...]:
    """ "1,8,64" to (1, 8, 64), each once, in order."""
    from fastmrigan.errors import UsageError

    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise UsageError(f"--batch {text!r}: expected whole numbers, e.g. 1,8,64") from error


def table(document: dict[str, Any]) -> list[str]:
    """The lines printed on the terminal."""
    machine, calls = document["machine"], document["measurements"]
    lines = [
        f"{document['model']['file']}: {document['model']['recipe']}, on {machine['cpu']}, "
        f"{machine['cores_usable']} of {machine['cores']} cores, "
        f"governor {machine['governor'] or 'not readable'}",
        *(f"left out: {name}: {why}" for name, why in document["left_out"].items()),
        "",
        f"cold start, ms: median of {document['cold_start'][0]['processes']} fresh processes each, "
        "files cached by the system",
        row("", "start", "import", "load", "compile", "first", "total"),
    ]
    for cold in document["cold_start"]:
        phases = ("start", "import", "load", "compile", "first", "total")
        lines.append(row(cold["backend"], *(f"{cold[f'{p}_ms']:.1f}" for p in phases)))
    percents = ("p50", "p90", "p99", "p99_9")
    headings = ("p50", "p90", "p99", "p99.9")
    lines += [
        "",
        "latency, ms a call: what every slice of the batch waits for",
        row("", "batch", *headings, "calls", "load", "others"),
    ]
    for call in calls:
        figures = [milliseconds(call["call_ms"], p) for p in percents]
        load, others = call["load_average"]["mean"], call["cpus_used_by_others"]
        cells = (call["batch"], *figures, call["call_ms"]["n"], f"{load:.2f}", f"{others:.2f}")
        lines.append(row(label(call), *map(str, cells)))
    lines += [
        "",
        "ms a slice: a call divided by its batch",
        row("", "batch", *headings, "slices/s"),
    ]
    for call in calls:
        figures = [milliseconds(call["slice_ms"], p) for p in percents]
        lines.append(row(label(call), str(call["batch"]), *figures, f"{call['slices_per_s']:,.1f}"))
    lines += [
        "",
        "load: load average during the run; others: cores that other processes kept busy meanwhile",
    ]
    if any(call["call_ms"]["p99_9"] is None for call in calls):
        lines.append(
            "n/a: p99.9 needs 1,000 calls, and the column calls says how many there were; "
            "raise --seconds"
        )
    engines = {f"{c['backend']} {c['version']} ({c['threads']} threads)": None for c in calls}
    lines.append("engines: " + ", ".join(engines))
    return lines


def row(first: str, *cells: str) -> str:
    return f"{first:<17}" + "".join(f"{cell:>9}" for cell in cells)


def label(call: dict[str, Any]) -> str:
    return f"{call['backend']} {call['precision']}"


def milliseconds(figures: dict[str, Any], name: str) -> str:
    value = figures[name]
    return "n/a" if value is None else f"{value:.3f}" if value < 100 else f"{value:.1f}"


def draw(document: dict[str, Any]) -> bytes:
    """A PNG of three panels: cold start by phase, latency by batch, slices a second by batch."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    cold, latency, throughput = figure.subplots(1, 3)
    draw_cold(cold, document["cold_start"])
    engines: dict[str, list[dict[str, Any]]] = {}
    for call in document["measurements"]:
        engines.setdefault(label(call), []).append(call)
    batches = sorted({call["batch"] for call in document["measurements"]})
    for place, (name, calls) in enumerate(engines.items()):
        calls = sorted(calls, key=lambda c: c["batch"])
        at = [batches.index(c["batch"]) for c in calls]
        p50, p99 = ([c["call_ms"][p] for c in calls] for p in ("p50", "p99"))
        latency.plot(at, p50, "o-", color=f"C{place}", label=f"{name}, p50")
        latency.plot(at, p99, "_--", color=f"C{place}", label=f"{name}, p99")
        latency.fill_between(at, p50, p99, color=f"C{place}", alpha=0.15)
        width = 0.8 / len(engines)
        left = [x + (place - (len(engines) - 1) / 2) * width for x in at]
        bars = throughput.bar(left, [c["slices_per_s"] for c in calls], width, label=name)
        throughput.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    latency.set(yscale="log", title="latency", ylabel="ms a call")
    throughput.set(title="throughput", ylabel="slices/s")
    for axes in (latency, throughput):
        axes.set_xticks(range(len(batches)), [str(b) for b in batches])
        axes.set_xlabel("slices a call")
        axes.legend(fontsize=8)
        axes.grid(axis="y", alpha=0.3)
    model, machine = document["model"], document["machine"]
    figure.suptitle(
        f"{model['file']} ({model['recipe']}) on {machine['cpu']}, {machine['cores_usable']} cores",
        fontsize=10,
    )
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def draw_cold(axes: Axes, records: list[dict[str, Any]]) -> None:
    """One horizontal bar a backend, its phases end to end."""
    names = [record["backend"] for record in records]
    left = [0.0] * len(records)
    for phase in ("start", "import", "load", "compile", "first"):
        spans = [record[f"{phase}_ms"] for record in records]
        axes.barh(names, spans, 0.5, left, label=phase)
        left = [a + b for a, b in zip(left, spans, strict=True)]
    axes.set(title="cold start to the first slice", xlabel="ms")
    axes.invert_yaxis()
    axes.legend(fontsize=8, ncols=5, loc="upper center", columnspacing=0.8, handlelength=1.0)
    axes.set_ylim(len(records) - 0.5, -0.9)
