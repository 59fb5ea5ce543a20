"""The training loop, from top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastmrigan
from fastmrigan.errors import CheckFailed, Interrupted, UsageError
from fastmrigan.imaging.contact_sheet import contact_sheet, write_png
from fastmrigan.interrupt import StopSignal
from fastmrigan.progress import Progress
from fastmrigan.training import checkpoint, ema
from fastmrigan.training.data import SliceOrder, TrainingData, flip_half
from fastmrigan.training.logging import MetricsLog
from fastmrigan.training.losses import discriminator_loss, generator_loss
from fastmrigan.training.networks import Networks, build, parameter_count
from fastmrigan.training.plots import plot_losses
from fastmrigan.training.recipe import Recipe
from fastmrigan.training.run_folder import locked, resumable, write_config, write_run


@dataclass(frozen=True)
class TrainResult:
    step: int  # where the run stands
    epoch: float
    steps_now: int  # taken by this call
    seconds_now: float  # this call, checkpoints and samples included
    step_seconds: float  # mean of its steps alone; 0 without steps
    elapsed: float  # seconds of training, all sessions of the run together


def train(
    recipe: Recipe,
    data: TrainingData,
    run: Path,
    *,
    minutes: float | None = None,
    device: str = "cpu",
    resume_command: str = "the same command",
) -> TrainResult:
    """Trains until the first bound (steps, epochs, or `minutes` of this call), resuming `run`.

    Raises UsageError without a bound or for a folder that holds another run, CheckFailed when a
    loss or a weight is no longer finite, Interrupted after Ctrl-C or SIGTERM, all of it saved.
    """
    last_step = recipe.total_steps(data.count)
    if last_step is None and minutes is None:
        raise UsageError(f"{recipe.name}: no bound; give --steps, --epochs or --minutes")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"--minutes {minutes}: expected more than 0")
    with locked(run), StopSignal() as signal:
        resumed = resumable(run, recipe, data.info)
        networks = build(recipe, torch.device(device))
        first_step, earlier = 0, 0.0
        if resumed is not None:
            checkpoint.restore(run, resumed, networks)
            first_step, earlier = int(resumed["step"]), float(resumed["elapsed"])
        session = Session(recipe, data, run, networks, torch.device(device), first_step, earlier)
        if last_step is not None and first_step >= last_step:
            return session.result()
        with MetricsLog(run, first_step) as session.log:
            write_config(run, recipe)
            session.go_on(last_step, minutes, signal, resume_command)
        return session.result()


class Session:
    """One call's part of a run. `go_on` is the loop; the rest is what it does at intervals."""

    log: MetricsLog

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        run: Path,
        networks: Networks,
        device: torch.device,
        first_step: int,
        earlier: float,
    ) -> None:
        self.recipe, self.data, self.run = recipe, data, run
        self.networks, self.device = networks, device
        self.step = self.first_step = first_step
        self.earlier = earlier  # seconds of training before this call
        self.began = time.monotonic()
        self.rows: list[dict[str, Any]] = []  # steps not yet written down
        self.stepping = 0.0  # seconds in training steps alone
        self.calibrated_step: int | None = None
        self.saved_step = first_step if checkpoint.steps_of(run) else None
        self.milestones = {recipe.epoch_end(e, data.count): e for e in recipe.plot_epochs}

    def go_on(
        self, last_step: int | None, minutes: float | None, signal: StopSignal, resume_command: str
    ) -> None:
        recipe, seconds = self.recipe, math.inf if minutes is None else minutes * 60
        order = SliceOrder(self.data.count, recipe.batch, recipe.seed)
        self.write_facts("running")
        if self.step == 0:
            self.sample()
        total = last_step if last_step is not None else self.step
        with Progress("train", total, "steps", start=self.step) as progress:
            while True:  # one step at least, however short the time
                began = time.perf_counter()
                real = self.data.slices[order.batch_of(self.step)].to(self.device)
                if recipe.deviations.horizontal_flip:
                    real = flip_half(real)
                row = self.train_step(real, time.perf_counter() - began)
                self.stepping += time.perf_counter() - began
                self.step += 1
                epoch = self.step * recipe.batch / self.data.count
                self.rows.append({"step": self.step, "epoch": round(epoch, 4)} | row)

                if self.step % recipe.log_every == 0:
                    self.flush()
                if self.step % recipe.sample_every == 0:
                    self.sample()
                if self.step % recipe.checkpoint_every == 0 or self.step in self.milestones:
                    self.save()
                if self.step in self.milestones:
                    self.plot(f"loss_epoch_{self.milestones[self.step]}.png")
                progress.advance(seconds_left=self.seconds_left(last_step, seconds))
                in_time = time.monotonic() - self.began < seconds
                if self.step == last_step or signal.stopped or not in_time:
                    break
        stopped_early = signal.stopped and self.step != last_step
        self.save()
        self.write_facts("interrupted" if stopped_early else "finished")
        if stopped_early:
            raise Interrupted(
                f"{self.run}: stopped at step {self.step:,}, all of it saved; resume with: "
                f"{resume_command}"
            )
        self.sample()
        self.plot("loss_last.png")

    def train_step(self, real: Tensor, data_seconds: float) -> dict[str, Any]:
        """One step of the discriminator, one of the generator, one of the EMA. real: [N, 1, H, W].

        The discriminator sees real and generated slices in batches of their own, since its batch
        norm must not mix them; the same generated batch then serves the generator's step.
        """
        recipe, networks = self.recipe, self.networks
        generator, discriminator = networks.generator, networks.discriminator
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
        times = [time.perf_counter()]
        discriminator.requires_grad_(True)
        latents = torch.randn(len(real), recipe.generator.latent).to(self.device)  # [N, latent]
        with half:
            fake = generator(latents)  # [N, 1, H, W]
            on_real = discriminator(self.noisy(real))  # [N]
            on_fake = discriminator(self.noisy(fake.detach()))  # [N]
        loss_d = discriminator_loss(on_real, on_fake, real_label=recipe.deviations.real_label)
        networks.optimiser_d.zero_grad()
        loss_d.backward()
        networks.optimiser_d.step()
        times.append(time.perf_counter())

        discriminator.requires_grad_(False)  # its gradients are not used in this half
        with half:
            judged = discriminator(self.noisy(fake))  # [N]
        loss_g = generator_loss(judged)
        networks.optimiser_g.zero_grad()
        loss_g.backward()
        networks.optimiser_g.step()
        times.append(time.perf_counter())

        ema.update(networks.ema, generator, self.step, recipe.ema)
        times.append(time.perf_counter())
        return {
            "loss_d": loss_d.detach(),
            "loss_g": loss_g.detach(),
            "d_real_accuracy": (on_real.detach() > 0).float().mean(),
            "d_fake_accuracy": (on_fake.detach() < 0).float().mean(),
            "lr_g": recipe.optimiser.generator_lr,
            "lr_d": recipe.optimiser.discriminator_lr,
            "seconds": self.elapsed(),
            "data_seconds": data_seconds,
            "discriminator_seconds": times[1] - times[0],
            "generator_seconds": times[2] - times[1],
            "ema_seconds": times[3] - times[2],
        }

    def noisy(self, slices: Tensor) -> Tensor:
        """Slices as the discriminator sees them: with the recipe's instance noise, if any."""
        options = self.recipe.deviations
        sigma = options.instance_noise * (1 - self.step / options.instance_noise_steps)
        return slices + sigma * torch.randn_like(slices) if sigma > 0 else slices

    def flush(self) -> None:
        """Writes the waiting rows down; CheckFailed at the first loss that is not finite."""
        if not self.rows:
            return
        rows = [{key: round(float(value), 6) for key, value in row.items()} for row in self.rows]
        self.rows = []
        for row in rows:
            row["step"] = int(row["step"])
        faulty = next(
            (
                (row, key)
                for row in rows
                for key in ("loss_d", "loss_g")
                if not math.isfinite(row[key])
            ),
            None,
        )
        if faulty is not None:
            row, key = faulty
            self.stop_on_nan(f"{key} is {row[key]} at step {row['step']:,}")
        self.log.write(rows)

    def save(self) -> None:
        """A checkpoint of this step, unless there is one; older ones go."""
        self.flush()
        if self.step == self.saved_step:
            return
        if not self.networks.all_finite():
            self.stop_on_nan(f"a weight is no longer finite at step {self.step:,}")
        self.calibrate()
        checkpoint.save(
            self.run,
            self.networks,
            recipe=self.recipe,
            dataset=self.data.info,
            step=self.step,
            elapsed=self.elapsed(),
        )
        self.saved_step = self.step
        checkpoint.prune(
            self.run, keep=self.recipe.keep_checkpoints, milestones=set(self.milestones)
        )

    def stop_on_nan(self, fact: str) -> None:
        self.write_facts("stopped: not finite")
        last = (
            "there is no checkpoint yet"
            if self.saved_step is None
            else f"the last good checkpoint is {checkpoint.path_of(self.run, self.saved_step)}"
        )
        raise CheckFailed(
            f"{self.run}: {fact}, so the run stopped; {last}; begin a new run with a lower "
            "optimiser.generator_lr and discriminator_lr, or precision=fp32"
        )

    def sample(self) -> None:
        """A grid of the EMA's slices from latents that stay the same through the run."""
        recipe, mean = self.recipe, self.networks.ema
        self.calibrate()
        latents = ema.seeded_latents(recipe.sample_count, recipe.generator.latent, recipe.seed + 1)
        with torch.no_grad():
            slices = mean(latents.to(self.device))[:, 0].float().cpu().numpy()  # [N, H, W]
        (self.run / "samples").mkdir(exist_ok=True)
        columns = math.ceil(math.sqrt(recipe.sample_count))
        write_png(
            self.run / "samples" / f"step_{self.step:07}.png",
            contact_sheet(slices, columns=columns),
        )

    def calibrate(self) -> None:
        """Fits the EMA's batch norm to its weights, once a step at most."""
        if self.calibrated_step != self.step:
            ema.calibrate(self.networks.ema, self.recipe.generator.latent, self.recipe.seed)
            self.calibrated_step = self.step

    def plot(self, name: str) -> None:
        self.flush()
        epoch = self.step * self.recipe.batch / self.data.count
        title = f"{self.recipe.name}: step {self.step:,}, epoch {epoch:,.1f}"
        plot_losses(self.run, self.run / "plots" / name, title=title)

    def elapsed(self) -> float:
        return self.earlier + time.monotonic() - self.began

    def seconds_left(self, last_step: int | None, seconds: float) -> float:
        spent = time.monotonic() - self.began
        a_step = spent / (self.step - self.first_step)
        by_steps = math.inf if last_step is None else (last_step - self.step) * a_step
        return max(0.0, min(seconds - spent, by_steps))

    def write_facts(self, status: str) -> None:
        write_run(
            self.run,
            {
                "schema": 1,
                "status": status,
                "recipe": self.recipe.name,
                "step": self.step,
                "epoch": self.step * self.recipe.batch / self.data.count,
                "elapsed_seconds": round(self.elapsed(), 1),
                "dataset": self.data.info,
                "parameters": {
                    "generator": parameter_count(self.networks.generator),
                    "discriminator": parameter_count(self.networks.discriminator),
                },
                "device": self.device.type,
                "threads": torch.get_num_threads(),
                "versions": {"fastmrigan": fastmrigan.__version__, "torch": torch.__version__},
            },
        )

    def result(self) -> TrainResult:
        return TrainResult(
            self.step,
            self.step * self.recipe.batch / self.data.count,
            self.step - self.first_step,
            self.elapsed() - self.earlier,
            self.stepping / max(self.step - self.first_step, 1),
            self.elapsed(),
        )
