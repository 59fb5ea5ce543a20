"""Intensity grading: a source's own numbers to [-1, 1], and back.

A rule says how the range is found; a grading is the range it found, kept with every slice.

The percentile rule takes its low end from the whole frame and its high end from the foreground.
Low from the frame: the darkest share of a frame is air, so air lands on -1 whatever the scanner's
offset is, and no dark tissue is cut off with it. High from the foreground: over the frame, the
same head would come out darker or brighter with more or less air around it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError

Float32 = npt.NDArray[np.float32]

# Air and its noise lie below this share of the way from the low end to the frame's 99th percentile.
FOREGROUND_SHARE = 0.1


@dataclass(frozen=True)
class GradingRule:
    """How the range of a slice (or of all slices of a volume, together) is found."""

    method: str  # "percentile", "minmax" or "window"
    low: float = 0.0  # percent for percentile, the source's unit for window, unused for minmax
    high: float = 0.0

    def as_dict(self) -> dict[str, str | float]:
        return {"method": self.method} if self.method == "minmax" else asdict(self)


@dataclass(frozen=True)
class Grading:
    """The range that went to [-1, 1], in the source's own unit."""

    method: str
    low: float
    high: float


def parse_rule(text: str) -> GradingRule:
    """`percentile`, `percentile:LOW:HIGH`, `minmax` or `window:LOW:HIGH` to a rule.

    Raises UsageError for anything else.
    """
    method, *bounds = text.split(":")
    if text == "minmax":
        return GradingRule("minmax")
    if text == "percentile":
        return GradingRule("percentile", 0.5, 99.5)
    try:
        low, high = (float(bound) for bound in bounds)
    except ValueError:
        low = high = math.nan
    top = {"percentile": 100.0, "window": math.inf}.get(method)
    if top is None or not (low < high <= top and math.isfinite(high - low)):
        raise UsageError(
            f"--grading {text}: expected percentile, percentile:LOW:HIGH (percent), minmax or "
            "window:LOW:HIGH with LOW < HIGH"
        )
    if method == "percentile" and low < 0:
        raise UsageError(f"--grading {text}: a percentile lies between 0 and 100")
    return GradingRule(method, low, high)


def measure(slices: Float32, rule: GradingRule) -> Grading:
    """The range of one slice or one volume under a rule.

    slices: float32 [N, H, W], finite, not constant.
    Raises ValueError with the reason where the range is empty.
    """
    if rule.method == "window":
        low, high = rule.low, rule.high
        if slices.max() <= low or slices.min() >= high:
            raise ValueError(f"all its values lie outside the window {low:g} to {high:g}")
    elif rule.method == "minmax":
        low, high = float(slices.min()), float(slices.max())
    else:
        low, bright = (float(p) for p in np.percentile(slices, [rule.low, 99.0]))
        foreground = slices[slices > low + FOREGROUND_SHARE * (bright - low)]
        high = float(np.percentile(foreground, rule.high)) if foreground.size else low
    if not low < high:
        raise ValueError(f"nearly all its pixels have one value ({low:g})")
    return Grading(rule.method, low, high)


def grade(x: Float32, grading: Grading) -> Float32:
    """low..high to -1..1, clipped. Any shape; float32."""
    scale = 2.0 / (grading.high - grading.low)
    graded = np.clip((x.astype(np.float64) - grading.low) * scale - 1.0, -1.0, 1.0)
    return graded.astype(np.float32)


def ungrade(y: Float32, grading: Grading) -> Float32:
    """The inverse of `grade`: -1..1 to low..high in the source's unit. Any shape; float32."""
    half = (grading.high - grading.low) / 2
    return ((y.astype(np.float64) + 1.0) * half + grading.low).astype(np.float32)
