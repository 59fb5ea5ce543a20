"""How near translations come to what they were not trained by: other features, other slices.

    python benchmarks/results_features.py SET --slices FOLDER [--json FILE]

SET: the prepared set of `results_of.py t2-tumour-cyclegan-improved`; FOLDER: its translations of
the training split. That recipe holds translations to the features of random networks
(losses.transport), and fd-random is taken on another network of that kind, so that it may flatter.
Each row, which is the normals as they are, the same by one curve of greys, FOLDER's slices, and the
tumour slices trained on, is therefore judged

    fd-random  to all tumour slices, those that were trained on among them
    held out   by fd-random to those held out alone
    others     to all, by --draws further networks of the kind: what is left of the normals'
               distance, the median and the range
    radiomic   to all, by fd-radiomic: intensities, co-occurrence and run lengths inside the brain,
               which have no network

Nothing here is trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from arguments import in_one_line
from json_file import write_json
from results_limits import Rows, Slices, arguments, on_quantiles, two_classes

from fastmrigan.errors import UsageError
from fastmrigan.metrics.features import draw_weights, embed, random_features
from fastmrigan.metrics.frechet import frechet
from fastmrigan.metrics.radiomics import radiomic_features
from fastmrigan.metrics.slice_sets import SliceSet, read_slice_set
from fastmrigan.runtime.machine import machine

CHUNK = 32  # slices a call
WIDTHS = (11, 6, 10, 6, 18, 10, 6)  # of the columns


class Distances(NamedTuple):
    fd_random: float
    held_out: float
    others: tuple[float, ...]  # by each further network
    radiomic: float


def by_network(slices: Slices, seed: int) -> Rows:
    """Features [N, 464] by the random network of a seed."""
    weights = draw_weights(np.random.RandomState(seed))
    with torch.inference_mode():
        parts = [embed(part, weights) for part in torch.from_numpy(slices)[:, None].split(CHUNK)]
    return torch.cat(parts).numpy()


def distances(slices: Slices, real: SliceSet, networks: int) -> Distances:
    def by(features: Callable[[Slices], Rows], others: Slices = real.slices) -> float:
        return frechet(features(slices), features(others)).distance

    def usual(side: Slices) -> Rows:
        return random_features(side, shown=False)

    return Distances(
        by(usual),
        by(usual, real.test),
        tuple(by(lambda side, s=seed: by_network(side, s)) for seed in range(networks)),
        by(lambda side: radiomic_features(side, shown=False)),
    )


def run(options: argparse.Namespace) -> None:
    normals, tumours = two_classes(options.set)
    made = read_slice_set(options.slices).slices
    if made.shape != normals.train.shape:
        raise UsageError(
            f"{options.slices}: holds slices {list(made.shape)}, and the normals trained on are "
            f"{list(normals.train.shape)}; give their translations"
        )
    if len(tumours.test) < 2:
        raise UsageError(f"{options.set}: holds out no tumours; prepare it with --test-fraction")
    rows = {
        "untranslated": normals.train,
        "one curve": on_quantiles(normals.train, normals.train, tumours.train),
        "translated": made,
        "real": tumours.train,
    }
    document = {
        "benchmark": "results_features",
        "machine": machine(),
        "normals": len(normals.train),
        "tumours": len(tumours.slices),
        "rows": {},
    }
    print(
        f"{len(made)} slices against {len(tumours.slices)} of tumours, and the {len(tumours.test)} "
        "of them held out; left: % of the first row's"
    )
    titles = ("fd-random", "left", "held out", "left", "others, left", "radiomic", "left")
    print(" " * 14 + "".join(f"{x:>{w}}" for x, w in zip(titles, WIDTHS, strict=True)))
    first = None
    for name, slices in rows.items():
        found = distances(slices, tumours, options.draws)
        first = first or found
        left = Distances(
            *((100 * np.divide(*both)).tolist() for both in zip(found, first, strict=True))
        )
        document["rows"][name] = found._asdict() | {"left": left._asdict()}
        others = np.sort(left.others)
        spread = f"{np.median(others):.0f} ({others[0]:.0f} to {others[-1]:.0f})"
        told = (
            f"{found.fd_random:.4f}",
            f"{left.fd_random:.0f}",
            f"{found.held_out:.4f}",
            f"{left.held_out:.0f}",
            spread,
            f"{found.radiomic:.1f}",
            f"{left.radiomic:.0f}",
        )
        print(f"{name:14}" + "".join(f"{x:>{w}}" for x, w in zip(told, WIDTHS, strict=True)))
        write_json(options.json, document)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument(
        "--slices", type=Path, required=True, help="translations of the training split's normals"
    )
    return in_one_line(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
