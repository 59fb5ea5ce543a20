"""The exact Frechet distance against pytorch-fid, torch-fidelity and torchmetrics at d = 2048.

    python benchmarks/frechet.py [--quick] [--only few …] [--rounds 3] [--threads 2] [--json FILE]
    python benchmarks/frechet.py --device cuda      (frechet_cuda.py: see there)

Every row checks our result against float64 by another way (NumPy's QR of all rows, then NumPy's
SVD) to 1e-8, and times the sides in turn; a peer takes seconds, so the rounds are few and our side
takes more calls in each. The peers' own functions run on statistics as they make them; where a row
goes from features, the time that takes is theirs as well. Bars, as ratios of medians:

    few          660 x 660 from features, the peers from ready statistics: at least 200x
                 pytorch-fid's calculate_frechet_distance, 70x torch-fidelity
    covariances  5,000 and 10,000 rows, all sides from mu and sigma: at least 25x and 10x
    features     the same from features, against pytorch-fid: at least 15x at 5,000, 10x at 10,000
    memory       1,000,000 rows of 2,048 streamed in a process of its own: a peak below 300 MB

torchmetrics is shown without a bar. Features have variances that fall like 1, 1/2, 1/3, … along
random axes. The process keeps freed memory, as `evaluate` does. --quick takes d = 256 and fewer
rows, checks results and holds no bars. The peers come from requirements-peers.txt. Exits 6 where a
result is wrong or a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import frechet_peers
import numpy as np
import numpy.typing as npt
import torch
from instance_norm_sides import describe_cpu
from json_file import add_json_option, write_json
from timing import ratio, summary

from fastmrigan.metrics import Frechet, frechet
from fastmrigan.metrics.moments import Moments
from fastmrigan.ops import keep_freed_memory

Float32 = npt.NDArray[np.float32]

WRONG = 1e-8  # of our distance; peers lose small eigenvalues and are held to PEER_WRONG
PEER_WRONG = 1e-2
MEMORY_MB = 300


@dataclass(frozen=True)
class Size:
    """The shapes of a run."""

    d: int
    few: int
    many: tuple[int, ...]
    streamed: int


FULL = Size(d=2048, few=660, many=(5000, 10000), streamed=1_000_000)
QUICK = Size(d=256, few=80, many=(600,), streamed=20_000)


@dataclass(frozen=True)
class Row:
    name: str
    ours: Callable[[], Frechet]
    peers: Mapping[str, Callable[[], float]]
    exact: float
    bars: Mapping[str, float] = field(default_factory=dict)


def draw(n: int, d: int, seed: int, scale: float = 1.0) -> Float32:
    """Features [n, d] whose variances fall like 1 / k along random axes, the same for all seeds."""
    axes = np.linalg.qr(np.random.default_rng(99).standard_normal((d, d)))[0]
    spread = scale / np.sqrt(np.arange(1, d + 1))
    rows = np.random.default_rng(seed).standard_normal((n, d)) * spread
    return (rows @ axes + 0.05 * seed).astype(np.float32)


def reference(a: Float32, b: Float32) -> float:
    """By the triangles of both sets' QR factorisations and the SVD of their product, in NumPy."""
    means, triangles, traces = [], [], 0.0
    for x in (a.astype(np.float64), b.astype(np.float64)):
        means.append(x.mean(axis=0))
        rows = (x - means[-1]) / np.sqrt(len(x) - 1)
        traces += np.square(rows).sum()
        triangles.append(np.linalg.qr(rows, mode="r"))
    overlap = np.linalg.svd(triangles[0] @ triangles[1].T, compute_uv=False).sum()
    return float(np.square(means[0] - means[1]).sum() + traces - 2 * overlap)


# The peers sum float32 features into a float32 mean, which is off by 1e-7; where ready statistics
# are compared, all sides get those of float64.
def few_rows(size: Size) -> Iterator[Row]:
    a, b = draw(size.few, size.d, 1), draw(size.few, size.d, 2, 1.1)
    known = [frechet_peers.statistics(x.astype(np.float64)) for x in (a, b)]
    peers = {name: partial(peer, *known) for name, peer in load_peers().items()}
    bars = {"pytorch-fid": 200.0, "torch-fidelity": 70.0}
    yield Row(f"{size.few} x {size.few} features", partial(frechet, a, b), peers,
              reference(a, b), bars)  # fmt: skip


def covariance_rows(size: Size) -> Iterator[Row]:
    for n in size.many:
        a, b = (x.astype(np.float64) for x in (draw(n, size.d, 1), draw(n, size.d, 2, 1.1)))
        known = frechet_peers.statistics(a), frechet_peers.statistics(b)
        moments = [Moments.of_statistics(mu, sigma, n) for mu, sigma in known]
        peers = {name: partial(peer, *known) for name, peer in load_peers().items()}
        bars = {"pytorch-fid": 25.0, "torch-fidelity": 10.0}
        yield Row(f"{n} x {n} covariances", partial(afresh, *moments), peers,
                  reference(a, b), bars)  # fmt: skip


def afresh(a: Moments, b: Moments) -> Frechet:
    for moments in (a, b):
        moments.cache.pop("lower", None)  # the factor of the call before: it is part of the time
    return frechet(a, b)


def feature_rows(size: Size) -> Iterator[Row]:
    for n in size.many:
        a, b = draw(n, size.d, 1), draw(n, size.d, 2, 1.1)
        peers = {name: partial(from_features, peer, a, b) for name, peer in load_peers().items()}
        bars = {"pytorch-fid": 15.0 if n < 10_000 else 10.0}
        yield Row(f"{n} x {n} features", partial(frechet, a, b), peers, reference(a, b), bars)


