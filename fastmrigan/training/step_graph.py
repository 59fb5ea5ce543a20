"""A whole training step recorded once, as one CUDA graph, and replayed.

A step of a small batch is some thousand kernels, and the device waits for Python to launch them.
Replayed, they are launched at once. What is recorded is a system's `program`: the same operations
at each step, on memory that stays where it is. So the batch and the plan are copied into buffers,
learning rates are tensors, states are made in a few steps taken one by one before, and what the
program returns is copied out. Dropout draws the numbers that it would have drawn: a replay moves
the device's generator on as the kernels themselves would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from fastmrigan.errors import UsageError
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.systems.base import Batch, Clock, Plan, Rows, System

WARM_STEPS = 3  # before recording: Adam and the pools make their states, cuDNN chooses kernels

Program = Callable[[], Rows]


def why_no_graph(recipe: Any, ranks: Ranks) -> str | None:
    """Why this recipe's step is not recorded on a CUDA device, in a few words; None where it is."""
    if not recipe.graph:
        return "graph=false"
    if not recipe.speed:
        return "it is for --speed"
    if ranks.world > 1:
        return f"{ranks.world} processes exchange gradients within a step"
    if recipe.compile:
        return "torch.compile makes programs of its own"
    if recipe.system == "progan":
        return "a progressive GAN's step changes as it grows"
    if recipe.system == "gan" and recipe.deviations.instance_noise:
        return "instance noise changes from step to step"
    return None


class Recording(Protocol):
    """What can run a program, and then run it again on the same memory without Python."""

    def warm(self, program: Program) -> Rows:
        """Runs a program as it is."""

    def record(self, program: Program) -> Rows:
        """Records a program; what it returns is filled by `replay`."""

    def replay(self) -> None:
        """Runs what was recorded."""


class StepGraph:
    """Takes the steps of a system in place of `System.step`, with the same results but for the
    learning rates, which are rounded to float32.

    It holds the addresses of all that the system holds: after `System.load_state`, begin another.
    Every batch must be of one shape (as those of `Batches` are).
    """

    def __init__(self, system: System, recording: Recording | None = None) -> None:
        self.system = system
        self.recording = recording or CudaRecording(system.device)
        self.warm_left = WARM_STEPS
        self.rows: Rows | None = None  # what the recorded program fills
        self.batch: Batch  # buffers, as is `plan`
        self.plan: Plan
        system.keep_rates_on_device()

    def step(self, batch: Batch, clock: Clock) -> Rows:
        """One training step; losses by name, tensors still on the device."""
        system = self.system
        plan = system.plan(system.count_of(batch), clock)
        if self.warm_left:
            self.warm_left -= 1
            on_device = {name: draws.to(system.device) for name, draws in plan.items()}
            rows = self.recording.warm(lambda: system.program(batch, on_device))
        else:
            with system.timer.phase("graph"):
                rows = self.replayed(batch, plan)
        system.update_averages(clock)
        return rows

    def replayed(self, batch: Batch, plan: Plan) -> Rows:
        if self.rows is None:
            source = None if batch.source is None else batch.source.clone()
            self.batch = Batch(batch.target.clone(), source)
            device = self.system.device  # copies: a plan may show what the system keeps
            self.plan = {name: draws.to(device, copy=True) for name, draws in plan.items()}
            self.rows = self.recording.record(lambda: self.system.program(self.batch, self.plan))
        for buffer, side in zip(self.batch, batch, strict=True):
            if buffer is not None and side is not None:
                fill(buffer, side)
        for name, draws in plan.items():
            fill(self.plan[name], draws)
        self.recording.replay()
        return {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in self.rows.items()
        }


def fill(buffer: Tensor, given: Tensor) -> None:
    """Copies without waiting for the device. ValueError where the shapes differ."""
    if buffer.shape != given.shape:  # copy_ would spread one row over all
        raise ValueError(
            f"StepGraph: recorded with {list(buffer.shape)}, got {list(given.shape)}; every step "
            "must have the same shapes"
        )
    pinned = given.pin_memory() if buffer.is_cuda and not given.is_cuda else given
    buffer.copy_(pinned, non_blocking=True)


class CudaRecording:
    """A CUDA graph, and the stream that it is recorded on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.graph = torch.cuda.CUDAGraph()
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm(self, program: Program) -> Rows:
        """On the stream of the recording, so that what a first run makes is made there."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            rows = program()
        current.wait_stream(self.stream)
        return rows

    def record(self, program: Program) -> Rows:
        try:
            with torch.cuda.graph(self.graph, stream=self.stream):
                return program()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UsageError(
                "the step cannot be recorded as a CUDA graph "
                f"({str(error).partition(chr(10))[0]}); --set graph=false takes it as it is"
            ) from error

    def replay(self) -> None:
        self.graph.replay()
