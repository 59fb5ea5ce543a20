"""KID against clean-fid's and torch-fidelity's, on the same features.

    python benchmarks/kid.py [--quick] [--threads 2] [--json FILE]

    whole     the full U-statistic at N = 660, d = 2048, against clean-fid's `kernel_distance` as
              it is called by default (100 subsets of min(N, 1000) rows): at least 50x
    subsets   100 subsets of 1,000 rows at N = 5,000, d = 2048, against both peers' 100 subsets:
              at least 2x each

Each row checks the results first: against the definition in float64, and the peers' means within
three standard errors of their subsets. Then all sides are timed in turn. torch's float64 matrix
product of the same size in the same rounds shows the limit. Exits 6 where a result is wrong or a
bar is missed, 2 where a peer is not installed (see requirements-peers*.txt).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import peers
import torch
from json_file import add_json_option, write_json
from timing import Ratio, ratio, summary

from fastmrigan.metrics.kid import kid, kid_subsets
from fastmrigan.ops import keep_freed_memory
from fastmrigan.runtime.machine import processor

DIMENSION = 2048
SUBSETS, SIZE = 100, 1000
BARS = {"whole": 50.0, "subsets": 2.0}


def feature_sets(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets [count, 2048] like Inception's: not negative, mean about 0.4, correlated."""
    draws = np.random.default_rng(0)
    mixing = draws.normal(0, 0.5, (64, DIMENSION))
    return tuple(
        np.abs(
            draws.normal(0, 1, (count, 64)) @ mixing * 0.1 + draws.normal(shift, 0.4, DIMENSION)
        ).astype(np.float32)
        for shift in (0.0, 0.05)
    )  # type: ignore[return-value]


def clean_fid() -> Callable[..., float]:
    return peers.clean_fid().kernel_distance


def torch_fidelity(a: np.ndarray, b: np.ndarray, size: int, seed: int = 0) -> float:
    """The mean that torch-fidelity gives over SUBSETS subsets of `size` rows."""
    module = peers.torch_fidelity_kid()
    found = module.kid_features_to_metric(
        torch.from_numpy(a),
        torch.from_numpy(b),
        kid_subsets=SUBSETS,
        kid_subset_size=size,
        kid_degree=3,
        kid_gamma=None,
        kid_coef0=1,
        rng_seed=seed,
        verbose=False,
    )
    return found[module.KEY_METRIC_KID_MEAN]