def from_features(peer: frechet_peers.Distance, a: Float32, b: Float32) -> float:
    return peer(frechet_peers.statistics(a), frechet_peers.statistics(b))


def load_peers() -> dict[str, frechet_peers.Distance]:
    return {name: load() for name, load in frechet_peers.PEERS.items()}


ROWS = {"few": few_rows, "covariances": covariance_rows, "features": feature_rows}


def check(row: Row) -> Frechet:
    """Our result, once held against the reference; the peers' only so far as they are exact."""
    found = row.ours()
    error = abs(found.distance - row.exact)
    assert error <= WRONG, f"{row.name}: off by {error:.1e} from {row.exact}"
    assert error <= found.error_bound + WRONG / 100, (
        f"{row.name}: off by {error:.1e}, beyond its own bound of {found.error_bound:.1e}"
    )
    return found


def take_turns(row: Row, rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each side, one a round; our side takes the time of a few calls."""
    row.ours()
    sides: dict[str, Callable[[], object]] = {"ours": row.ours, **row.peers}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            times = []
            for _ in range(5 if name == "ours" else 1):
                began = time.perf_counter()
                sides[name]()
                times.append(time.perf_counter() - began)
            seconds[name].append(statistics.median(times))
    return seconds


def time_row(row: Row, rounds: int, held: bool) -> dict[str, object]:
    found = check(row)
    error = abs(found.distance - row.exact)
    print(f"{row.name}: {found.method}")
    print(f"    exact {row.exact:.12g}; ours off by {error:.1e}, bound {found.error_bound:.1e}")
    off = {name: abs(peer() - row.exact) for name, peer in row.peers.items()}  # warms them up too
    for name, by in off.items():
        assert by <= PEER_WRONG, f"{row.name}: {name} is off by {by:.1e}: not the same distance"
    seconds = take_turns(row, rounds)
    ratios, met = {}, {}
    for name, times in summary(seconds).items():
        print(f"    {name:15} {times['median_ms']:10.1f} ms (min {times['min_ms']:.1f})", end="")
        if name == "ours":
            print()
            continue
        ratios[name] = ratio(seconds[name], seconds["ours"])
        bar = row.bars.get(name) if held else None
        met[name] = None if bar is None else ratios[name].of_medians >= bar
        verdict = "no bar" if bar is None else f"bar {bar:g}x: {'met' if met[name] else 'MISSED'}"
        print(f", off by {off[name]:.1e}, {ratios[name]} ours, {verdict}", flush=True)
    return {
        "row": row.name,
        "method": found.method,
        "error": error,
        "error_bound": found.error_bound,
        "times": summary(seconds),
        "peer_errors": off,
        "ratios": {name: vars(one) for name, one in ratios.items()},
        "bars": dict(row.bars) if held else {},
        "met": all(one is not False for one in met.values()),
    }


STREAM = """
import re, sys, time
from pathlib import Path
import numpy as np
from fastmrigan.metrics.moments import Moments
rows, d = int(sys.argv[1]), int(sys.argv[2])
chunk = np.random.default_rng(0).standard_normal((1000, d), dtype=np.float32)
moments, began = Moments(), time.perf_counter()
for _ in range(rows // 1000):
    moments.update(chunk)
moments.mean, moments.covariance
# Not getrusage: its peak counts the process this one was started from.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(peak * 1024 / 1e6, time.perf_counter() - began)
"""


def memory(size: Size) -> dict[str, object]:
    command = [sys.executable, "-c", STREAM, str(size.streamed), str(size.d)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, seconds = map(float, done.stdout.split())
    met = peak < MEMORY_MB
    rate = size.streamed * size.d**2 / seconds / 1e9
    print(
        f"memory: {size.streamed:,} rows of {size.d} streamed in {seconds:.1f} s ({rate:.0f} "
        f"GFLOP/s): peak {peak:.0f} MB, at most {MEMORY_MB}: {'met' if met else 'MISSED'}",
        flush=True,
    )
    return {"row": "memory", "rows": size.streamed, "peak_mb": peak, "seconds": seconds, "met": met}


def on_cpu(options: argparse.Namespace) -> int:
    if options.threads:
        torch.set_num_threads(options.threads)
    size = QUICK if options.quick else FULL
    document = {"benchmark": "frechet", "machine": describe_cpu(), "rows": []}
    document["machine"] |= {"numpy": np.__version__, "quick": options.quick}
    print(", ".join(f"{key} {value}" for key, value in document["machine"].items()))
    for name in options.only or [*ROWS, "memory"]:
        if name == "memory":
            document["rows"].append(memory(size))
        else:
            try:
                for row in ROWS[name](size):
                    done = time_row(row, options.rounds, held=not options.quick)
                    document["rows"].append(done)
                    write_json(options.json, document)
            except AssertionError as wrong:
                print(f"{name}: WRONG RESULT, not timed: {wrong}", flush=True)
                document["rows"].append({"row": name, "met": False, "wrong": str(wrong)})
        write_json(options.json, document)
    missed = sum(not row["met"] for row in document["rows"])
    print(f"{missed} missed or wrong of {len(document['rows'])} rows")
    return 6 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes, no bars")
    parser.add_argument("--only", action="append", choices=[*ROWS, "memory"])
    parser.add_argument("--rounds", type=int, default=3, help="at least 2")
    parser.add_argument("--threads", type=int, help="ours; default, all that PyTorch uses")
    add_json_option(parser)
    options = parser.parse_args()
    if options.device == "cuda":
        if not torch.cuda.is_available():
            print("frechet: no CUDA device: run on a GPU machine, or --device cpu", flush=True)
            return 2
        from frechet_cuda import on_cuda

        return on_cuda(options)
    keep_freed_memory()
    return on_cpu(options)


if __name__ == "__main__":
    sys.exit(main())
