"""A quick brain (or head) mask for slices whose air is dark: for areas and for metrics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.components import Bool, label

Float32 = npt.NDArray[np.float32]


def otsu_threshold(x: Float32, bins: int = 256) -> float:
    """The threshold that best parts dark from bright (Otsu 1979, doi 10.1109/TSMC.1979.4310076).

    x: any shape, finite, in any unit. Returns the centre of the last bin that counts as dark;
    bright is `x > threshold`. A constant x returns its value.
    """
    low, high = float(x.min()), float(x.max())
    if low == high:
        return low
    counts, edges = np.histogram(x, bins=bins, range=(low, high))  # [bins], [bins + 1]
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * centres) / below
    mean_above = np.cumsum((counts * centres)[::-1])[::-1] / above
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centres[np.argmax(between)])


def largest_component(mask: Bool) -> Bool:
    """The 4-connected component with the most pixels; an empty mask stays empty. [H, W]"""
    labels = label(mask)
    if not mask.any():
        return mask.copy()
    largest: Bool = labels == np.bincount(labels[mask]).argmax()
    return largest


def fill_holes(mask: Bool) -> Bool:
    """The mask with every dark region that does not reach the frame made true. [H, W]"""
    outside = label(~np.pad(mask, 1))
    filled: Bool = outside[1:-1, 1:-1] != outside[0, 0]
    return filled


def brain_mask(x: Float32) -> Bool:
    """The largest bright object of a slice, holes filled.

    x: float32 [H, W], any unit, air dark. Returns bool [H, W]. Where the skull has not been
    stripped this is the head.
    """
    return fill_holes(largest_component(x > otsu_threshold(x)))
