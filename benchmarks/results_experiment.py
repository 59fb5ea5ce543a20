"""An experiment of results_of.py: commands in their order, and the figures of what they made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from results_figures import Figure


@dataclass(frozen=True)
class Experiment:
    """Commands of fastmrigan in their order, and the figures of what they made."""

    name: str
    title: str
    steps: tuple[str, ...]  # a command each; {data}, {work} and {used} are folders
    figures: Callable[[Path], list[Figure]]
    lay_out: Callable[[Path, Path], None] = lambda data, work: None  # what the commands need there
    uses: str = ""  # RECIPE/EXPERIMENT that is run before, in the folder {used}

    def commands(self, data: Path, work: Path) -> list[list[str]]:
        """Those of the experiment itself. work: its folder; that of the one it uses is beside."""
        places = {"data": data, "work": work, "used": work.parents[1] / self.uses}
        return [[word.format(**places) for word in step.split()] for step in self.steps]
