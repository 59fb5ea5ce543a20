"""SSIM, PSNR and MAE of 64 pairs of 256x256 in one pass, against scikit-image and pytorch-msssim.

    python benchmarks/ssim.py [--quick] [--threads 2] [--json FILE]
    python benchmarks/ssim.py --device cuda      (ssim_cuda.py: see there)

On all cores that PyTorch uses unless --threads says otherwise. Every side is first held against
float64; then the sides take turns in many rounds. Ours makes all three figures, the peers SSIM
alone.

    scikit-image    structural_similarity pair by pair, as evaluation code calls it: at least 25x
    pytorch-msssim  ssim of the whole batch at once, on as many threads: at least 80x
    64 pairs in at most 8 ms

Beside them stands what limits it: a copy of the two batches (memory: ours reads what the copy
reads), and a matrix product of PyTorch (arithmetic: its rate, against ours by the kernel's count of
operations). Slices inside a mask are shown without a bar. Exits 6 where a result is wrong or a bar
is missed, 2 where a peer is not installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from json_file import add_json_option, write_json
from timing import interleave, ratio, summary

from fastmrigan import _core
from fastmrigan.metrics.similarity import compare
from fastmrigan.runtime.machine import processor

PAIRS, SIZE, DATA_RANGE = 64, 256, 2.0
BARS = {"scikit-image": 25.0, "pytorch-msssim": 80.0}
MOST_MS = 8.0
# Of a pixel, with four rows of windows made together (csrc/ssim/ssim_math.h): of its column 14 rows
# of deviations, P, M and their squares for four windows, 11 taps of multiply and add for each of
# four sums; of the window 10 taps of one difference and three multiply-adds for P and for M; what
# makes SSIM of them; in double the two differences.
FLOPS_A_PIXEL = 14 * 6 / 4 + 11 * 4 * 2 + 8 + 10 * 7 * 2 + 24 + 4
PEERS = ("scikit-image", "pytorch-msssim", "torch")


def slices(count: int, size: int = SIZE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that look like heads on black: float32 [count, size, size] in [-1, 1] each."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radii = draws.uniform(0.6, 0.9, (count, 1, 1))
    texture = 0.3 * np.sin(draws.uniform(5, 20, radii.shape) * x + draws.uniform(0, 6, radii.shape))
    a = np.where(np.hypot(x, y) < radii, texture + 0.1, -1.0)
    b = np.where(a > -1, a + 0.1 * draws.standard_normal(a.shape), a)
    return a.clip(-1, 1).astype(np.float32), b.clip(-1, 1).astype(np.float32)


def scikit_image(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return np.array(
        [
            structural_similarity(x, y, data_range=DATA_RANGE, **options)
            for x, y in zip(a, b, strict=True)
        ]
    )


def pytorch_msssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    import pytorch_msssim as peer

    x, y = (torch.from_numpy(s).unsqueeze(1) for s in (a, b))  # [N, 1, H, W]
    return peer.ssim(x, y, data_range=DATA_RANGE, size_average=False).numpy()


def check(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> list[str]:
    """What is wrong, one line each. float32 costs the peers more than us: hence their tolerance."""
    wrong = []

    def near(what: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
        off = np.abs(found - expected).max()
        if not off <= tolerance:
            wrong.append(f"{what}: off by {off:.2e}, allowed {tolerance:.0e}")

    x, y = a.astype(np.float64), b.astype(np.float64)
    found, expected = compare(a, b, DATA_RANGE), scikit_image(x, y)
    near("ours, SSIM", found.ssim, expected, 5e-6)
    near("ours, PSNR", found.psnr, 10 * np.log10(4 / ((x - y) ** 2).mean((1, 2))), 1e-9)
    near("ours, MAE", found.mae, np.abs(x - y).mean((1, 2)), 1e-12)
    inside = compare(a, b, DATA_RANGE, mask)
    means = np.array([np.abs(p)[m].mean() for p, m in zip(x - y, mask, strict=True)])
    near("ours in a mask, MAE", inside.mae, means, 1e-12)
    near("scikit-image", scikit_image(a, b), expected, 1e-4)
    near("pytorch-msssim", pytorch_msssim(a, b), expected, 1e-3)
    return wrong


def sides_of(
    a: np.ndarray, b: np.ndarray, mask: np.ndarray
) -> tuple[dict[str, Callable[[], object]], int]:
    """What is timed, and how many operations the matrix product takes."""
    copies = [torch.from_numpy(np.empty_like(s)) for s in (a, b)]
    originals = [torch.from_numpy(s) for s in (a, b)]
    n = 1024
    left, right, out = (torch.randn(n, n) for _ in range(3))

    def copy() -> None:
        for to, of in zip(copies, originals, strict=True):
            to.copy_(of)

    sides = {
        "ours": partial(compare, a, b, DATA_RANGE),
        "ours in a mask": partial(compare, a, b, DATA_RANGE, mask),
        "scikit-image": partial(scikit_image, a, b),
        "pytorch-msssim": partial(pytorch_msssim, a, b),
        "copy": copy,
        "matrix product": partial(torch.mm, left, right, out=out),
    }
    return sides, 2 * n**3


def on_cpu(options: argparse.Namespace) -> int:
    try:
        versions = {name: importlib.metadata.version(name) for name in PEERS}
    except importlib.metadata.PackageNotFoundError as absent:
        print(f"ssim: {absent.name} is not installed: pip install --no-deps {absent.name}")
        return 2
    torch.set_num_threads(options.threads or torch.get_num_threads())
    machine = {"cpu": processor(), "threads": torch.get_num_threads(), "isa": _core.isa()}
    machine |= versions
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    a, b = slices(PAIRS)
    mask = a > -1
    document: dict[str, object] = {"benchmark": "ssim", "machine": machine}
    document |= {"pairs": PAIRS, "size": SIZE, "wrong": check(a, b, mask)}
    if document["wrong"]:
        print("WRONG RESULT, not timed: " + "; ".join(document["wrong"]))
        write_json(options.json, document)
        return 6
    sides, product = sides_of(a, b, mask)
    rounds, budget = (9, 5) if options.quick else (25, 60)
    seconds = interleave(sides, rounds, budget=budget, turn=2e-2)
    times = summary(seconds)
    for name, time in times.items():
        print(f"{name:15} {time['median_ms']:9.3f} ms (min {time['min_ms']:.3f})")
    missed = []
    document |= {"rounds": len(seconds["ours"]), "times": times, "ratios": {}}
    for name, bar in BARS.items():
        found = ratio(seconds[name], seconds["ours"])
        met = found.of_medians >= bar
        missed += [] if met else [name]
        document["ratios"][name] = {**vars(found), "bar": bar, "met": met}
        print(f"{name} / ours {found}, at least {bar:.0f}x: {'met' if met else 'MISSED'}")
    ours = times["ours"]["median_ms"]
    met = ours <= MOST_MS
    missed += [] if met else ["milliseconds"]
    print(f"{PAIRS} pairs in {ours:.2f} ms, at most {MOST_MS:.0f}: {'met' if met else 'MISSED'}")
    document["limits"] = limits = {
        "bytes": a.nbytes + b.nbytes,
        "read_gb_per_s": (a.nbytes + b.nbytes) / ours / 1e6,
        "copy_read_gb_per_s": (a.nbytes + b.nbytes) / times["copy"]["median_ms"] / 1e6,
        "flops_a_pixel": FLOPS_A_PIXEL,
        "gflops": FLOPS_A_PIXEL * a.size / ours / 1e6,
        "product_gflops": product / times["matrix product"]["median_ms"] / 1e6,
    }
    print(
        f"memory: reads {limits['bytes'] / 1e6:.1f} MB at {limits['read_gb_per_s']:.1f} GB/s; a "
        f"copy reads at {limits['copy_read_gb_per_s']:.1f} while it writes as much"
    )
    print(
        f"arithmetic: {FLOPS_A_PIXEL:.0f} operations a pixel, {limits['gflops']:.0f} of "
        f"{limits['product_gflops']:.0f} GFLOP/s of a matrix product "
        f"({100 * limits['gflops'] / limits['product_gflops']:.0f} %)"
    )
    document["missed"] = missed
    write_json(options.json, document)
    return 6 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    add_json_option(parser)
    parser.add_argument("--threads", type=int, help="CPU: default, all that PyTorch uses")
    options = parser.parse_args()
    if options.device == "cuda":
        if not torch.cuda.is_available():
            print("ssim: no CUDA device: run on a GPU machine, or --device cpu", flush=True)
            return 2
        from ssim_cuda import on_cuda

        return on_cuda(options)
    return on_cpu(options)


if __name__ == "__main__":
    sys.exit(main())
