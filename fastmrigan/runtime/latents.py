"""Latents: standard normal vectors that depend on (seed, index) alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan import _core
from fastmrigan.errors import UsageError


def normal_latents(seed: int, first: int, count: int, dim: int) -> npt.NDArray[np.float32]:
    """Latents `first` .. `first + count - 1` of `seed`: float32 [count, dim].

    Philox4x32-10 (Salmon et al., SC 2011) through Box-Muller; latent i of a seed has the same bits
    on every machine, instruction set and thread count, whatever range it is asked for in.
    seed and first: 0 .. 2^64 - 1; raises UsageError outside.
    """
    for name, value in (("seed", seed), ("first", first)):
        if not 0 <= value < 2**64:
            raise UsageError(f"{name} {value}: expected a whole number from 0 to 2^64 - 1")
    return _core.philox_normal(seed, first, count, dim)
