"""One of two processes that train a small model on half a batch each.

python instance_norm_ddp.py RANK STORE OUT writes the gradients of rank 0 to OUT.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from fastmrigan.ops import FusedInstanceNorm2d


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        FusedInstanceNorm2d(6, affine=True, activation="relu", backend="native"),
        nn.Conv2d(6, 6, 3, padding=1),
        FusedInstanceNorm2d(6, affine=True, activation="leaky_relu", backend="native"),
        nn.Conv2d(6, 1, 3, padding=1),
    )


def batch() -> Tensor:
    return torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))  # [N, 1, H, W]


def main(rank: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    model = nn.parallel.DistributedDataParallel(small_model())
    for _ in range(2):  # the second step runs with the buckets that the first one rebuilt
        model.zero_grad()
        model(batch()[2 * rank : 2 * rank + 2]).square().mean().backward()
    if rank == 0:
        torch.save({n: p.grad for n, p in model.module.named_parameters()}, out)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
