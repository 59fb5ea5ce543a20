"""Two benches beside each other, row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastmrigan.cli.bench_table import label, milliseconds, row
from fastmrigan.errors import UsageError
from fastmrigan.runtime.latency import KIND, SCHEMA_VERSION

SAME = ("backend", "precision", "mode", "batch", "threads", "scope", "rate")  # of comparable rows
SCOPES = {"engine": "engine", "end-to-end": "e2e"}


def read_bench(path: Path) -> dict[str, Any]:
    """A bench.json; UsageError where it is none, or of another schema."""
    try:
        document = json.loads(path.read_bytes())
    except IsADirectoryError as error:
        raise UsageError(f"{path}: is a folder; name the bench.json in it") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise UsageError(f"{path}: is no report of kind {KIND}; make one with `fastmrigan bench`")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: has schema version {document.get('schema_version')}, this fastmrigan knows "
            f"{SCHEMA_VERSION}; measure again"
        )
    return document


def compared(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The lines: what differs between the runs, then the rows that both have, then the others."""
    lines = differences(first, second)
    sides = [{key_of(m): m for m in side["measurements"]} for side in (first, second)]
    both = [key for key in sides[0] if key in sides[1]]
    lines += [
        "",
        "ms a call, A and B, and how many times A's p50 and p99 B takes; = where the turns' "
        "medians overlap",
        row(
            "",
            "scope",
            "batch",
            "thr",
            "rate",
            *("p50 A", "p50 B", "B/A", ""),
            *("p99 A", "p99 B", "B/A"),
            width=7,
        ),
    ]
    for key in both:
        a, b = sides[0][key], sides[1][key]
        cells = [SCOPES[a["scope"]], str(a["batch"]), str(a["threads"])]
        cells.append(a["loop"] if a["rate"] is None else f"{a['rate']:g}")
        for percent in ("p50", "p99"):
            taken = [side["call_ms"][percent] for side in (a, b)]
            cells += [milliseconds(side["call_ms"], percent) for side in (a, b)] + [
                f"{taken[1] / taken[0]:.2f}"
            ]
            if percent == "p50":
                cells.append("=" if overlap(a, b) else "")
        lines.append(row(label(a), *cells, width=7))
    for name, side, other in zip("AB", sides, reversed(sides), strict=True):
        alone = [key for key in side if key not in other]
        if alone:
            told = "; ".join(
                ", ".join(f"{k} {v}" for k, v in zip(SAME, key, strict=True) if v) for key in alone
            )
            lines.append(f"in {name} alone: {told}")
    return lines


def key_of(measurement: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(measurement[name] for name in SAME)


def overlap(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether the medians of the turns of two measurements lie in common bounds."""
    (low_a, high_a), (low_b, high_b) = (
        (min(medians), max(medians))
        for medians in ([r["p50_ms"] for r in side["rounds"]] for side in (a, b))
    )
    return bool(low_a <= high_b and low_b <= high_a)


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """A line for each fact of model, machine and versions in which two runs differ."""
    facts = [
        {
            "model": f"{d['model']['file']} ({d['model']['sha256'][:12]})",
            "fastmrigan": d["fastmrigan"],
            **d["machine"],
            **{f"{m['backend']} version": m["version"] for m in d["measurements"]},
        }
        for d in (first, second)
    ]
    lines = [f"A: {first['began']}, B: {second['began']}"]
    for name in dict.fromkeys((*facts[0], *facts[1])):
        a, b = (side.get(name) for side in facts)
        if a != b:
            lines.append(f"differs: {name}: {a} in A, {b} in B")
    return lines
