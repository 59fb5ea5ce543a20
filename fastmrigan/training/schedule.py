"""Learning-rate schedules: the factor on every learning rate as a function of the epoch alone.

A schedule keeps no state. A resumed run asks again and gets the same factor, and nothing has to
be driven in the right order. Epochs count from 1.
"""

from __future__ import annotations

from typing import Literal

from fastmrigan.errors import UsageError

Fidelity = Literal["reference", "corrected"]


def constant(epoch: int) -> float:
    """1 in every epoch."""
    return 1.0


def linear_decay(
    epoch: int, *, constant_epochs: int, decay_epochs: int, fidelity: Fidelity = "reference"
) -> float:
    """1 for `constant_epochs`, then falling in a line over `decay_epochs`.

    The rule of CycleGAN's published code (pytorch-CycleGAN-and-pix2pix, `lr_policy linear`), with
    n = constant_epochs and d = decay_epochs:

        reference: 1 - max(0, epoch + 1 - n) / (d + 1)
        corrected: 1 - max(0, epoch - n) / (d + 1)

    In the published code the scheduler has been stepped once before the first epoch trains, so all
    factors come an epoch early: the fall begins in epoch n, and epoch n + d trains at exactly 0
    and learns nothing. `corrected` holds 1 for all of n epochs and ends at 1 / (d + 1).

    Returns a factor in [0, 1]. Raises UsageError for an epoch after the last (from there the rule
    goes below 0 and would climb the loss), for a negative length and for an unknown fidelity.
    """
    if fidelity not in ("reference", "corrected"):
        raise UsageError(f"fidelity {fidelity!r}: expected reference or corrected")
    if constant_epochs < 0 or decay_epochs < 0:
        raise UsageError(
            f"schedule: expected lengths of 0 epochs or more, got constant_epochs "
            f"{constant_epochs} and decay_epochs {decay_epochs}"
        )
    last = constant_epochs + decay_epochs
    if not 1 <= epoch <= last:
        raise UsageError(
            f"schedule: epoch {epoch} lies outside the epochs 1 to {last} of the linear decay "
            f"({constant_epochs} constant, {decay_epochs} falling); train for fewer epochs, or "
            "lengthen constant_epochs or decay_epochs"
        )
    early = 1 if fidelity == "reference" else 0
    return 1.0 - max(0, epoch + early - constant_epochs) / (decay_epochs + 1)