def by_definition(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    within = 0.0
    for z in (x, y):
        k = (z @ z.T / DIMENSION + 1) ** 3
        within += (k.sum() - k.trace()) / (len(z) * (len(z) - 1))
    return within - 2 * float(((x @ y.T / DIMENSION + 1) ** 3).mean())


def product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    """The matrix products of the full statistic, halves where symmetric: no way round them."""
    x, y = (torch.from_numpy(z).double() for z in (a, b))

    def call() -> None:
        x @ y.T
        x[: len(x) // 2] @ x.T
        y[: len(y) // 2] @ y.T

    return call


def rounds_of(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds a call of each side, one a round, after one that warms up; order turned round.

    A side that takes less than a quarter of a second has the median of five calls: the threads of
    the side before still spin in the first.
    """
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            times: list[float] = []
            while not times or (len(times) < 5 and times[0] < 0.25):
                began = time.perf_counter()
                sides[name]()
                times.append(time.perf_counter() - began)
            seconds[name].append(statistics.median(times))
    return seconds


def check(name: str, value: float, expected: float, tolerance: float) -> None:
    if not abs(value - expected) <= tolerance:
        raise AssertionError(f"{name} gives {value:.9g}, expected {expected:.9g} ± {tolerance:.2g}")


def whole(quick: bool) -> tuple[dict[str, Callable[[], object]], int, str]:
    a, b = feature_sets(660)
    expected = by_definition(a, b)
    check("ours", kid(a, b), expected, 1e-8)
    sides: dict[str, Callable[[], object]] = {"ours": partial(kid, a, b)}
    theirs = clean_fid()
    subset = theirs(a, b, num_subsets=1, max_subset_size=SIZE)  # every row, reordered
    check("clean-fid", subset, expected, 1e-4 * abs(expected))
    sides["clean-fid"] = partial(theirs, a, b, num_subsets=SUBSETS, max_subset_size=SIZE)
    sides["products"] = product(a, b)
    return sides, 5 if quick else 11, "N = 660"


def subsets(quick: bool) -> tuple[dict[str, Callable[[], object]], int, str]:
    count, size = (1500, 300) if quick else (5000, SIZE)
    a, b = feature_sets(count)
    expected = by_definition(a, b)
    mean, spread = kid_subsets(a, b, subsets=SUBSETS, size=size)
    error = 3 * spread / SUBSETS**0.5
    check("ours", mean, expected, error)
    sides: dict[str, Callable[[], object]] = {
        "ours": partial(kid_subsets, a, b, subsets=SUBSETS, size=size)
    }
    clean = clean_fid()
    np.random.seed(0)
    check("clean-fid", clean(a, b, SUBSETS, size), expected, 1.5 * error)
    sides["clean-fid"] = partial(clean, a, b, SUBSETS, size)
    check("torch-fidelity", torch_fidelity(a, b, size), expected, 1.5 * error)
    sides["torch-fidelity"] = partial(torch_fidelity, a, b, size)
    sides["products"] = product(a, b)
    return sides, 1 if quick else 3, f"N = {count:,}, {SUBSETS} subsets of {size:,}"


def time_row(name: str, quick: bool) -> dict[str, Any]:
    sides, rounds, what = {"whole": whole, "subsets": subsets}[name](quick)
    seconds = rounds_of(sides, rounds)
    times = summary(seconds)
    parts = [f"{side} {1e-3 * time['median_ms']:.3f} s" for side, time in times.items()]
    print(f"{name:8} {what}, d = {DIMENSION}: {', '.join(parts)}")
    row: dict[str, Any] = {"row": name, "what": what, "rounds": rounds, "times": times}
    row |= {"ratios": {}, "bar": BARS[name], "met": True}
    for peer in ("clean-fid", "torch-fidelity"):
        if peer in seconds:
            found = ratio_of(seconds[peer], seconds["ours"])
            met = found.of_medians >= BARS[name]
            row["ratios"][peer] = vars(found)
            row["met"] &= met
            verdict = f"at least {BARS[name]:g}x: {'met' if met else 'MISSED'}"
            print(f"{'':8} {peer} / ours {found}, {verdict}", flush=True)
    share = statistics.median(seconds["ours"]) / statistics.median(seconds["products"])
    print(f"{'':8} ours / the bare float64 products {share:.2f}", flush=True)
    return row


def ratio_of(slow: list[float], fast: list[float]) -> Ratio:
    if len(slow) == 1:
        return Ratio(*[slow[0] / fast[0]] * 4)
    return ratio(slow, fast)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer rows of features")
    parser.add_argument("--threads", type=int, help="default: all that PyTorch uses")
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    keep_freed_memory()  # as `evaluate` does
    machine = {"cpu": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    document: dict[str, Any] = {"benchmark": "kid", "machine": machine, "rows": []}
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    missed = 0
    for name in BARS:
        try:
            document["rows"].append(time_row(name, options.quick))
        except ImportError as absent:
            print(f"kid: {absent}", file=sys.stderr)
            return 2
        except AssertionError as wrong:
            print(f"{name:8} WRONG RESULT, not timed: {wrong}", flush=True)
            document["rows"].append({"row": name, "met": False, "wrong": str(wrong)})
        missed += document["rows"][-1]["met"] is False
        write_json(options.json, document)
    print(f"{missed} missed or wrong of {len(document['rows'])} rows")
    return 6 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
