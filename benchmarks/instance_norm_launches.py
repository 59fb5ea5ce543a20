"""How the CUDA benchmark launches a side's calls, times them and looks at what they left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from instance_norm_sides import TOLERANCES, Inputs, near

Call = Callable[[int], object]  # on the tensors of that number


@dataclass
class Turn:
    """One side's calls, launched as a whole; `sets` outputs are kept, `calls` calls are made."""

    call: Call
    sets: int
    calls: int
    launch: str
    kept: deque = field(init=False)
    replay: Callable[[], None] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = deque(maxlen=self.sets)
        self.replay = self.graph() if self.launch == "graph" else self.queue

    def queue(self) -> None:
        for number in range(self.calls):
            self.kept.append(self.call(number % self.sets))

    def graph(self) -> Callable[[], None]:
        """Warms up on a side stream, as capturing asks for, then captures."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for number in range(3):
                self.call(number % self.sets)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.queue()
        while len(self.kept) > 1:  # the graph's pool keeps their memory
            self.kept.popleft()
        return graph.replay

    def check_last(self, exact: bool) -> None:
        """What the last launch left is what a call by itself gives: a graph must not go wrong."""
        alone, last = self.call((self.calls - 1) % self.sets), self.kept[-1]
        pairs = zip(alone, last, strict=True) if isinstance(alone, tuple) else [(alone, last)]
        for one, other in pairs:
            if exact:
                assert torch.equal(one, other), (
                    "a launched call gives other bits than one by itself"
                )
            else:
                tolerance = TOLERANCES[one.dtype].gradient
                near(other.detach(), one.detach().double(), tolerance, "a launched call")


def time_turns(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per call of each side, one a round; the order turns round every second round."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(-2, rounds):
        events = {}
        for name in list(turns)[:: 1 if number % 2 == 0 else -1]:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            if turns[name].launch == "queue":
                torch.cuda.synchronize()
                torch.cuda._sleep(500_000 * turns[name].calls)  # cycles, in which to queue them
            begin.record()
            turns[name].replay()
            end.record()
            events[name] = (begin, end)
        torch.cuda.synchronize()
        if number >= 0:  # the first two warm up
            for name, (begin, end) in events.items():
                found[name].append(begin.elapsed_time(end) / turns[name].calls)
    return found


def check_launches(turns: Mapping[str, Turn], sets: list[Inputs]) -> None:
    """One AssertionError names every side whose last launch went wrong."""
    wrong = []
    for name, turn in turns.items():
        try:
            if name == "copy":
                source = sets[(turn.calls - 1) % turn.sets].x
                assert torch.equal(turn.kept[-1], source), "it is not what was copied"
            else:
                turn.check_last(exact=name == "fused")  # only ours promises the same bits
        except AssertionError as failure:
            wrong.append(f"{name}: {failure}")
    assert not wrong, "; ".join(wrong)
