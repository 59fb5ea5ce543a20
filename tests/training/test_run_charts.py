"""The curves of run.html hold the numbers of metrics.jsonl."""

import json
import re

import numpy as np
import pytest

from fastmrigan.pages.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from fastmrigan.training.run_charts import POINTS, curves, in_parts
from fastmrigan.training.run_files import read_columns


@pytest.fixture
def drawn(tmp_path):
    """The charts of rows, as HTML."""

    def draw(rows):
        path = tmp_path / "metrics.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return curves(read_columns(path, []))

    return draw


def row(step, **more):
    return {"step": step, "epoch": step / 10, "loss_d": 1.0, "loss_g": 2.0} | more


def labels(html):
    return re.findall(r'aria-label="([^"]*)"', html)


def polylines(html, label):
    """Points [n, 2] in the SVG's own units of each line of the chart whose label begins so."""
    for chart in re.findall(r"<svg.*?</svg>", html, re.S):
        if f'aria-label="{label}' in chart:
            return [
                np.array([[float(v) for v in pair.split(",")] for pair in points.split()])
                for points in re.findall(r'<polyline[^>]* points="([^"]*)"', chart)
            ]
    raise AssertionError(f"no chart {label}")


def test_curves_are_the_numbers_of_the_metrics(drawn):
    html = drawn([row(s, loss_d=s / 10, loss_cycle=-s, d_real_accuracy=0.5) for s in (2, 5, 10)])
    losses = polylines(html, "loss by step: loss_d, loss_g")
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    x = LEFT + np.array([0.2, 0.5, 1.0]) * width
    for line, values in zip(losses, ([0.2, 0.5, 1.0], [2.0, 2.0, 2.0]), strict=True):
        y = HEIGHT - BOTTOM - np.array(values) / 2 * height  # the axis goes from 0 to 2
        np.testing.assert_allclose(line, np.stack([x, y], axis=1), atol=0.051)
    below = polylines(html, "loss by step: loss_cycle")[0]  # an axis from -10 to 0
    np.testing.assert_allclose(
        below[:, 1], TOP + np.array([0.2, 0.5, 1.0]) * height, atol=0.02 * height
    )
    accuracy = polylines(html, "share by step: d_real_accuracy")[0]
    np.testing.assert_allclose(accuracy[:, 1], HEIGHT - BOTTOM - 0.5 * height, atol=0.051)


def test_long_runs_are_averaged_and_gaps_are_left_out(drawn):
    rows = [row(s, loss_d=s % 2) for s in range(1, 4801)]
    rows[100]["loss_d"] = float("nan")
    for r in rows[2400:]:
        r["alpha"] = 1.0  # a column that begins in the middle
    html = drawn(rows)
    losses = polylines(html, "loss by step: loss_d, loss_g")
    assert [len(line) for line in losses] == [POINTS, POINTS]
    assert np.isfinite(np.concatenate(losses)).all()
    middle = HEIGHT - BOTTOM - 0.25 * (HEIGHT - TOP - BOTTOM)  # 0.5 on an axis to 2
    np.testing.assert_allclose(losses[0][:, 1], middle, atol=5)
    assert polylines(html, "alpha by step")[0][0, 0] > (LEFT + WIDTH - RIGHT) / 2
    assert "left out are 1 values that are not finite" in html


def test_every_column_has_its_chart_but_the_timers(drawn):
    """The columns of a CycleGAN, each kind of loss in a chart of its own."""
    names = ["loss_g_target", "loss_g_source", "loss_cycle_target", "loss_cycle_source"]
    more = dict.fromkeys([*names, "d_real_accuracy", "d_spread", "lr_g"], 0.5)
    html = drawn([row(1, **more, seconds=2.0, data_seconds=1.0)])
    assert labels(html) == [
        "loss by step: loss_d, loss_g",
        "loss by step: loss_g_target, loss_g_source",
        "loss by step: loss_cycle_target, loss_cycle_source",
        "share by step: d_real_accuracy",
        "d_spread by step: d_spread",
        "learning rate (1e-4) by step: lr_g",
    ]


@pytest.mark.parametrize("lengths", [[6] * 9, [60, 60], [22, 22, 22, 22], [30, 5, 5, 5, 5, 5, 5]])
def test_a_legend_stays_inside_its_chart(lengths):
    keys = [str(i) * length for i, length in enumerate(lengths)]
    parts = in_parts(keys)
    assert [key for part in parts for key in part] == keys
    for part in parts:
        assert len(part) <= 6
        assert len(part) == 1 or LEFT + sum(35 + 7.2 * len(key) for key in part) <= WIDTH


def test_nothing_to_draw(drawn):
    assert "No step has been written down yet" in drawn([])
