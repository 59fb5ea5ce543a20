"""A procedural head phantom: brain slices with known truth, from nothing but a seed.

Rules of this room: NumPy and Pillow only (nibabel and pydicom inside the writers that need them);
no data files; every number is in millimetres, milliseconds or Hounsfield units and says which;
slice i depends on the settings and i alone. Same machine and NumPy, same bits; another machine may
differ in the last bit of a float.
"""

from fastmrigan.imaging.phantom.signal import CONTRASTS, SEQUENCES, signal_row, spin_echo
from fastmrigan.imaging.phantom.slices import (
    PhantomBatch,
    PhantomSettings,
    phantom_batches,
    phantom_slices,
)
from fastmrigan.imaging.phantom.tissues import PROPERTIES, Tissue

__all__ = [
    "CONTRASTS",
    "PROPERTIES",
    "SEQUENCES",
    "PhantomBatch",
    "PhantomSettings",
    "Tissue",
    "phantom_batches",
    "phantom_slices",
    "signal_row",
    "spin_echo",
]
