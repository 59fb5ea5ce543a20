"""What watches over a run: collapse, roll-backs and the best evaluation, with their memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastmrigan.training.evaluation import Best
from fastmrigan.training.guards import CollapseGuard, Rollback, not_finite
from fastmrigan.training.systems import System


class Watch:
    def __init__(self, system: System) -> None:
        guards = system.recipe.guards
        self.rollback = Rollback(guards.then, guards.rollbacks)
        metric = system.recipe.best_metric
        self.best = None if metric is None else Best(metric)
        self.collapse: dict[str, CollapseGuard] = {}  # by the ending of a discriminator's columns
        if guards.collapse_steps is not None:
            kind: Any = "wgan-gp" if system.recipe.system == "progan" else "log"
            self.collapse = {
                ending: CollapseGuard(guards.collapse_steps, kind, name)
                for ending, name in system.judges.items()
            }

    def fault(self, row: Mapping[str, Any]) -> str | None:
        """Why the run cannot go on after this step, in one line; steps must be told in order."""
        found = not_finite(row)
        for ending, guard in self.collapse.items():
            said = guard.told(
                real_accuracy=row.get(f"d_real_accuracy{ending}", 0.0),
                fake_accuracy=row.get(f"d_fake_accuracy{ending}", 0.0),
                loss=row[f"loss_d{ending}"],
                spread=row.get(f"d_spread{ending}"),
            )
            found = found or said
        return found

    def forget(self) -> None:
        """After a roll-back the steps in a row are counted from nothing."""
        for guard in self.collapse.values():
            guard.forget()

    @property
    def best_step(self) -> int | None:
        return None if self.best is None else self.best.step

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "rollback": self.rollback.state(),
            "collapse": {ending: guard.state() for ending, guard in self.collapse.items()},
            "best": None if self.best is None else self.best.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.rollback.load(state["rollback"])
        for ending, guard in self.collapse.items():
            if ending in state["collapse"]:
                guard.load(state["collapse"][ending])
        if self.best is not None and state["best"] is not None:
            self.best.load(state["best"])
