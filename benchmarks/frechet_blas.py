"""Which library takes each step of the Frechet distance on the CPU: NumPy's and SciPy's OpenBLAS,
or the MKL in PyTorch.

    python benchmarks/frechet_blas.py [--quick] [--coretype SKYLAKEX] [--threads 2]

OpenBLAS wheels choose their kernels by the processor's name and may take a new one for an older;
--coretype sets OPENBLAS_CORETYPE, before NumPy is imported. Sides are timed in turn; what a step
takes in fastmrigan/metrics is marked with a star. Shapes are those of d = 2048.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

Step = tuple[str, dict[str, Callable[[], object]]]


def steps(d: int, few: int, many: int) -> list[Step]:
    import numpy as np
    import scipy.linalg
    import torch
    from scipy.linalg.lapack import dsygst

    from fastmrigan import _core
    from fastmrigan.metrics.overlap import _between

    draws = np.random.default_rng(0)
    x = draws.standard_normal((many, d)).astype(np.float32)
    wide = x.astype(np.float64)
    a, b = wide[:few], wide[few : 2 * few]
    s, other = wide.T @ wide / many, np.eye(d) + wide[:d].T @ wide[:d] / d
    lower = scipy.linalg.cholesky(s, lower=True)
    by_column = np.asfortranarray(lower)
    product = a @ b.T / d
    sums, products, shift = np.zeros(d), np.zeros((d, d)), wide[:256].mean(axis=0)
    t = {k: torch.from_numpy(v) for k, v in dict(
        wide=wide, a=a, b=b, s=s, other=other, product=product).items()}  # fmt: skip
    factor = torch.linalg.cholesky(t["s"])
    return [
        ("product of few rows", {
            "numpy": lambda: a @ b.T,
            "torch*": lambda: t["a"] @ t["b"].mT,
        }),
        ("svdvals of it", {
            "numpy": lambda: np.linalg.svd(product, compute_uv=False),
            "torch*": lambda: torch.linalg.svdvals(t["product"]),
        }),
        ("moments of many rows", {
            "numpy": lambda: wide.T @ wide,
            "torch": lambda: t["wide"].mT @ t["wide"],
            "native*": lambda: _core.moments_update(x, shift, sums, products, 0),
        }),
        ("cholesky", {
            "scipy": lambda: scipy.linalg.cholesky(s.T, check_finite=False),
            "torch*": lambda: torch.linalg.cholesky_ex(t["s"]),
        }),
        ("L' S L", {
            "scipy dsygst": lambda: dsygst(other.T, by_column, itype=2, lower=1),
            "torch, two products": lambda: factor.mT @ (t["other"] @ factor),
            "torch, strips*": lambda: _between(factor, t["other"]),
        }),
        ("eigvalsh", {
            "numpy": lambda: np.linalg.eigvalsh(other),
            "scipy": lambda: scipy.linalg.eigvalsh(other, check_finite=False),
            "torch*": lambda: torch.linalg.eigvalsh(t["other"]),
        }),
        ("QR of many rows", {
            "numpy": lambda: np.linalg.qr(wide, mode="r"),
            "torch*": lambda: torch.linalg.qr(t["wide"], mode="r"),
        }),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="d = 256")
    parser.add_argument("--coretype", help="OPENBLAS_CORETYPE, for instance SKYLAKEX")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.coretype:
        os.environ["OPENBLAS_CORETYPE"] = options.coretype
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)

    from timing import interleave, summary

    for step, sides in steps(*((256, 80, 600) if options.quick else (2048, 660, 5000))):
        times = summary(interleave(sides, 9, budget=10))
        parts = [f"{name} {one['median_ms']:.1f} ms" for name, one in times.items()]
        print(f"{step:22} {', '.join(parts)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
