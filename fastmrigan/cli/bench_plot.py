"""The picture of a bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastmrigan.cli.bench_table import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(document: dict[str, Any]) -> bytes:
    """A PNG of four panels: cold start by phase, latency and slices a second by batch (calls
    at the engine's own pace, the largest number of threads, engine alone where that was measured),
    latency over the run."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.4), layout="constrained")
    (cold, latency), (over_time, throughput) = figure.subplots(2, 2)
    draw_cold(cold, document["cold_start"])
    shown = shown_calls(document["measurements"])
    draw_over_time(over_time, shown)
    engines: dict[str, list[dict[str, Any]]] = {}
    for call in shown:
        engines.setdefault(side(call), []).append(call)
    batches = sorted({call["batch"] for call in shown})
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


def shown_calls(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the measurements, those of one scope and number of threads, at no fixed rate."""
    scopes = {call["scope"] for call in calls}
    scope = "engine" if "engine" in scopes else "end-to-end"
    threads = max(call["threads"] for call in calls)
    wanted = (scope, None, threads)
    return [c for c in calls if (c["scope"], c["rate"], c["threads"]) == wanted]


def side(call: dict[str, Any]) -> str:
    """The name of one side of the picture."""
    return f"{label(call)}, throughput" if call["mode"] == "throughput" else label(call)


def draw_over_time(axes: Axes, calls: list[dict[str, Any]]) -> None:
    """Median and longest call of each turn, at the smallest batch."""
    least = min(call["batch"] for call in calls)
    for place, call in enumerate(c for c in calls if c["batch"] == least):
        turns = range(1, len(call["rounds"]) + 1)
        axes.set_xticks(turns)
        middle, longest = ([r[p] for r in call["rounds"]] for p in ("p50_ms", "max_ms"))
        axes.plot(turns, middle, "o-", color=f"C{place}", label=f"{side(call)}, p50")
        axes.plot(turns, longest, "_--", color=f"C{place}", label=f"{side(call)}, longest")
    axes.set(yscale="log", title=f"over the run, batch {least}", ylabel="ms a call", xlabel="turn")
    axes.legend(fontsize=8)
    axes.grid(axis="y", alpha=0.3)
