"""Figures of results_of.py: values of fastmrigan's reports, beside their floors, against bars."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

THIRD = 1 / 3  # of what the intensity table leaves to a SSIM of 1

Bars = Mapping[str, Callable[[float], tuple[str, float]]]  # by measure, of the table's value


@dataclass(frozen=True)
class Figure:
    """A row: a value, what stands beside it, and whether it meets its bar (None: it has none)."""

    name: str
    value: float
    text: str
    beside: str
    bar: str = ""
    met: bool | None = None
    floors: Mapping[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": None if math.isnan(self.value) else self.value,
            "floors": dict(self.floors),
            "bar": self.bar,
            "met": self.met,
        }


def report(path: Path) -> dict[str, Any]:
    """What `fastmrigan evaluate` wrote beside its page."""
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def unmeasured(name: str, bar: str | None = "has a bar") -> Figure:
    """A bar that nothing was held against is missed."""
    return Figure(name, math.nan, "not measured", "", bar or "", None if bar is None else False)


def pair_figures(numbers: dict[str, Any], what: str, bars: Bars) -> list[Figure]:
    """SSIM, PSNR and MAE of a translation beside its floors, against bars: texts and values."""
    found = []
    for key in ("ssim", "psnr", "mae", "ssim_brain", "psnr_brain", "mae_brain"):
        measure, floors = numbers["measures"].get(key), numbers["pairs"]["floors"].get(key)
        if measure is None or floors is None:
            if key in bars:
                found.append(unmeasured(f"{what}: {key}"))
            continue
        value, span = measure["value"], measure["interval"]
        table, copy = floors["intensity_table"], floors["plain_copy"]
        beside = {"table": table} | ({} if copy is None else {"copy": copy})
        digits = 2 if key.startswith("psnr") else 3
        text, met = "", None
        if key in bars:
            text, least = bars[key](table)
            met = value >= least
        found.append(
            Figure(
                f"{what}: {measure['name']}",
                value,
                f"{value:.{digits}f}"
                + ("" if span is None else f" ({span[0]:.{digits}f} to {span[1]:.{digits}f})"),
                ", ".join(f"{name} {floor:.{digits}f}" for name, floor in beside.items())
                + (", copy exact" if copy is None else ""),
                text,
                met,
                beside,
            )
        )
    return found


def above_table(table: float) -> tuple[str, float]:
    """A third of what the table leaves to a SSIM of 1."""
    least = table + THIRD * (1 - table)
    return f"at least {least:.3f} (a third of the table's rest)", least


def decibels_above(decibels: float) -> Callable[[float], tuple[str, float]]:
    def bar(table: float) -> tuple[str, float]:
        return f"at least {table + decibels:.2f} (table + {decibels:g} dB)", table + decibels

    return bar


def set_figures(
    numbers: dict[str, Any], what: str, keys: Mapping[str, tuple[str, float] | None]
) -> list[Figure]:
    """Measures of whole sets beside their references. keys: of each the bar, as its text (which
    begins with at most or at least) and its value, or None. One that was not measured says so."""
    found = []
    for key, bar in keys.items():
        measure = numbers["measures"].get(key)
        if measure is None:
            found.append(unmeasured(f"{what}: {key}", bar and bar[0]))
            continue
        value, reference, scale = measure["value"], measure["reference"], 1
        unit = ""
        if measure["share"]:
            scale, unit = 100, " %"
        text = f"{scale * value:.4g}{unit}"
        if measure["interval"] is not None:
            low, high = measure["interval"]
            text += f" ({scale * low:.3g} to {scale * high:.3g})"
        met = None
        if bar is not None:
            met = value <= bar[1] if bar[0].startswith("at most") else value >= bar[1]
        found.append(
            Figure(
                f"{what}: {measure['name']}",
                value,
                text,
                "" if reference is None else f"reference {scale * reference:.4g}{unit}",
                "" if bar is None else bar[0],
                met,
                {} if reference is None else {"reference": reference},
            )
        )
    return found


def value_of(numbers: dict[str, Any], key: str) -> float:
    return float(numbers["measures"][key]["value"])
