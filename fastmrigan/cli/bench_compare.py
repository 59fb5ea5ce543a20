"""Two benches beside each other, row by row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastmrigan.cli.bench_table import label, milliseconds, row
from fastmrigan.errors import UsageError
from fastmrigan.progress import counted
from fastmrigan.runtime.latency import KIND, SCHEMA_VERSION
from fastmrigan.runtime.latency_figures import NEEDS

Measurement = dict[str, Any]
Key = tuple[Any, ...]

SAME = ("backend", "precision", "mode", "batch", "threads", "scope", "rate")  # of comparable rows
SCOPES = {"engine": "engine", "end-to-end": "e2e"}
SHOWN = 4  # kinds of rows that one run has alone


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
    both = [(sides[0][key], sides[1][key]) for key in sides[0] if key in sides[1]]
    lines += ["", *(rows_of_both(both) if both else ["no row is in both"])]
    for name, side, other in zip("AB", sides, reversed(sides), strict=True):
        if told := alone([*side], [*other]):
            lines.append(f"in {name} alone: {'; '.join(told)}")
    return lines


def rows_of_both(both: Sequence[tuple[Measurement, Measurement]]) -> list[str]:
    """The table of the rows that both runs have."""
    lines = [
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
    few = False
    for a, b in both:
        cells = [SCOPES[a["scope"]], str(a["batch"]), str(a["threads"])]
        cells.append(a["loop"] if a["rate"] is None else f"{a['rate']:g}")
        for percent in ("p50", "p99"):
            taken = [side["call_ms"][percent] for side in (a, b)]
            told = [milliseconds(side["call_ms"], percent) for side in (a, b)]
            cells += [*told, "-" if "-" in told else f"{taken[1] / taken[0]:.2f}"]
            few |= "-" in told
            if percent == "p50":
                cells.append("=" if overlap(a, b) else "")
        lines.append(row(label(a), *cells, width=7))
    return lines + [f"-: of too few calls; p99 needs {NEEDS['p99']:,}"] * few


def alone(keys: Sequence[Key], others: Sequence[Key]) -> list[str]:
    """What rows one run has that the other has not, by what tells them first from all of the
    other's; the few that no single value tells, one by one."""
    lacking = [key for key in keys if key not in others]
    known = [{key[place] for key in others} for place in range(len(SAME))]
    counts: Counter[str] = Counter()
    rest = []
    for key in lacking:
        new = [place for place, value in enumerate(key) if value not in known[place]]
        if new:
            value = key[new[0]]
            counts[f"{SAME[new[0]]} {'none' if value is None else value}"] += 1
        else:
            rest.append(", ".join(f"{k} {v}" for k, v in zip(SAME, key, strict=True) if v))
    told = [f"{name} ({counted(count, 'row')})" for name, count in counts.items()] + rest
    left = sum([*counts.values(), *(1 for _ in rest)][SHOWN:])
    return told[:SHOWN] + ([f"and {counted(left, 'row')} more"] if left else [])


def key_of(measurement: Measurement) -> Key:
    return tuple(measurement[name] for name in SAME)


def overlap(a: Measurement, b: Measurement) -> bool:
    """Whether the medians of the turns of two measurements lie in common bounds."""
    (low_a, high_a), (low_b, high_b) = (
        (min(medians), max(medians))
        for medians in ([r["p50_ms"] for r in side["rounds"]] for side in (a, b))
    )
    return bool(low_a <= high_b and low_b <= high_a)


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """A line for each fact of model, machine and versions that both runs know, and that differs."""
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
    for name in facts[0]:
        a, b = (side.get(name) for side in facts)
        if a != b and a is not None and b is not None:
            lines.append(f"differs: {name}: {a} in A, {b} in B")
    return lines
