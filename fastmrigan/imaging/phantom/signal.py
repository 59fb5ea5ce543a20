"""From tissue to signal: the spin-echo and inversion-recovery equations, and CT numbers."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.phantom.tissues import PROPERTIES, Tissue


class Sequence(NamedTuple):
    """A spin-echo sequence, with an inversion pulse before it where `ti_ms` is above 0."""

    tr_ms: float  # repetition time
    te_ms: float  # echo time
    ti_ms: float = 0.0  # inversion time


SEQUENCES: dict[str, Sequence] = {
    "t1": Sequence(tr_ms=500.0, te_ms=14.0),
    "t2": Sequence(tr_ms=4500.0, te_ms=100.0),
    "pd": Sequence(tr_ms=3000.0, te_ms=15.0),
    # 1704 ms nulls BrainWeb's CSF at this TR: TI = T1 ln(2 / (1 + exp(-TR / T1)))
    "flair": Sequence(tr_ms=9000.0, te_ms=120.0, ti_ms=1704.0),
}
CONTRASTS = (*SEQUENCES, "ct")

BRIGHTEST = 0.9
"""Every MR contrast is scaled so that its brightest tissue has this signal, before the bias field
and the noise: the room above it is theirs."""


def spin_echo(t1_ms: float, t2_ms: float, proton_density: float, sequence: Sequence) -> float:
    """The magnitude of the transverse signal, in units of the equilibrium magnetisation of water.

    Spin echo: PD (1 - exp(-TR/T1)) exp(-TE/T2). With an inversion pulse TI before the excitation:
    PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2). Both for TE much shorter than TR (Haacke et
    al., "Magnetic Resonance Imaging: Physical Principles and Sequence Design", 1999, ch. 8).
    """
    recovered = 1.0 - math.exp(-sequence.tr_ms / t1_ms)
    if sequence.ti_ms > 0.0:
        recovered = abs(
            1.0 - 2.0 * math.exp(-sequence.ti_ms / t1_ms) + math.exp(-sequence.tr_ms / t1_ms)
        )
    return proton_density * recovered * math.exp(-sequence.te_ms / t2_ms)


@cache
def signal_row(contrast: str) -> npt.NDArray[np.float32]:
    """The signal of each pure tissue in one contrast.

    Returns float32 [T], indexed by Tissue: MR contrasts in [0, BRIGHTEST], ct in Hounsfield units.
    """
    if contrast == "ct":
        row = [PROPERTIES[tissue].hounsfield for tissue in Tissue]
        return np.array(row, dtype=np.float32)
    sequence = SEQUENCES[contrast]
    row = [spin_echo(*PROPERTIES[tissue][:3], sequence) for tissue in Tissue]
    scale = BRIGHTEST / max(row)
    return np.array([value * scale for value in row], dtype=np.float32)
