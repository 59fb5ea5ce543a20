"""What is between normal and tumour slices: how near to the latter other means than a network come.

    python benchmarks/results_limits.py SET [--slices FOLDER] [--json FILE]

SET: the prepared set of `results_of.py t2-tumour-cyclegan-improved`; FOLDER: its translations of
the training split. Each row is a set of N slices, as many as there are normals to train on, and its
fd-random to all tumour slices, of which the features' means make so much, their covariances the
rest; and two distances by a part of the features: `what` is there, whichever quadrant it is in, and
`where`, how the last layer's features of a quadrant differ from their mean over all four:

    untranslated   the normals as they are
    one curve      all greys by one curve: 257 pooled quantiles of the normals put on the tumours'
    a curve each   each slice's quantiles put on those of a tumour slice drawn at random
    and moved      one curve, and each head of the size and at the place of a random tumour slice's
    and nudged     one curve, and each slice moved by whole pixels, 2 as a standard deviation
    heads nudged   the same, all slices of a patient moved alike
    and spots      a soft bright spot painted in each head, as oedema glows, and then one curve
    translated     FOLDER's slices

Of random rows the draw whose distance is the median of `--draws`, and the range of all. Nothing
here is trained. What so few patients cost: results_patients.py.
"""

from __future__ import annotations

import argparse
import sys
from argparse import RawTextHelpFormatter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from arguments import in_one_line, positive
from json_file import add_json_option, write_json

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.frechet import frechet
from fastmrigan.metrics.slice_sets import SliceSet, read_slice_set
from fastmrigan.runtime.machine import machine

Slices = npt.NDArray[np.float32]  # [N, H, W] in [-1, 1]
Rows = npt.NDArray[np.float32]  # features [N, d]
Integers = npt.NDArray[np.int64]
KNOTS = np.linspace(0, 1, 257)
AIR = -0.8
LAST = 64  # features of a quadrant in the last layer, the end of a row: [64, 4 quadrants]


class Parts(NamedTuple):
    distance: float
    means: float
    covariances: float
    what: float
    where: float


def on_quantiles(slices: Slices, source: Slices, target: Slices) -> Slices:
    """`slices` by the curve that puts the quantiles of `source` on those of `target`."""
    knots, values = (np.quantile(x, KNOTS) for x in (source, target))
    steps = np.concatenate([[True], np.diff(knots) > 0])  # air: many quantiles of one grey
    return np.interp(slices, knots[steps], values[steps]).astype(np.float32)


def a_curve_each(slices: Slices, tumours: Slices, draws: np.random.Generator) -> Slices:
    chosen = tumours[draws.integers(0, len(tumours), len(slices))]
    return np.stack([on_quantiles(x, x, like) for x, like in zip(slices, chosen, strict=True)])


def head(x: Slices) -> tuple[float, float, float, float]:
    """Of a slice [H, W]: the middle (row, column), the height and the width of what is not air."""
    bounds = []
    for axis in (1, 0):
        within = np.flatnonzero((x > AIR).mean(axis) > 0.02)
        bounds.append((within[0], within[-1] + 1) if len(within) > 1 else (0, x.shape[1 - axis]))
    (top, bottom), (left, right) = bounds
    return (top + bottom) / 2, (left + right) / 2, bottom - top, right - left


def of_size_and_place(slices: Slices, tumours: Slices, draws: np.random.Generator) -> Slices:
    """Each head moved to the middle, and scaled to the area, of one of `tumours` at random."""
    size = slices.shape[-1]
    grids = []
    for x, like in zip(slices, draws.integers(0, len(tumours), len(slices)), strict=True):
        (row, column, height, width), wanted = head(x), head(tumours[like])
        scale = (height * width / (wanted[2] * wanted[3])) ** 0.5  # pixels of x to one of the new
        centres = np.arange(size) + 0.5
        rows = (centres - wanted[0]) * scale + row
        columns = (centres - wanted[1]) * scale + column
        grids.append(np.stack(np.meshgrid(columns, rows), -1) * 2 / size - 1)  # [H, W, 2]
    grid = torch.from_numpy(np.stack(grids)).float()
    above_air = torch.from_numpy(slices)[:, None] + 1  # [N, 1, H, W]; what lies outside is 0
    moved = F.grid_sample(above_air, grid, align_corners=False) - 1
    return moved[:, 0].numpy()


def nudged(slices: Slices, groups: Integers, draws: np.random.Generator) -> Slices:
    """Each group by whole pixels, down and across, a standard deviation of 2; greys stay."""
    names, group = np.unique(groups, return_inverse=True)
    steps = np.rint(draws.normal(0, 2, (len(names), 2))).astype(int)[group]
    return np.stack([np.roll(x, by, (0, 1)) for x, by in zip(slices, steps, strict=True)])


