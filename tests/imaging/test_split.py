"""No split ever leaks: whatever ties slices together, they stand on one side."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmrigan.errors import UsageError
from fastmrigan.imaging.duplicates import NEAR, near_groups
from fastmrigan.imaging.split import Ties, split


def loners(count: int) -> np.ndarray:
    """Thumbnails that resemble no other, float32 [count, count]."""
    return np.eye(count, dtype=np.float32)


def ties(
    patient: list[str | None],
    exact: list[int | None] | None = None,
    near: list[int | None] | None = None,
    thumbnails: np.ndarray | None = None,
) -> Ties:
    none: list[int | None] = [None] * len(patient)
    table = loners(len(patient)) if thumbnails is None else thumbnails
    return Ties(patient, exact or none, near or none, table)


def sides_of(names: list, sides: list[str]) -> dict:
    seen = defaultdict(set)
    for name, side in zip(names, sides, strict=True):
        if name is not None:
            seen[name].add(side)
    return seen


numbers = st.one_of(st.none(), st.integers(0, 5))
rows = st.lists(
    st.tuples(st.one_of(st.none(), st.sampled_from("abcdef")), numbers, numbers),
    min_size=2,
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(rows=rows, fraction=st.floats(0.01, 0.9), seed=st.integers(0, 9))
def test_units_are_never_divided(rows: list, fraction: float, seed: int) -> None:
    patient, exact, near = (list(column) for column in zip(*rows, strict=True))
    by, _, sides = split(ties(patient, exact, near), "auto", fraction, seed)
    assert len(sides) == len(rows)
    assert "train" in sides
    if by == "block":
        return
    assert "test" in sides
    assert by == ("duplicates" if None in patient else "patient")
    for names in (patient, exact, near):
        assert all(len(found) == 1 for found in sides_of(names, sides).values())


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_fraction_is_met_by_loners(fraction: float) -> None:
    _, _, sides = split(ties([None] * 200), "auto", fraction, 3)
    assert sides.count("test") == 200 * fraction


def test_the_seed_decides() -> None:
    first, second, other = (split(ties([None] * 50), "auto", 0.2, s)[2] for s in (1, 1, 2))
    assert first == second != other


def test_one_patient_falls_to_a_block_and_says_so() -> None:
    by, reason, sides = split(ties(["a"] * 20), "auto", 0.2, 0)
    assert (by, reason) == ("block", "all slices are one patient or near duplicates")
    assert sides.count("test") == 4


@pytest.mark.parametrize("seed", range(8))
def test_block_is_contiguous_guarded_and_free_of_copies(seed: int) -> None:
    count = 30
    angles = np.arange(count) * np.arccos(NEAR) * 0.7  # only direct neighbours are near
    thumbnails = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    thumbnails = thumbnails * (angles[:, None] < 3)  # what lies further on resembles nothing
    exact: list[int | None] = [None] * count
    exact[2] = exact[27] = 0
    tied = ties([None] * count, exact, near_groups(thumbnails, [None] * count), thumbnails)
    _, _, sides = split(tied, "block", 0.2, seed)
    tested = [i for i, side in enumerate(sides) if side == "test"]
    assert tested == list(range(tested[0], tested[0] + 6))
    trained = [i for i, side in enumerate(sides) if side == "train"]
    assert trained
    assert min(abs(i - j) for i in tested for j in trained) > 1
    assert (thumbnails[tested] @ thumbnails[trained].T).max() <= NEAR
    assert len(sides_of(exact, sides)[0] & {"train", "test"}) == 1


def test_block_sets_mirrored_copies_aside() -> None:
    thumbnails = loners(20)
    mirrors = thumbnails[::-1].copy()  # slice i is the mirror of slice 19 - i
    tied = Ties([None] * 20, [None] * 20, [None] * 20, thumbnails, mirrors)
    _, _, sides = split(tied, "block", 0.1, 0)
    tested = [i for i, side in enumerate(sides) if side == "test"]
    assert len(tested) == 2
    assert {sides[19 - i] for i in tested} <= {"guard", "test"}


def test_nothing_to_test_on() -> None:
    copies = ties([None] * 3, [0, 0, 0])
    assert split(copies, "auto", 0.3, 0)[1:] == (
        "all slices repeat one another: none set aside",
        ["train"] * 3,
    )
    assert split(ties([None] * 5), "auto", 0.0, 0)[2] == ["train"] * 5
    assert split(ties([None]), "auto", 0.5, 0)[2] == ["train"]


@pytest.mark.parametrize(
    ("tied", "method", "message"),
    [
        (ties(["a", None, "b"]), "patient", "1 of 3 slices have no patient"),
        (ties(["a", "a"]), "patient", "all 2 slices are one patient"),
        (ties([None] * 3, None, [0, 0, 0]), "duplicates", "all 3 slices are one patient or near"),
        (ties([None] * 3, [0, 0, 0]), "block", "all 3 slices touch or repeat the test block"),
    ],
)
def test_refused(tied: Ties, method: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^--split {method}: .*{message}"):
        split(tied, method, 0.3, 0)
