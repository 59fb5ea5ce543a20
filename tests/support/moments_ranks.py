"""What two processes do for tests/metrics/test_moments.py: each sums its rows, then they merge.

python -m torch.distributed.run --standalone --nproc-per-node 2 moments_ranks.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from torch import distributed

from fastmrigan.metrics.moments import Moments


def main(out: Path) -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    draws = np.random.default_rng(0)
    x = draws.standard_normal((500, 33)).astype(np.float32)
    x[300:] += 10
    for kind, mine in {
        "both": (x[:300], x[300:])[rank],  # the ranks' means differ
        "one": (x[:0], x)[rank],  # the first has seen nothing
    }.items():
        whole = Moments().update(mine).merge_ranks()
        whole.save(out / f"{kind}-{rank}.npz")
        if rank == 0:
            np.save(out / f"{kind}.npy", x)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
