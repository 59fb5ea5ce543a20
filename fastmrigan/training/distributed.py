"""The processes of one run: `torchrun --nproc-per-node N -m fastmrigan train …`, or this one alone.

Each network has a DistributedDataParallel wrapper of its own, so that a step may run one without
the other. Only the first rank writes. What all must agree on (stop or go on) goes over gloo, beside
the gradients, and needs no device to wait.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastmrigan.errors import FastMriganError, InputRejected, UsageError

T = TypeVar("T")

# What gloo and NCCL say where the process at the other end is gone.
PEER_SIGNS = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
PATIENCE = timedelta(seconds=10)  # for the first rank to end, where another one has ended


@dataclass(frozen=True)
class Ranks:
    """This process among `world` of them."""

    rank: int = 0
    world: int = 1
    local: int = 0  # among those on this machine: the number of its GPU
    control: Any = None  # gloo group for decisions

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, network: nn.Module, *, in_parts: bool = False) -> nn.Module:
        """The network with its gradients averaged over the ranks.

        in_parts: a pass may leave some of its parameters out.
        """
        if self.world == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        # Two passes before one backward: batch norm's buffers must not be overwritten between them.
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options = {name: False, "find_unused_parameters": in_parts}
        return DistributedDataParallel(network, **options)

    def part(self, draws: Tensor) -> Tensor:
        """This rank's part of what was drawn for the whole batch, [world * n, ...] to [n, ...]."""
        return draws.chunk(self.world)[self.rank]

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank; all ranks must ask."""
        if self.world == 1:
            return flag
        up = torch.tensor(int(flag))
        torch.distributed.all_reduce(up, torch.distributed.ReduceOp.MAX, group=self.control)
        return bool(up)

    def together(self, read: Callable[[], T]) -> T:
        """What `read` gives; where it raises InputRejected on one rank, on all; all must ask."""
        fault = None
        try:
            found = read()
        except InputRejected as error:
            fault = str(error)
        if self.any(fault is not None):
            raise InputRejected(next(filter(None, self.gather(fault))))
        return found

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks of a CPU tensor; all ranks must ask."""
        if self.world == 1:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total, group=self.control)
        return total / self.world

    def gather(self, value: Any) -> list[Any]:
        """One value of each rank, on every rank; all ranks must ask."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value, group=self.control)
        return values


@contextlib.contextmanager
def ranks_of_this_run(device: str) -> Iterator[Ranks]:
    """The ranks torchrun started, or this process alone. UsageError where they do not fit.

    Each rank ends with the exit code of its error (torchrun itself knows only 0 and 1); an error
    that all of them meet is printed by the first alone.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda" and local >= torch.cuda.device_count():
        raise UsageError(
            f"rank {rank} asks for CUDA device {local}, this machine has "
            f"{torch.cuda.device_count()}; start fewer processes with --nproc-per-node"
        )
    if device == "cuda":
        torch.cuda.set_device(local)
    store, *_ = next(iter(torch.distributed.rendezvous("env://")))  # type: ignore[attr-defined]
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
    try:
        yield Ranks(rank, world, local, torch.distributed.new_group(backend="gloo"))
    except FastMriganError as error:
        if first_says(store, rank, str(error)):
            sys.stderr = io.StringIO()  # the exit code is told all the same
        raise
    except RuntimeError as error:
        if not any(sign in str(error) for sign in PEER_SIGNS):
            raise
        raise UsageError(
            f"rank {rank}: another process of this run has ended, and its message says why"
        ) from error
    finally:
        torch.distributed.destroy_process_group()


def first_says(store: Any, rank: int, message: str) -> bool:
    """Whether this is another rank than the first, and the first ends with the same message.

    Returns some time after the first has ended: torchrun ends all processes with the first of them
    that does, and it has the run's files to finish and the message to print.
    """
    key = "fastmrigan: the end"
    try:
        if rank == 0:
            store.set(key, message)
            return False
        store.wait([key], PATIENCE)
        alike = store.get(key) == message.encode()
    except RuntimeError:  # the first rank has not ended, or the store is gone with it
        return False
    time.sleep(1.0)
    return bool(alike)
