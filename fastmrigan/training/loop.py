"""The training loop, from top to bottom."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fastmrigan.errors import CheckFailed, FastMriganError, InputRejected, Interrupted, UsageError
from fastmrigan.interrupt import StopSignal
from fastmrigan.progress import Progress, duration
from fastmrigan.training import checkpoint
from fastmrigan.training.augmenting import Batches
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.evaluation import drop_figures_after
from fastmrigan.training.guards import out_of_memory, seed_of
from fastmrigan.training.logging import MetricsLog
from fastmrigan.training.recipe import Recipe
from fastmrigan.training.run_folder import locked, resumable, write_config
from fastmrigan.training.session import Fault, Session, TrainResult
from fastmrigan.training.step_graph import StepGraph, why_no_graph
from fastmrigan.training.systems import Batch, Clock, Rows

LONG = 3 * 3600.0  # seconds of training of which a user is told
TIMED = 10  # steps that tell of them


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
        session = Loop(recipe, data, run, torch.device(device), ranks, last_step)
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
                advice = out_of_memory(error, recipe.batches, size=recipe.size, resumable=saved)
                if advice is None:
                    raise
                session.ended("stopped: out of memory")
                raise advice from error
            finally:
                if session.status == "running":  # an error that nothing above had a word for
                    with contextlib.suppress(OSError, FastMriganError):
                        session.ended(f"stopped: {type(sys.exception()).__name__}")
        return session.result()


class Loop(Session):
    """A session that takes steps. `go_on` is the loop."""

    take_step: Callable[[Batch, Clock], Rows]

    def go_on(self, minutes: float | None, signal: StopSignal, resume_command: str) -> None:
        recipe, last_step = self.recipe, self.last_step
        seconds = float("inf") if minutes is None else minutes * 60
        since = self.began
        self.write_facts("running")
        if self.step == 0:
            self.sample()
        for line in self.system.prepare():
            if self.ranks.first:
                print(line, file=sys.stderr, flush=True)
        batches, self.take_step = self.batches(), self.stepper()
        with Progress(
            "train", last_step, "steps", start=self.step, shown=self.ranks.first
        ) as progress:
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
                    batches, self.take_step = self.batches(), self.stepper()
                    progress.advance(self.step - progress.done)
                    continue
                if self.step in self.milestones:
                    self.plot(f"loss_epoch_{self.milestones[self.step]}.png")
                progress.advance(seconds_left=self.seconds_left(seconds))
                if self.step == self.first_step + 1:
                    since = time.monotonic()  # the first step also warms up
                elif self.step == self.first_step + 1 + TIMED and minutes is None:
                    self.tell_if_long(progress, time.monotonic() - since)
                out_of_time = time.monotonic() - self.began >= seconds
                if self.step == last_step or self.ranks.any(signal.stopped or out_of_time):
                    break
        stopped_early = self.ranks.any(signal.stopped) and self.step != last_step
        try:
            evaluated = recipe.evaluate_every is None or self.is_time_to_evaluate()
            if not evaluated and not stopped_early:
                self.evaluate(due=False)
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

    def tell_if_long(self, progress: Progress, taken: float) -> None:
        """Names --minutes where nobody would wait for the end; taken: seconds of TIMED steps."""
        if (last := self.last_step) is None:
            return
        work = self.system.work
        seconds = taken * work(self.step, last, last) / work(self.step - TIMED, self.step, last)
        if seconds > LONG:
            progress.say(
                f"train: at {taken / TIMED:.3g} s a step, the {last - self.step:,} steps that are "
                f"left take about {duration(seconds)} h; --minutes N stops after N minutes, and "
                "the same command goes on from there"
            )

    def batches(self) -> Batches:
        """The batches of this run; after a roll-back, in another order."""
        seed = seed_of(self.recipe.seed, self.watch.rollback.taken)
        return Batches(self.data, self.recipe, seed, self.ranks, self.device)

    def stepper(self) -> Callable[[Batch, Clock], Rows]:
        """What takes a step of the system as it is now: itself, or its CUDA graph."""
        if self.device.type == "cuda" and why_no_graph(self.recipe, self.ranks) is None:
            return StepGraph(self.system).step
        return self.system.step

    def train_step(self, batches: Batches) -> None:
        began = time.perf_counter()
        clock = Clock(self.step, self.epoch, self.last_step, self.watch.rollback.taken)
        timer = self.system.timer
        with timer.phase("data"):
            batch = self.read(batches)
        rates = self.system.set_rates(clock)
        losses = self.take_step(batch, clock)
        self.step += 1
        row = {"step": self.step, "epoch": round(self.epoch, 4), **losses, **rates}
        spent = timer.take()
        for phase, seconds in spent.items():
            self.phases[phase] = self.phases.get(phase, 0.0) + seconds
        self.rows.append(row | {"seconds": self.elapsed()} | spent)
        self.stepping += time.perf_counter() - began

    def read(self, batches: Batches) -> Batch:
        """The step's batch; where one rank cannot read its part, InputRejected on all of them."""
        return self.ranks.together(lambda: batches.of_step(self.step))

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
        torch.manual_seed(seed_of(self.recipe.seed, decision.stream))  # on all ranks, as at first
        self.system.begin_stream(decision.stream)
        self.log.drop_after(self.step)
        if self.ranks.first:
            drop_figures_after(self.run, self.step)
            print(f"{self.run}: {decision.reason}", file=sys.stderr, flush=True)
        self.save(anew=True)  # or a run begun again would not know that it has been taken back

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
