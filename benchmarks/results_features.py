"""How near translations come in features that they were not trained by.

    python benchmarks/results_features.py SET --slices FOLDER [--json FILE]

SET: the prepared set of `results_of.py t2-tumour-cyclegan-improved`; FOLDER: its translations of
the training split. That recipe holds translations to the features of random networks
(losses.transport), and fd-random is taken on another network of that kind, so that it may flatter.
Each row, which is the normals as they are, the same by one curve of greys, and FOLDER's slices, is
therefore also judged

    others     by --draws further networks of the kind: what is left of the normals' distance, the
               median and the range
    radiomic   by fd-radiomic: intensities, co-occurrence and run lengths inside the brain, which
               have no network

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
from results_limits import Rows, Slices, arguments, on_quantiles, two_classes
from timing import write_json

from fastmrigan.errors import UsageError
from fastmrigan.metrics.features import draw_weights, embed, random_features
from fastmrigan.metrics.frechet import frechet
from fastmrigan.metrics.radiomics import radiomic_features
from fastmrigan.metrics.slice_sets import read_slice_set
from fastmrigan.runtime.machine import machine

CHUNK = 32  # slices a call


class Distances(NamedTuple):
    fd_random: float
    others: tuple[float, ...]  # by each further network
    radiomic: float


def by_network(slices: Slices, seed: int) -> Rows:
    """Features [N, 464] by the random network of a seed."""
    weights = draw_weights(np.random.RandomState(seed))
    with torch.inference_mode():
        parts = [embed(part, weights) for part in torch.from_numpy(slices)[:, None].split(CHUNK)]
    return torch.cat(parts).numpy()


def distances(slices: Slices, real: Slices, networks: int) -> Distances:
    def by(features: Callable[[Slices], Rows]) -> float:
        return frechet(features(slices), features(real)).distance

    return Distances(
        by(lambda side: random_features(side, shown=False)),
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
    rows = {
        "untranslated": normals.train,
        "one curve": on_quantiles(normals.train, normals.train, tumours.train),
        "translated": made,
    }
    document = {
        "benchmark": "results_features",
        "machine": machine(),
        "normals": len(normals.train),
        "tumours": len(tumours.slices),
        "rows": {},
    }
    print(f"{len(made)} slices against {len(tumours.slices)} tumour slices; left: % of the first's")
    print(f"{'':14}{'fd-random':>11}{'left':>6}{'others, left':>22}{'radiomic':>10}{'left':>6}")
    first = None
    for name, slices in rows.items():
        found = distances(slices, tumours.slices, options.draws)
        first = first or found
        left = Distances(
            *((100 * np.divide(*both)).tolist() for both in zip(found, first, strict=True))
        )
        document["rows"][name] = found._asdict() | {"left": left._asdict()}
        others = np.sort(left.others)
        spread = f"{np.median(others):.0f} ({others[0]:.0f} to {others[-1]:.0f})"
        print(
            f"{name:14}{found.fd_random:11.4f}{left.fd_random:6.0f}{spread:>22}"
            f"{found.radiomic:10.1f}{left.radiomic:6.0f}"
        )
        write_json(options.json, document)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument(
        "--slices", type=Path, required=True, help="translations of the training split's normals"
    )
    return in_one_line(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
