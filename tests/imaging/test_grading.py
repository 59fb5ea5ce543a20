from __future__ import annotations

import numpy as np
import pytest

from fastmrigan.errors import UsageError
from fastmrigan.imaging.grading import Grading, GradingRule, grade, measure, parse_rule, ungrade
from fastmrigan.imaging.quantise import to_float, to_uint16


def head(air: int, seed: int = 0) -> np.ndarray:
    """A disc of tissue (100 to 300) in `air` pixels of noise around it, float32 [1, H, W]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-32:32, -32:32]
    tissue = 200 + 100 * np.sin(x / 5) * np.cos(y / 7)
    inner = np.where(x**2 + y**2 < 28**2, tissue, 0)
    return (np.pad(inner, air) + rng.random((64 + 2 * air,) * 2))[None].astype(np.float32)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("percentile", GradingRule("percentile", 0.5, 99.5)),
        ("percentile:1:98", GradingRule("percentile", 1, 98)),
        ("minmax", GradingRule("minmax")),
        ("window:-100:300", GradingRule("window", -100, 300)),
    ],
)
def test_parse(text: str, rule: GradingRule) -> None:
    assert parse_rule(text) == rule


WRONG = """gamma window window:1 window:5:5 window:a:b window:0:inf window:nan:1 window:1:2:3
percentile:-1:99 percentile:1:101 percentile:9:2 minmax:0:1"""


@pytest.mark.parametrize("text", ["", *WRONG.split()])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--grading"):
        parse_rule(text)


@pytest.mark.parametrize("rule", ["percentile", "minmax", "window:20:250"])
def test_inverse_is_within_one_grey_level(rule: str) -> None:
    x = head(10)
    grading = measure(x, parse_rule(rule))
    inside = (x >= grading.low) & (x <= grading.high)
    graded = grade(x, grading)
    assert graded.dtype == np.float32
    assert graded.min() >= -1
    assert graded.max() <= 1
    back = ungrade(to_float(to_uint16(graded)), grading)
    level = (grading.high - grading.low) / 255
    assert np.abs(back - x)[inside].max() < level / 100
    assert inside.mean() > 0.2


def test_eight_bit_values_come_back_exactly() -> None:
    x = np.arange(256, dtype=np.float32).reshape(1, 16, 16)
    grading = measure(x, parse_rule("minmax"))
    np.testing.assert_array_equal(
        np.rint(ungrade(to_float(to_uint16(grade(x, grading))), grading)), x
    )


def test_the_air_around_a_head_does_not_change_its_grading() -> None:
    rule = parse_rule("percentile")
    tight, loose = measure(head(0), rule), measure(head(40), rule)
    assert abs(tight.high - loose.high) < 1.0
    assert abs(tight.low - loose.low) < 1.0
    assert tight.low < 1.0  # air goes to -1, and no dark tissue with it


def test_a_volume_is_graded_as_a_whole() -> None:
    volume = np.concatenate([head(0), head(0) * 0.5])
    assert measure(volume, parse_rule("minmax")).high == volume.max()


@pytest.mark.parametrize(
    ("x", "rule", "reason"),
    [
        (np.pad(np.ones((1, 1, 1)), ((0, 0), (0, 99), (0, 99))) * 0 + 4, "percentile", "one value"),
        (head(0), "window:5000:6000", "outside the window 5000 to 6000"),
        (head(0), "window:-60:-50", "outside the window -60 to -50"),
    ],
)
def test_empty_ranges(x: np.ndarray, rule: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        measure(x.astype(np.float32), parse_rule(rule))


def test_one_bright_pixel_is_a_range() -> None:
    x = np.zeros((1, 64, 64), np.float32)
    x[0, 3, 3] = 100
    grading = measure(x, parse_rule("percentile"))
    assert grading == Grading("percentile", 0.0, 100.0)
