"""Phantom slices a second: the rate of one process, against the 300/s it must reach.

Run: OMP_NUM_THREADS=1 python benchmarks/phantom.py [--size 64] [--repeats 7]
Checks first that a batch of one gives the same bits as a batch of many, then times fresh slices
(new heads each time, drawing of the heads included) and prints min, median and max,
and the rate a CPU second, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import platform
import time

import numpy as np

from fastmrigan.imaging.phantom import PhantomSettings, phantom_batches, phantom_slices

WANTED = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()

    many = phantom_slices(8, options.size).signals["t2"]
    for i in range(8):
        one = phantom_slices(1, options.size, start=i).signals["t2"]
        np.testing.assert_array_equal(one[0], many[i])

    print(f"{platform.processor() or platform.machine()}, NumPy {np.__version__}, one process")
    for contrasts in (("t2",), ("t1", "t2", "pd", "flair", "ct")):
        rates, seconds = [], []
        for repeat in range(options.repeats):
            settings = PhantomSettings(options.size, contrasts, seed=repeat + 1)
            began, cpu = time.perf_counter(), time.process_time()
            for _ in phantom_batches(options.count, settings):
                pass
            rates.append(options.count / (time.perf_counter() - began))
            seconds.append(time.process_time() - cpu)
        low, middle, high = min(rates), float(np.median(rates)), max(rates)
        print(
            f"{options.size}x{options.size} {'+'.join(contrasts)}: "
            f"median {middle:.0f} slices/s (min {low:.0f}, max {high:.0f}), "
            f"{middle / WANTED:.2f} times the wanted {WANTED:.0f}; "
            f"{options.count / float(np.median(seconds)):.0f} a CPU second"
        )


if __name__ == "__main__":
    main()
