"""Seeds of the fuzz target: small files of every kind that is read, and some that lie."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

import hostile_dicom
import hostile_pictures
import hostile_volumes

from fastmrigan.imaging.phantom.formats import SliceInfo, dicom_bytes, nifti_bytes, png_bytes
from fastmrigan.imaging.walker import suffix

MAX_BYTES = 8000  # a mutation must have a chance to hit what matters


def seeds() -> dict[str, bytes]:
    """Content by name."""
    files = {}
    for kind in (hostile_dicom, hostile_pictures, hostile_volumes):
        files |= {name: make() for name, make in kind.GOOD.items()}
        files |= {name: make() for name, (make, _) in kind.HOSTILE.items()}
        files |= {name: make() for name, make in kind.ODD.items()}
    signal = np.random.default_rng(0).random((24, 24), dtype=np.float32)
    info = SliceInfo("fuzz", "t2", head=1, slice=1, level_mm=0.0, pixel_mm=2.0)
    pixels = (signal * 65535).astype(np.uint16)
    files["phantom.dcm"] = dicom_bytes(signal, info)
    files["phantom.png"] = png_bytes(pixels)
    files["phantom.nii.gz"] = nifti_bytes(pixels, info)
    return {name: data for name, data in files.items() if len(data) <= MAX_BYTES}


def write_seeds(corpus: Path, kinds: Sequence[str]) -> None:
    """One file a seed, behind the byte that says which of `kinds` its extension is."""
    for name, data in seeds().items():
        (corpus / name).write_bytes(bytes([kinds.index(suffix(name))]) + data)
