"""What the quality gate costs: processor time a slice, of each of its tests.

Run: OMP_NUM_THREADS=1 python benchmarks/gate.py [--sizes 64 128 256] [--train 500 2000 8000]
Checks first, at each size, that the search for copies finds what `find_copies` finds. Then each
test is timed in turn on fresh phantom slices, in rounds; min, median and max a slice are printed.
The search takes longer the more training slices there are, the rest does not.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.phantom import phantom_slices
from fastmrigan.imaging.quantise import to_float, to_uint8
from fastmrigan.imaging.radiomics import radiomic_row
from fastmrigan.jobs.gate import Gate
from fastmrigan.jobs.gate_copies import CopySearch
from fastmrigan.jobs.gate_reference import Outliers

HEADS = 200  # phantoms that stand in for training slices, over and over
MADE = 40  # slices that are judged in a round


def heads(count: int, size: int, seed: int) -> npt.NDArray[np.float32]:
    """Phantom slices in [-1, 1], [count, size, size]."""
    return (2 * phantom_slices(count, size, seed=seed).signals["t2"] - 1).astype(np.float32)


def check(size: int) -> None:
    from fastmrigan.metrics.memorisation import find_copies

    slices = heads(80, size, 3)
    train, held_out, made = slices[:40], slices[40:60], slices[60:]
    search = CopySearch(len(train), lambda i: train[i])
    wanted = find_copies(made, train, held_out, shown=False).score
    np.testing.assert_allclose([search(x)[1] for x in made], wanted, atol=2e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--train", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, NumPy {np.__version__}, one process")
    for size in options.sizes:
        check(size)
        train, made = heads(HEADS, size, 1), to_uint8(heads(MADE, size, 2))
        outliers = Outliers(np.array([radiomic_row(x) for x in train], np.float64))
        searches = {
            count: CopySearch(count, lambda i, train=train: train[i % HEADS])
            for count in options.train
        }
        gate = Gate()
        sides: dict[str, Callable[[npt.NDArray[np.uint8]], object]] = {
            "blank, saturated": gate.verdict,
            "outlier": lambda x, far=outliers: far(radiomic_row(to_float(x))),
            **{
                f"copy, of {count:,}": lambda x, search=search: search(to_float(x))
                for count, search in searches.items()
            },
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, judge in sides.items():
                began = time.process_time()
                for x in made:
                    judge(x)
                seconds[name].append((time.process_time() - began) / MADE)
        for name, found in seconds.items():
            low, middle, high = (1e3 * f(found) for f in (min, np.median, max))
            print(f"{size}x{size} {name}: median {middle:.2f} ms (min {low:.2f}, max {high:.2f})")


if __name__ == "__main__":
    main()
