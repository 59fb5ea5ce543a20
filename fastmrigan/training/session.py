"""What a run does between its steps: writes down, saves, samples, judges, tells how it stands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastmrigan.errors import UsageError
from fastmrigan.training import checkpoint
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.evaluation import write_figures
from fastmrigan.training.logging import MetricsLog
from fastmrigan.training.plots import plot_losses
from fastmrigan.training.recipe import Recipe
from fastmrigan.training.run_folder import write_run, write_samples
from fastmrigan.training.run_page import write_run_page
from fastmrigan.training.systems import System, system_of
from fastmrigan.training.watch import Watch


@dataclass(frozen=True)
class TrainResult:
    step: int  # where the run stands
    epoch: float
    steps_now: int  # taken by this call
    seconds_now: float  # this call, checkpoints and samples included
    step_seconds: float  # mean of its steps alone; 0 without steps
    elapsed: float  # seconds of training, all sessions of the run together
    phases: dict[str, float]  # seconds of this call's steps by phase (data, generator, …)


class Fault(Exception):
    """Why training cannot go on as it is, in one line."""


class Session:
    """One call's part of a run. Every rank calls every method; the first one writes."""

    log: MetricsLog

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        run: Path,
        device: torch.device,
        ranks: Ranks,
        last_step: int | None,
    ) -> None:
        self.recipe, self.data, self.run = recipe, data, run
        self.device, self.ranks, self.last_step = device, ranks, last_step
        self.system: System = system_of(recipe)(recipe, data, device, ranks)
        self.step = self.first_step = 0
        self.earlier = 0.0  # seconds of training before this call
        self.began = time.monotonic()
        self.rows: list[dict[str, Any]] = []  # steps not yet written down
        self.phases: dict[str, float] = {}
        self.stepping = 0.0  # seconds in training steps alone
        self.saved_step: int | None = None
        self.judged_step: int | None = None
        self.watch = Watch(self.system)
        self.milestones = self.steps_of_epochs(recipe.plot_epochs)
        self.status = "running"
        self.check_evaluation()

    def check_evaluation(self) -> None:
        """UsageError now, and not after the first epochs, where they could not be judged."""
        if self.recipe.evaluate_every is None:
            return
        metric, measured = self.recipe.best_metric, self.system.measured()
        if metric is not None and metric not in measured:
            raise UsageError(
                f"best_metric {metric!r}: not among this run's figures; choose one of "
                + ", ".join(measured)
            )

    def steps_of_epochs(self, epochs: tuple[int, ...]) -> dict[int, int]:
        count, world = self.data.count, self.ranks.world
        return {self.recipe.epoch_end(epoch, count, world): epoch for epoch in epochs}

    @property
    def epoch(self) -> float:
        return self.step * self.recipe.slices_a_step * self.ranks.world / self.data.count

    def restore(self, document: dict[str, Any]) -> None:
        """Puts a checkpoint in place: this call goes on from its step."""
        checkpoint.restore(self.run, document, self.system, self.ranks)
        self.step = self.first_step = self.saved_step = int(document["step"])
        self.earlier = float(document["elapsed"])
        self.watch.load(document["watch"])

    def is_time_to_save(self) -> bool:
        due = self.step % self.recipe.checkpoint_every == 0 or self.step == self.last_step
        return due or self.step in self.milestones

    def flush(self) -> None:
        """Writes the waiting rows down; a Fault at the first that is not finite, or a collapse."""
        if not self.rows:
            return
        with self.system.timer.phase("logging"):
            rows = [self.plain(row) for row in self.rows]
            self.rows = []
            for number, row in enumerate(rows):
                fault = self.watch.fault(row)
                if fault is not None:
                    self.log.write(rows[:number])  # the way there is wanted most
                    raise Fault(fault)
            self.log.write(rows)

    def plain(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as plain numbers, averaged over the ranks."""
        values = torch.tensor([float(value) for value in row.values()], dtype=torch.float64)
        means = self.ranks.mean(values).tolist()
        plain = {key: float(f"{value:.9g}") for key, value in zip(row, means, strict=True)}
        return plain | {"step": int(row["step"])}

    def save(self, *, anew: bool = False) -> None:
        """A checkpoint of this step, unless there is one (anew: that one again); older ones go."""
        self.flush()
        if self.step == self.saved_step and not anew:
            return
        self.check_weights()
        self.ready_to_judge()
        checkpoint.save(
            self.run,
            self.system,
            self.ranks,
            recipe=self.recipe,
            dataset=self.data.info,
            step=self.step,
            elapsed=self.elapsed(),
            watch=self.watch.state(),
        )
        self.saved_step = self.step
        kept = set(self.milestones)
        if self.watch.best_step is not None:
            kept.add(self.watch.best_step)
        if self.ranks.first:
            checkpoint.prune(self.run, keep=self.recipe.keep_checkpoints, milestones=kept)

    def check_weights(self) -> None:
        if self.ranks.any(not self.system.all_finite()):
            raise Fault(f"a weight is no longer finite at step {self.step:,}")

    def sample(self) -> None:
        """A grid of slices to look at, the same ones through the run."""
        if not self.ranks.first:
            return
        self.ready_to_judge()
        write_samples(self.run, self.step, *self.system.grid(self.recipe.sample_count))
        self.page()

    def is_time_to_evaluate(self) -> bool:
        every = self.recipe.evaluate_every
        if every is None:
            return False
        before = self.epoch - self.recipe.slices_a_step * self.ranks.world / self.data.count
        passed = int(self.epoch / every + 1e-9) > int(before / every + 1e-9)
        return passed or self.step == self.last_step

    def evaluate(self, *, due: bool = True) -> None:
        """Figures on held-out slices; a checkpoint where the named one is the best so far.

        due: false at the end of a call that comes before its time; which step is the best must not
        depend on where a call ended.
        """
        self.flush()
        self.check_weights()
        self.ready_to_judge()
        figures = self.system.figures(self.recipe.seed) if self.ranks.first else {}
        figures = self.ranks.gather(figures)[0]
        if self.ranks.first:
            write_figures(self.run, self.step, self.epoch, figures)
            self.log.write_figures(self.step, figures)
        best = self.watch.best
        if due and best is not None and best.take(figures, self.step):
            self.save(anew=True)
        self.page()

    def ready_to_judge(self) -> None:
        """Fits what depends on the weights (batch norm of the averages), once a step at most."""
        if self.judged_step != self.step:
            self.system.ready_to_judge(self.step)
            self.judged_step = self.step

    def plot(self, name: str) -> None:
        self.flush()
        if self.ranks.first:
            title = f"{self.recipe.name}: step {self.step:,}, epoch {self.epoch:,.1f}"
            plot_losses(self.run, self.run / "plots" / name, title=title)

    def page(self) -> None:
        if self.ranks.first:
            write_run_page(self.run)

    def ended(self, status: str) -> None:
        self.status = status
        self.write_facts(status)
        self.page()

    def elapsed(self) -> float:
        return self.earlier + time.monotonic() - self.began

    def seconds_left(self, seconds: float) -> float:
        spent = time.monotonic() - self.began
        by_steps = float("inf")
        if (last := self.last_step) is not None and self.step > self.first_step:
            done = self.system.work(self.first_step, self.step, last)
            by_steps = spent / done * self.system.work(self.step, last, last)
        return max(0.0, min(seconds - spent, by_steps))

    def write_facts(self, status: str) -> None:
        if not self.ranks.first:
            return
        progress = {
            "status": status,
            "recipe": self.recipe.name,
            "step": self.step,
            "epoch": self.epoch,
            "elapsed_seconds": round(self.elapsed(), 1),
            "dataset": self.data.info,
        }
        write_run(self.run, progress, self.system, self.watch.state())

    def result(self) -> TrainResult:
        return TrainResult(
            self.step,
            self.epoch,
            self.step - self.first_step,
            self.elapsed() - self.earlier,
            self.stepping / max(self.step - self.first_step, 1),
            self.elapsed(),
            {phase.removesuffix("_seconds"): spent for phase, spent in self.phases.items()},
        )