def with_spots(slices: Slices, draws: np.random.Generator) -> Slices:
    """A spot in each head: within 0.6 of its radii, of a sixteenth to a sixth of its height,
    brighter by 0.2 to 0.8; the air stays."""
    centres = np.arange(slices.shape[-1]) + 0.5
    painted = slices.copy()
    for x in painted:
        row, column, height, width = head(x)
        angle, off = draws.uniform(0, 2 * np.pi), 0.6 * np.sqrt(draws.uniform())
        down = centres - row - off * np.sin(angle) * height / 2
        across = centres - column - off * np.cos(angle) * width / 2
        radius = height * draws.uniform(1 / 16, 1 / 6)
        spot = np.exp(-(down[:, None] ** 2 + across**2) / (2 * radius**2)) * (x > AIR)
        x += draws.uniform(0.2, 0.8) * spot
    return painted.clip(-1, 1)


def what_and_where(features: Rows) -> tuple[Rows, Rows]:
    """An orthogonal split: the squares of a row's two parts sum to its own."""
    quadrants = features[:, -4 * LAST :].reshape(len(features), LAST, 4)
    mean = quadrants.mean(2, keepdims=True)  # [N, 64, 1]
    what = np.concatenate([features[:, : -4 * LAST], 2 * mean[:, :, 0]], 1)
    return what, (quadrants - mean).reshape(len(features), -1)


def two_classes(path: Path) -> tuple[SliceSet, SliceSet]:
    """A prepared set's slices without and with a tumour; all patients are known."""
    labels = [label for label in PreparedDataset.open(path).info.labels if label != "tumour"]
    if len(labels) != 1:
        raise UsageError(f"{path}: has the labels {labels} beside tumour; one other is needed")
    classes = read_slice_set(path, label=labels[0]), read_slice_set(path, label="tumour")
    if any(found.groups is None for found in classes):
        raise UsageError(f"{path}: patients are unknown; prepare it with --groups")
    return classes


def rows_of(
    normals: SliceSet, tumours: SliceSet, made: Slices | None, draws: int
) -> Iterator[tuple[str, list[Parts]]]:
    real = random_features(tumours.slices, shown=False)

    def near(features: Rows) -> Parts:
        whole = frechet(features, real)
        halves = zip(what_and_where(features), what_and_where(real), strict=True)
        parts = (frechet(*both).distance for both in halves)
        return Parts(whole.distance, whole.mean_part, whole.covariance_part, *parts)

    def drawn(rows: Callable[[np.random.Generator], Rows]) -> list[Parts]:
        return [near(rows(np.random.default_rng(seed))) for seed in range(draws)]

    def features(slices: Slices) -> Rows:
        return random_features(slices, shown=False)

    def of_one_curve(slices: Slices) -> Slices:
        return on_quantiles(slices, slices, tumours.train)

    yield "untranslated", [near(features(normals.train))]
    curved = of_one_curve(normals.train)
    yield "one curve", [near(features(curved))]
    yield "a curve each", drawn(lambda by: features(a_curve_each(normals.train, tumours.train, by)))
    yield "and moved", drawn(lambda by: features(of_size_and_place(curved, tumours.train, by)))
    patients = normals.groups[~normals.held_out]
    each = np.arange(len(curved))
    yield "and nudged", drawn(lambda by: features(nudged(curved, each, by)))
    yield "heads nudged", drawn(lambda by: features(nudged(curved, patients, by)))
    yield "and spots", drawn(lambda by: features(of_one_curve(with_spots(normals.train, by))))
    if made is not None:
        yield "translated", [near(features(made))]


def arguments(told: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=told, formatter_class=RawTextHelpFormatter)
    parser.add_argument("set", type=Path, help="prepared with --groups, tumour and one other label")
    parser.add_argument("--draws", type=positive, default=15, help="of what is drawn at random")
    add_json_option(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    normals, tumours = two_classes(options.set)
    made = None if options.slices is None else read_slice_set(options.slices).slices
    document = {
        "benchmark": "results_limits",
        "machine": machine(),
        "normals": len(normals.train),
        "tumours": len(tumours.slices),
        "draws": options.draws,
        "rows": {},
    }
    print(f"{len(normals.train)} normals against {len(tumours.slices)} tumour slices, fd-random")
    print(f"{'':14}" + "".join(f"{part:>13}" for part in Parts._fields))
    for name, found in rows_of(normals, tumours, made, options.draws):
        found.sort()
        parts, least, most = found[len(found) // 2], found[0].distance, found[-1].distance
        document["rows"][name] = parts._asdict() | {"least": least, "most": most}
        print(f"{name:14}" + "".join(f"{part:13.4f}" for part in parts), end="")
        print(f"  ({least:.4f} to {most:.4f})" if least < most else "")
        write_json(options.json, document)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--slices", type=Path, help="translations of the training split's normals")
    return in_one_line(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
