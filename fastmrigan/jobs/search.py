"""The search for the inputs of a shard that end the processes which work on them."""

from __future__ import annotations

from collections import deque

from fastmrigan.jobs.messages import Try
from fastmrigan.jobs.plan import Shard


class Search:
    """Tries pieces of a shard on workers, one at a time: its engine calls, then single inputs of
    those that ended a worker.

    What is tried first is a call of black slices: where that ends a worker too, no input is to
    blame. size: slices of an engine call.
    """

    def __init__(self, shard: Shard, size: int) -> None:
        self.shard = shard
        self.pieces = deque(cut(shard, size if shard.count > size else 1))
        self.control = True  # all that is tried is black
        self.found = 0

    def next_try(self, skipped: dict[int, str]) -> Try:
        piece = self.pieces[0]
        return Try(piece, dict.fromkeys(indices(piece), "black") if self.control else skipped)

    def survived(self) -> None:
        if self.control:
            self.control = False
        else:
            self.pieces.popleft()

    def died(self) -> int | None:
        """Closes in on what ended a worker; the index of an input, once it is one."""
        piece = self.pieces.popleft()
        if piece.count == 1:
            return piece.first
        self.pieces.extendleft(reversed(cut(piece, 1)))
        return None


def indices(shard: Shard) -> range:
    return range(shard.first, shard.first + shard.count)


def cut(shard: Shard, size: int) -> list[Shard]:
    """Its slices, `size` at a time."""
    end = shard.first + shard.count
    return [
        Shard(shard.number, first, min(size, end - first))
        for first in range(shard.first, end, size)
    ]
