"""The training loop, from top to bottom."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastmrigan.errors import CheckFailed, FastMriganError, InputRejected, Interrupted, UsageError
from fastmrigan.interrupt import StopSignal
from fastmrigan.progress import Progress
from fastmrigan.training import checkpoint
from fastmrigan.training.augmenting import Batches
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.evaluation import drop_figures_after, write_figures
from fastmrigan.training.guards import out_of_memory, seed_of
from fastmrigan.training.logging import MetricsLog
from fastmrigan.training.plots import plot_losses
from fastmrigan.training.recipe import Recipe
from fastmrigan.training.run_folder import (
    locked,
    resumable,
    write_config,
    write_run,
    write_samples,
)
from fastmrigan.training.run_page import write_run_page
from fastmrigan.training.systems import Batch, Clock, System, system_of
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


def train(
    recipe: Recipe,
    data: TrainingData,
    run: Path,
    *,
    minutes: float | None = None,
    device: str = "cpu",
    resume_command: str = "the same command",
    ranks: Ranks | None = None,
) -> TrainResult:
    """Trains until the first bound (steps, epochs, or `minutes` of this call), resuming `run`.

    Raises UsageError without a bound, for a folder that holds another run and where the memory does
    not suffice, CheckFailed when a loss or a weight is no longer finite or the discriminator has
    collapsed (and the recipe does not roll back), Interrupted after Ctrl-C or SIGTERM, all of it
    saved.
    """
    ranks = ranks or Ranks()
    last_step = recipe.total_steps(data.count, ranks.world)
    if last_step is None and minutes is None:
        raise UsageError(f"{recipe.name}: no bound; give --steps, --epochs or --minutes")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"--minutes {minutes}: expected more than 0")
    with locked(run, ranks), StopSignal() as signal:
        resumed = resumable(run, recipe, data.info, ranks)
        session = Session(recipe, data, run, torch.device(device), ranks, last_step)
        if resumed is not None:
            session.restore(resumed)
        if last_step is not None and session.step >= last_step:
            return session.result()
        with MetricsLog(run, session.step, writes=ranks.first) as session.log:
            if ranks.first:
                write_config(run, recipe)
                drop_figures_after(run, session.step)
            try:
                session.go_on(minutes, signal, resume_command)
            except ValueError as error:
                if "Expected more than 1 value per channel" not in str(error):
                    raise
                raise UsageError(
                    f"{recipe.name}: batch norm has one value a channel to normalise where a layer "
                    f"is 1x1 and the batch {recipe.batch}; take --set batch=2, or another norm or "
                    "fewer layers"
                ) from error
            except (RuntimeError, MemoryError) as error:
                saved = session.saved_step is not None
                advice = out_of_memory(error, recipe.batch, size=recipe.size, resumable=saved)
                if advice is None:
                    raise
                session.ended("stopped: out of memory")
                raise advice from error
            finally:
                if session.status == "running":  # an error that nothing above had a word for
                    with contextlib.suppress(OSError, FastMriganError):
                        session.ended(f"stopped: {type(sys.exception()).__name__}")
        return session.result()


class Session:
    """One call's part of a run. `go_on` is the loop; the rest is what it does at intervals."""

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
        metric = self.recipe.best_metric
        if self.recipe.evaluate_every is None:
            if metric is not None:
                raise UsageError(
                    f"best_metric {metric}: nothing is evaluated; give --set evaluate_every=K, in "
                    "epochs, or best_metric=null"
                )
            return
        measured = self.system.measured()
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
        return self.step * self.recipe.batch * self.ranks.world / self.data.count

    def restore(self, document: dict[str, Any]) -> None:
        """Puts a checkpoint in place: this call goes on from its step."""
        checkpoint.restore(self.run, document, self.system, self.ranks)
        self.step = self.first_step = self.saved_step = int(document["step"])
        self.earlier = float(document["elapsed"])
        self.watch.load(document["watch"])

    def go_on(self, minutes: float | None, signal: StopSignal, resume_command: str) -> None:
        recipe, last_step = self.recipe, self.last_step
        seconds = float("inf") if minutes is None else minutes * 60
        self.write_facts("running")
        if self.step == 0:
            self.sample()
        batches = self.batches()
        total = last_step if last_step is not None else self.step
        with Progress("train", total, "steps", start=self.step, shown=self.ranks.first) as progress:
            while True:  # one step at least, however short the time
                try:
                    self.train_step(batches)
                    if self.step % recipe.log_every == 0:
                        self.flush()
                    if self.step % recipe.sample_every == 0:
                        self.sample()
                    if self.is_time_to_evaluate():
                        self.evaluate()
                    if self.is_time_to_save():
                        self.save()
                except InputRejected:  # a file that could be read before
                    with contextlib.suppress(Fault):  # then the last good checkpoint stands
                        self.save()
                    self.ended("stopped: the data cannot be read")
                    raise
                except Fault as fault:
                    self.go_back(str(fault))
                    batches = self.batches()
                    progress.advance(self.step - progress.done)
                    continue
                if self.step in self.milestones:
                    self.plot(f"loss_epoch_{self.milestones[self.step]}.png")
                progress.advance(seconds_left=self.seconds_left(seconds))
                out_of_time = time.monotonic() - self.began >= seconds
                if self.step == last_step or self.ranks.any(signal.stopped or out_of_time):
                    break
        stopped_early = self.ranks.any(signal.stopped) and self.step != last_step
        try:
            evaluated = recipe.evaluate_every is None or self.is_time_to_evaluate()
            if not evaluated and not stopped_early:
                self.evaluate()
            self.save()
        except Fault as fault:
            self.stop(str(fault))
        self.ended("interrupted" if stopped_early else "finished")
        if stopped_early:
            raise Interrupted(
                f"{self.run}: stopped at step {self.step:,}, all of it saved; resume with: "
                f"{resume_command}"
            )
        self.sample()
        self.plot("loss_last.png")
        self.page()

    def is_time_to_save(self) -> bool:
        due = self.step % self.recipe.checkpoint_every == 0 or self.step == self.last_step
        return due or self.step in self.milestones

    def batches(self) -> Batches:
        """The batches of this run; after a roll-back, in another order."""
        seed = seed_of(self.recipe.seed, self.watch.rollback.taken)
        return Batches(self.data, self.recipe, seed, self.ranks, self.device)

    def train_step(self, batches: Batches) -> None:
        began = time.perf_counter()
        clock = Clock(self.step, self.epoch, self.last_step)
        timer = self.system.timer
        with timer.phase("data"):
            batch = self.read(batches)
        rates = self.system.set_rates(clock)
        losses = self.system.step(batch, clock)
        self.step += 1
        row = {"step": self.step, "epoch": round(self.epoch, 4), **losses, **rates}
        spent = timer.take()
        for phase, seconds in spent.items():
            self.phases[phase] = self.phases.get(phase, 0.0) + seconds
        self.rows.append(row | {"seconds": self.elapsed()} | spent)
        self.stepping += time.perf_counter() - began

    def read(self, batches: Batches) -> Batch:
        """The step's batch; where one rank cannot read its part, InputRejected on all of them."""
        fault = None
        try:
            batch = batches.of_step(self.step)
        except InputRejected as error:
            fault = error
        if self.ranks.any(fault is not None):
            raise fault or InputRejected(f"{self.run}: another process could not read its slices")
        return batch

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

    def go_back(self, fault: str) -> None:
        """To the last checkpoint with other random numbers, where the recipe says so and there is
        one; otherwise the run stops."""
        decision = self.watch.rollback.decide(fault, self.saved_step)
        if decision.action == "stop":
            self.stop(decision.reason)
        document = checkpoint.load(self.run, self.saved_step)
        assert document is not None
        checkpoint.restore(self.run, document, self.system, self.ranks)
        self.watch.load(document["watch"])
        self.watch.forget()
        self.step = int(document["step"])
        self.judged_step = None  # this step's number will come again, with other weights
        self.rows = []
        torch.manual_seed(seed_of(self.recipe.seed, decision.stream) + self.ranks.rank)
        self.log.drop_after(self.step)
        if self.ranks.first:
            drop_figures_after(self.run, self.step)
            print(f"{self.run}: {decision.reason}", file=sys.stderr, flush=True)

    def stop(self, fault: str) -> None:
        self.ended(f"stopped: {fault}")
        last = (
            "there is no checkpoint yet"
            if self.saved_step is None
            else f"the last good checkpoint is {checkpoint.path_of(self.run, self.saved_step)}"
        )
        raise CheckFailed(
            f"{self.run}: {fault}, so the run stopped; {last}; begin a new run with a lower "
            "optimiser.generator_lr and discriminator_lr, or precision=fp32"
        )

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
        before = self.epoch - self.recipe.batch * self.ranks.world / self.data.count
        passed = int(self.epoch / every + 1e-9) > int(before / every + 1e-9)
        return passed or self.step == self.last_step

    def evaluate(self) -> None:
        """Figures on held-out slices; a checkpoint where the named one is the best so far."""
        self.flush()
        self.check_weights()
        self.ready_to_judge()
        figures = self.system.figures(self.recipe.seed) if self.ranks.first else {}
        figures = self.ranks.gather(figures)[0]
        if self.ranks.first:
            write_figures(self.run, self.step, self.epoch, figures)
            self.log.write_figures(self.step, figures)
        best = self.watch.best
        if best is not None and best.take(figures, self.step):
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
        a_step = spent / max(self.step - self.first_step, 1)
        by_steps = float("inf") if self.last_step is None else (self.last_step - self.step) * a_step
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
