"""The lines a bench prints on the terminal."""

from __future__ import annotations

from typing import Any

from fastmrigan.progress import counted
from fastmrigan.runtime.latency_figures import NEEDS

SCOPES = {"engine": "engine alone", "end-to-end": "end to end, pixels out"}
LOOPS = {
    "closed": "a call when the last one ends",
    "flow": "several calls at once (mode throughput)",
    "open": "calls at a fixed rate a second, from when each should have begun",
}


def table(document: dict[str, Any]) -> list[str]:
    """The lines printed on the terminal."""
    machine, calls = document["machine"], document["measurements"]
    started = document["cold_start"][0]["processes"]
    processes = counted(started, "fresh process", "fresh processes")
    lines = [
        f"{document['model']['file']}: {document['model']['recipe']}, on {machine['cpu']}, "
        f"{machine['cores_usable']} of {machine['cores']} cores, "
        f"governor {machine['governor'] or 'not readable'}",
        *(f"left out: {name}: {why}" for name, why in document["left_out"].items()),
        "",
        f"cold start, ms: median of {processes} each, files cached by the system",
        row("", "start", "import", "load", "compile", "first", "total", "peak MB"),
    ]
    for cold in document["cold_start"]:
        phases = ("start", "import", "load", "compile", "first", "total")
        spans = [f"{cold[f'{p}_ms']:.1f}" for p in phases]
        lines.append(row(cold["backend"], *spans, f"{cold['peak_mb']:.0f}"))
    for scope, loop in dict.fromkeys((call["scope"], call["loop"]) for call in calls):
        lines += rows_of(
            scope, loop, [c for c in calls if (c["scope"], c["loop"]) == (scope, loop)]
        )
    lines += [
        "",
        "jitter: standard deviation; drift: the slowest turn's median less the fastest's; slc/s: "
        "slices a",
        "second; others: cores that other processes kept busy meanwhile",
    ]
    late = sum(call["not_served"] for call in calls)
    if late:
        lines.append(
            f"{late:,} calls arrived faster than they could be served and count with as long as "
            "they had waited"
        )
    if any(call["call_ms"]["n"] < max(NEEDS.values()) for call in calls):
        lines.append(
            f"-: of too few calls; p99 needs {NEEDS['p99']:,}, p99.9 needs {NEEDS['p99_9']:,} "
            "calls: raise --seconds"
        )
    engines = {f"{c['backend']} {c['version']}": None for c in calls}
    lines.append("engines: " + ", ".join(engines))
    return lines


def rows_of(scope: str, loop: str, calls: list[dict[str, Any]]) -> list[str]:
    """One block: the calls of one scope under one kind of load."""
    rate = ["rate"] if loop == "open" else []
    percents = ("p50", "p90", "p99", "p99_9")
    headings = ("p50", "p90", "p99", "p99.9", "jitter", "drift", "calls", "slc/s", "others")
    lines = [
        "",
        f"ms a call, {SCOPES[scope]}; {LOOPS[loop]}",
        row("", "batch", "thr", *rate, *headings, width=7),
    ]
    for call in calls:
        steady = [f"{call['jitter'][name]:.3f}" for name in ("std_ms", "drift_ms")]
        cells = [str(call["batch"]), str(call["threads"])]
        cells += [f"{call['rate']:g}"] if loop == "open" else []
        cells += [milliseconds(call["call_ms"], p) for p in percents] + steady
        per_s = call["slices_per_s"]
        cells += [str(call["call_ms"]["n"]), f"{per_s:.1f}" if per_s < 1000 else f"{per_s:.0f}"]
        cells.append(f"{call['cpus_used_by_others']:.2f}")
        lines.append(row(label(call), *cells, width=7))
    return lines


def row(first: str, *cells: str, width: int = 8) -> str:
    return f"{first:<16}" + "".join(f"{cell:>{width}}" for cell in cells)


def label(call: dict[str, Any]) -> str:
    return f"{call['backend']} {call['precision']}"


def milliseconds(figures: dict[str, Any], name: str) -> str:
    value = figures[name]
    if value is None or figures["n"] < NEEDS.get(name, 0):
        return "-"
    return f"{value:.3f}" if value < 100 else f"{value:.1f}"
