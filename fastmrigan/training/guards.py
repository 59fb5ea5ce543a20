"""When a run must not go on as it is: what is wrong, in one line, and what to do about it.

Nothing here acts. The loop tells the guards what happened, they answer with a sentence or a
decision, and the loop stops, rolls back or goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from fastmrigan.errors import UsageError

Adversarial = Literal["log", "lsgan", "wgan-gp"]

WON_ACCURACY = 0.995  # on real and on fake slices alike
WON_LOSS = 1e-3  # below this the generator's gradient through the discriminator is all but gone
# A discriminator at chance is no fault: it is where a GAN should end. It then lands on either side
# of one half from batch to batch. One that gives every slice the same verdict lands on one half in
# every batch; the margin is for patch maps, whose border may differ.
CHANCE = 0.505
CONSTANT = 1e-6  # spread of the logits, relative to max(1, |logit|): float32's last places


@dataclass
class CollapseGuard:
    """Tells when one discriminator has stopped teaching its generator.

    It has when, in each of the last `steps` steps, it
    - won: called right at least WON_ACCURACY of the real and of the fake slices (or patches) at a
      loss below WON_LOSS;
    - lost: called right no more than CHANCE of both together, that is gave one verdict on all;
    - was constant: its logits for real and fake slices were all the same (wherever told).

    In each, and not on average: a run stopped in vain costs more than one seen a little late.
    The critic of WGAN-GP has no verdicts, its loss has no floor: there the third test runs alone.
    """

    steps: int = 500
    adversarial: Adversarial = "log"
    name: str = "discriminator"
    won: int = 0  # steps in a row, up to the last
    lost: int = 0
    unmoved: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"CollapseGuard: expected steps of 1 or more, got {self.steps}")
        if self.adversarial not in ("log", "lsgan", "wgan-gp"):
            raise UsageError(
                f"CollapseGuard: expected adversarial log, lsgan or wgan-gp, "
                f"got {self.adversarial!r}"
            )

    def told(
        self,
        *,
        real_accuracy: float,
        fake_accuracy: float,
        loss: float,
        spread: float | None = None,
    ) -> str | None:
        """Takes one step's figures; the collapse in one line, or None.

        real_accuracy, fake_accuracy: shares in [0, 1] of slices or patches called right; loss: the
        discriminator's, per slice or patch; spread: the standard deviation of its logits over the
        step's real and fake slices together, relative to max(1, mean |logit|), where measured.
        Steps must be told in order. While a collapse lasts every step says so; see `forget`.
        """
        verdicts = self.adversarial != "wgan-gp"
        right = min(real_accuracy, fake_accuracy) >= WON_ACCURACY and loss < WON_LOSS
        chance = (real_accuracy + fake_accuracy) / 2 <= CHANCE
        self.won = self.won + 1 if verdicts and right else 0
        self.lost = self.lost + 1 if verdicts and chance else 0
        self.unmoved = self.unmoved + 1 if spread is not None and spread <= CONSTANT else 0
        lasting = f"in each of the last {self.steps:,} steps"
        if self.won >= self.steps:
            return (
                f"{self.name} has won: {lasting} it called at least {100 * WON_ACCURACY:.1f} % of "
                f"real and fake right at a loss below {WON_LOSS:g} (now {loss:.2g}), so the "
                "generator learns nothing more"
            )
        if self.unmoved >= self.steps:
            return f"{self.name} is constant: {lasting} it gave real and fake the same logit"
        if self.lost >= self.steps:
            return (
                f"{self.name} has lost: {lasting} it did no better than one verdict on all "
                f"slices (now {100 * real_accuracy:.1f} % of real and {100 * fake_accuracy:.1f} % "
                "of fake right)"
            )
        return None

    def forget(self) -> None:
        """Counts from nothing again."""
        self.won = self.lost = self.unmoved = 0

    def state(self) -> dict[str, int]:
        """For the checkpoint."""
        return {"won": self.won, "lost": self.lost, "unmoved": self.unmoved}

    def load(self, state: Mapping[str, int]) -> None:
        self.won, self.lost, self.unmoved = (int(state[k]) for k in ("won", "lost", "unmoved"))


def not_finite(row: Mapping[str, Any]) -> str | None:
    """The first number of a metrics row that is NaN or infinite, as `loss_d is nan at step 12`."""
    for key, value in row.items():
        if isinstance(value, int | float) and not math.isfinite(value):
            where = f" at step {row['step']:,}" if isinstance(row.get("step"), int) else ""
            return f"{key} is {value}{where}"
    return None


def out_of_memory(
    error: BaseException,
    batches: Mapping[str, int],
    *,
    size: int | None = None,
    resumable: bool = False,
) -> UsageError | None:
    """What to try after `error`; None where it is not about memory.

    Knows torch.OutOfMemoryError, the RuntimeErrors of torch's CPU allocator, of cuBLAS and of
    C++'s new, and Python's MemoryError. batches: of a step, by setting (`Recipe.batches`); size:
    side of the slices, pixels, for the advice; resumable: whether the run folder holds a
    checkpoint, which only goes on with the same batches, size and precision. Linux lends more
    memory than it has: there the kernel may kill the process instead, and no error comes.
    """
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not (
        isinstance(error, RuntimeError) and any(sign in text for sign in ALLOCATOR_SIGNS)
    ):
        return None
    where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
    largest = max(batches, key=lambda key: batches[key])
    if batches[largest] > 1:
        advice = f"try --set {largest}={batches[largest] // 2}"
    else:
        smaller = f"--set size={size // 2}" if size is not None else "a smaller --set size"
        advice = f"try --set precision=bf16, or {smaller}"
    if resumable:
        advice += ", with another --out: the run that this one holds keeps its settings"
    at = " and ".join(f"{key} {batch}" for key, batch in batches.items())
    return UsageError(f"out of {where} at {at}; {advice}")


ALLOCATOR_SIGNS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


@dataclass(frozen=True)
class Decision:
    """What the loop does about a fault."""

    action: Literal["stop", "roll back"]
    reason: str  # one line
    stream: int = 0  # with which random numbers to go on after "roll back"; see `seed_of`


@dataclass
class Rollback:
    """Whether a fault (`not_finite`, CollapseGuard) stops the run or takes it back.

    A run taken back goes on with another stream of random numbers, or it would walk the same way
    to the same fault. The stream is the number of times so far, so that it can be retraced.
    """

    mode: Literal["stop", "rollback"] = "stop"
    limit: int = 3  # times a run may be taken back
    taken: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("stop", "rollback") or self.limit < 0:
            raise UsageError(
                f"Rollback: expected mode stop or rollback and a limit of 0 or more, "
                f"got {self.mode!r} and {self.limit}"
            )

    def decide(self, fault: str, checkpoint_step: int | None) -> Decision:
        """fault: one line; checkpoint_step: of the newest good checkpoint, None without one."""
        if self.mode == "stop":
            return Decision("stop", fault)
        if checkpoint_step is None:
            return Decision("stop", f"{fault}; no checkpoint to go back to")
        if self.taken >= self.limit:
            return Decision("stop", f"{fault}; already taken back {self.taken} times (the limit)")
        self.taken += 1
        return Decision(
            "roll back",
            f"{fault}; going back to step {checkpoint_step:,} with random stream {self.taken} "
            f"({self.taken} of {self.limit})",
            self.taken,
        )

    def state(self) -> dict[str, int]:
        """For the checkpoint."""
        return {"taken": self.taken}

    def load(self, state: Mapping[str, int]) -> None:
        """The checkpoint that a run is taken back to must not forget that it was."""
        self.taken = max(self.taken, int(state["taken"]))


def seed_of(seed: int, stream: int) -> int:
    """The seed of one stream, in [0, 2**63): `seed` itself for stream 0, unrelated ones after."""
    if stream == 0:
        return seed
    return int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0] >> 1)
