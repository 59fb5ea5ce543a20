from __future__ import annotations

import numpy as np
import pytest

from fastmrigan.imaging import duplicates
from fastmrigan.imaging.duplicates import (
    digest,
    exact_groups,
    mirrored,
    near_any,
    near_groups,
    number_groups,
    thumbnail,
)
from fastmrigan.imaging.geometry import resize


def slices(count: int, seed: int = 0) -> np.ndarray:
    """Smooth unrelated slices, float32 [count, 64, 64]."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [resize(rng.uniform(-1, 1, (8, 8)).astype(np.float32), 64, 64) for _ in range(count)]
    )


def test_digest_is_of_values_and_shape() -> None:
    x = np.arange(64, dtype=np.float32).reshape(8, 8)
    assert digest(x) == digest(np.asfortranarray(x))
    assert digest(x) != digest(x.reshape(4, 16))
    assert digest(x) != digest(x + 1)


def test_exact_groups_are_numbered_by_appearance() -> None:
    digests = [bytes([v]) * 32 for v in (9, 4, 9, 7, 4, 1, 9)]
    assert exact_groups(digests) == [0, 1, 0, None, 1, None, 0]
    assert number_groups(np.array([5])) == [None]


def test_thumbnails_correlate_like_numpy() -> None:
    a, b = slices(2)
    small = [resize(s, 32, 32).reshape(-1) for s in (a, b)]
    assert thumbnail(a) @ thumbnail(b) == pytest.approx(np.corrcoef(small)[0, 1], abs=1e-5)
    assert thumbnail(a * 0.3 + 0.1) @ thumbnail(a) == pytest.approx(1, abs=1e-5)
    assert not thumbnail(np.ones((40, 40), np.float32)).any()


@pytest.mark.parametrize("block", [3, 2048])
def test_near_groups(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    rng = np.random.default_rng(1)
    x = slices(8)
    x[5] = x[0] + rng.normal(0, 0.05, (64, 64))  # retouched
    x[7] = resize(resize(x[2], 40, 40), 64, 64)  # resized and back
    thumbnails = np.array([thumbnail(s) for s in x])
    assert near_groups(thumbnails, [None] * 8) == [0, None, 1, None, None, 0, None, 1]
    assert near_any(thumbnails, thumbnails[[0, 2]]).tolist() == [
        i in (0, 2, 5, 7) for i in range(8)
    ]


@pytest.mark.parametrize(
    ("correlation", "patients", "near"),
    [
        (0.96, (None, None), True),
        (0.96, ("a", "a"), True),
        (0.96, ("a", None), True),
        (0.96, ("a", "b"), False),
        (0.99, ("a", "b"), True),
        (0.94, (None, None), False),
    ],
)
def test_known_strangers_must_be_copies(
    correlation: float, patients: tuple[str | None, str | None], near: bool
) -> None:
    thumbnails = np.array([[1, 0], [correlation, np.sqrt(1 - correlation**2)]], np.float32)
    assert near_groups(thumbnails, patients) == ([0, 0] if near else [None, None])


def test_chains_are_one_group() -> None:
    angles = np.arange(12) * 0.2  # neighbours at cos 0.2 = 0.98, the ends far apart
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert near_groups(chain, [None] * 12) == [0] * 12


def test_mirrors_are_of_thumbnails() -> None:
    x = slices(3)
    expected = [thumbnail(s[:, ::-1]) for s in x]
    got = mirrored(np.array([thumbnail(s) for s in x]))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got.flags.c_contiguous


@pytest.mark.parametrize("block", [2, 2048])
def test_mirrored_copies_are_near(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    x = slices(6)
    x[4] = x[1][:, ::-1]
    x[5] = resize(resize(np.ascontiguousarray(x[0][:, ::-1]), 40, 40), 64, 64)
    thumbnails = np.array([thumbnail(s) for s in x])
    mirrors = mirrored(thumbnails)
    assert near_groups(thumbnails, [None] * 6) == [None] * 6
    assert near_groups(thumbnails, [None] * 6, mirrors) == [0, 1, None, None, 1, 0]
    strangers = near_groups(thumbnails, list("abcdef"), mirrors)
    assert strangers == [0, 1, None, None, 1, 0]  # copies, whoever they are said to show
    tested = thumbnails[[4]], mirrors[[4]]
    assert near_any(thumbnails, *tested).tolist() == [i in (1, 4) for i in range(6)]


def test_it_may_be_stopped() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        near_groups(np.eye(4, dtype=np.float32), [None] * 4, None, stop)


def test_real_mirrored_copies(real_data) -> None:
    """Two pairs of mirrored copies of one group each, which nothing else ties together."""
    from fastmrigan.imaging.geometry import fit_square
    from fastmrigan.imaging.grading import grade, measure, parse_rule
    from fastmrigan.imaging.readers import read

    root = real_data("t2-tumour-nontumour/nontumour")
    thumbnails = []
    for name in ("0009", "0014", "0008", "0013"):
        raw = read(root / f"br35h_{name}.jpg", name).slices
        graded = grade(raw[0], measure(raw, parse_rule("percentile")))
        thumbnails.append(thumbnail(fit_square(graded, 64)))
    table = np.array(thumbnails)
    assert near_groups(table, [None] * 4) == [None] * 4
    assert near_groups(table, [None] * 4, mirrored(table)) == [0, 0, 1, 1]
