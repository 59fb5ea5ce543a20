"""What is done about shards and inputs that the processes which work on them die of.

A shard that was in hand when a process died is made again, alone. Where that ends a second one, its
inputs are tried in ever smaller pieces until the one is known that ends processes; it is
quarantined, and the job goes on without it. Who hands out the work asks here what to make alone and
what to try, and tells of the deaths.
"""

from __future__ import annotations

from collections import deque

from fastmrigan.errors import ModelRefused
from fastmrigan.jobs import quarantine
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Shard, Sources
from fastmrigan.jobs.search import Search, indices


class Casualty(Exception):
    """Processes that died of what cannot be made up for."""

    def refusal(self, output: Output, count: int, done: int) -> ModelRefused:
        """What the job ends with. done: slices, of `count`."""
        return ModelRefused(
            f"{output.out}: {self}; {done:,} of {count:,} slices are safe, and the same command "
            "goes on from there"
        )


class Inquest:
    """What a job knows of its deaths.

    sources: of the job; without them no input can be left out. skipped: inputs that are left out
    (index: why); those that are quarantined are added.
    """

    def __init__(self, output: Output, sources: Sources | None, skipped: dict[int, str]) -> None:
        self.output, self.sources, self.skipped = output, sources, skipped
        self.suspects: deque[Shard] = deque()  # in hand when a process died: next time alone
        self.searches: deque[Search] = deque()
        self._innocent: set[Shard] = set()  # all of whose inputs were survived

    def skipped_in(self, shard: Shard) -> dict[int, str]:
        """The inputs of a shard that are left out."""
        within = indices(shard)
        return {index: why for index, why in self.skipped.items() if index in within}

    def died_alone(self, shard: Shard, how: str, batch: int | list[int]) -> None:
        """A process died that made `shard`, and nothing beside it: its inputs are to be searched.

        batch: slices of an engine call, which are tried together, as run.json has them. Raises
        Casualty where no input is to blame.
        """
        if self.sources is None or shard in self._innocent:
            raise past_help(shard, how)
        size = max(batch) if isinstance(batch, list) else int(batch)
        self.searches.append(Search(shard, size))

    def died_in(self, search: Search, how: str) -> int | None:
        """A process died in a search: the index of the input that is quarantined for it, once it is
        known. Raises Casualty where no input is to blame, OSError and DiskFull."""
        if search.control:
            raise past_help(search.shard, how)
        index = search.died()
        if index is None or index in self.skipped:
            self._go_on(search)
            return None
        assert self.sources is not None
        reason = f"ends the process that works on it ({how})"
        quarantine.add(self.output.out, index, self.sources.source[index], reason)
        self.skipped[index] = reason
        search.found += 1
        self._go_on(search)
        return index

    def survived(self, search: Search) -> None:
        """A process lived through what a search had it try."""
        search.survived()
        self._go_on(search)

    def _go_on(self, search: Search) -> None:
        if search.pieces:
            self.searches.appendleft(search)
            return
        if not search.found:
            self._innocent.add(search.shard)
        self.suspects.append(search.shard)


def past_help(shard: Shard, how: str) -> Casualty:
    return Casualty(
        f"slices {shard.first:,} to {shard.first + shard.count - 1:,} end every worker that makes "
        f"them ({how}): take another --backend or --batch"
    )
