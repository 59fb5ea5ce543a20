"""What the decode pool costs: small and large files read in workers, and in this process.

Run: OMP_NUM_THREADS=1 python benchmarks/decode_pool.py [--workers 2] [--quick]
Checks first that both give the same slices, then reads the same folder by turns: with
`readers.read` in this process, and in a pool whose workers have started. The limit is what one
process does times the number of workers.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from timing import interleave, ratio

from fastmrigan.imaging.pool import DecodePool
from fastmrigan.imaging.readers import ReadImage, read
from fastmrigan.imaging.walker import Refused

SIZES = {64: 2000, 256: 1000, 1024: 60}  # side of a PNG of 8 bits: files of that size


def made(folder: Path, side: int, count: int) -> list[tuple[str, tuple[Path, str]]]:
    """Noise, which no PNG can shrink; the tasks that read it."""
    rng = np.random.default_rng(side)
    tasks = []
    for i in range(count):
        path = folder / f"{side}-{i}.png"
        Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(path)
        tasks.append((path.name, (path, path.name)))
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few files, for function alone")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {options.workers} workers")
    with tempfile.TemporaryDirectory() as folder, DecodePool(read, workers=options.workers) as pool:
        began = time.perf_counter()
        list(pool.run(made(Path(folder), 32, 1)))
        print(f"a worker's start: {time.perf_counter() - began:.2f} s (bar 0.5)")
        for side, count in SIZES.items():
            count = count // 20 if options.quick else count
            tasks = made(Path(folder), side, count)

            def alone(tasks: list[tuple[str, tuple[Path, str]]] = tasks) -> list[ReadImage]:
                return [read(*args) for _, args in tasks]

            def pooled(
                tasks: list[tuple[str, tuple[Path, str]]] = tasks,
            ) -> list[ReadImage | Refused]:
                return list(pool.run(tasks))

            for one, other in zip(alone(), pooled(), strict=True):
                assert not isinstance(other, Refused), other
                np.testing.assert_array_equal(one.slices, other.slices)
            sides: dict[str, Callable[[], object]] = {"alone": alone, "pool": pooled}
            seconds = interleave(sides, 25, budget=2.0 if options.quick else 30.0)
            rates = {name: count / statistics.median(times) for name, times in seconds.items()}
            faster = ratio(seconds["alone"], seconds["pool"])
            print(
                f"{side}x{side}: this process {rates['alone']:,.0f} files/s, pool "
                f"{rates['pool']:,.0f} files/s: {faster} (bar 1, limit {options.workers})"
            )


if __name__ == "__main__":
    main()
