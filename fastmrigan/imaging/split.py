"""Which slices are for training and which for testing, with no leak between the two.

By patient or by duplicates, slices tied together by a patient, an exact or a near duplicate
(directly or through others) go to one side together. By block, for a set that is one subject or
one chain of neighbours, a run of consecutive slices is the test set, and the slices that touch
it, or repeat it, are set aside as "guard".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.imaging.components import Int64, components
from fastmrigan.imaging.duplicates import near_any

Side = Literal["train", "test", "guard"]
Unit = Literal["patient", "duplicates", "block"]
METHODS = ("auto", *get_args(Unit))


@dataclass(frozen=True)
class Ties:
    """What ties slices together; all in the set's own order."""

    patient: Sequence[str | None]  # [N]
    exact: Sequence[int | None]  # [N]
    near: Sequence[int | None]  # [N]
    thumbnails: npt.NDArray[np.float32]  # [N, D] of duplicates.thumbnail
    mirrors: npt.NDArray[np.float32] | None = None  # [N, D] of duplicates.mirrored


def split(ties: Ties, method: str, fraction: float, seed: int) -> tuple[Unit, str, list[Side]]:
    """The method used, why it was, and "train", "test" or "guard" for each slice.

    method: one of METHODS; `auto` takes patient where every slice has one, else duplicates, and
    block where all slices are tied together. fraction: share of the slices wanted for testing,
    0 to below 1; all train where it is 0 or there is one slice.
    Raises UsageError where the method cannot be followed.
    """
    count = len(ties.patient)
    nameless = sum(patient is None for patient in ties.patient)
    units = tie(ties)
    wanted = fraction > 0 and count > 1
    divisible = bool((units != units[0]).any())
    by: Unit
    if method == "auto":
        by = "duplicates" if nameless else "patient"
        reason = f"{'not ' * bool(nameless)}every slice has a patient"
        if wanted and not divisible:
            by, reason = "block", "all slices are one patient or near duplicates"
    else:
        by, reason = next(unit for unit in get_args(Unit) if unit == method), "as asked"
    if by == "patient" and nameless:
        raise UsageError(
            f"--split patient: {nameless:,} of {count:,} slices have no patient; name them with "
            "--group-pattern or use --split duplicates"
        )
    if not wanted:
        return by, "nothing to set aside for testing", ["train"] * count
    if by == "block":
        sides = split_block(ties, fraction, seed)
        if "train" in sides:
            return by, reason, sides
        if method == "auto":
            return by, "all slices repeat one another: none set aside", ["train"] * count
        raise UsageError(
            f"--split block: all {count:,} slices touch or repeat the test block, so none is left "
            "to train on; use --test-fraction 0"
        )
    if not divisible:
        raise UsageError(
            f"--split {by}: all {count:,} slices are one patient or near duplicates; use "
            "--split block or --test-fraction 0"
        )
    return by, reason, split_units(units, fraction, seed)


def tie(ties: Ties) -> Int64:
    """The unit of each slice: int64 [N], the smallest index among the slices it is tied to."""
    first: list[int] = []
    second: list[int] = []
    for names in (ties.patient, ties.exact, ties.near):
        seen: dict[str | int, int] = {}
        for i, name in enumerate(names):
            if name is not None:
                first.append(i)
                second.append(seen.setdefault(name, i))
    return components(len(ties.patient), np.array(first, np.int64), np.array(second, np.int64))


def split_units(units: Int64, fraction: float, seed: int) -> list[Side]:
    """Units in seeded order go to the test set while they fit; at least the smallest, never all."""
    sizes = Counter(units.tolist())
    wanted = min(max(1, round(fraction * len(units))), len(units) - 1)
    order = np.random.default_rng(seed).permutation(sorted(sizes)).tolist()
    chosen: set[int] = set()
    taken = 0
    for unit in order:
        if taken + sizes[unit] <= wanted:
            chosen.add(unit)
            taken += sizes[unit]
    if not chosen:
        chosen.add(min(order, key=lambda unit: sizes[unit]))
    return ["test" if unit in chosen else "train" for unit in units.tolist()]


def split_block(ties: Ties, fraction: float, seed: int) -> list[Side]:
    """A seeded run of consecutive slices for testing, its neighbours and copies set aside."""
    count = len(ties.patient)
    length = min(max(1, round(fraction * count)), count - 1)
    start = int(np.random.default_rng(seed).integers(0, count - length + 1))
    inside = np.zeros(count, dtype=np.bool_)
    inside[start : start + length] = True
    guard = np.zeros(count, dtype=np.bool_)
    guard[max(0, start - 1) : start + length + 1] = True
    turned = None if ties.mirrors is None else ties.mirrors[inside]
    guard |= near_any(ties.thumbnails, ties.thumbnails[inside], turned)
    tested = {name for name, test in zip(ties.exact, inside, strict=True) if test} - {None}
    guard |= np.array([name in tested for name in ties.exact], dtype=np.bool_)
    return [
        "test" if test else "guard" if near else "train"
        for test, near in zip(inside.tolist(), guard.tolist(), strict=True)
    ]
