"""What a viewer would show of a file: windowed 8-bit slices. For looking at, never for training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.dicom.bounded import open_bounded, plain_reasons
from fastmrigan.imaging.dicom.elements import Frames, sequence, text, value
from fastmrigan.imaging.dicom.frames import stored_frames
from fastmrigan.imaging.dicom.header import facts
from fastmrigan.imaging.dicom.pixels import check_photometric, modality, pixels_in

if TYPE_CHECKING:
    from pydicom import Dataset

UInt8 = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating[Any]]

SHOWN = (1.0, 99.0)  # percentiles that become black and white where the file has no window


def preview(path: Path) -> UInt8:
    """Each frame as its maker wants it shown, uint8 [N, H, W], dark to bright.

    By the first VOI LUT, else the first window, the frame's own in enhanced objects (PS3.3 C.11.2,
    C.7.6.16.2.10); without either, percentiles SHOWN of the slice become black and white. Colour
    becomes luminance. Raises ValueError with the reason in one line and MissingDependency.
    """
    dataset = open_bounded(path)
    with plain_reasons():
        header = facts(dataset, pixels_in(dataset))
        check_photometric(header, convert_rgb=True)
        # A window is meant for displayed values that are not turned over yet
        upright = replace(header, photometric=header.photometric.replace("OME1", "OME2"))
        frames = Frames(dataset)
        slices = np.empty((header.frames, header.rows, header.columns), dtype=np.uint8)
        for i, stored in enumerate(stored_frames(dataset)):
            values = modality(stored, upright, frames, i, precise=False)  # [H, W]
            slices[i] = windowed(values, frames.holder(i, "FrameVOILUTSequence"))
    return 255 - slices if header.photometric == "MONOCHROME1" else slices


def windowed(values: Values, holder: Dataset) -> UInt8:
    """Values [H, W] through the window that `holder` states, as uint8."""
    from pydicom import Dataset
    from pydicom.pixels.processing import apply_voi, apply_windowing

    table = sequence(holder, "VOILUTSequence")
    window = tuple(first(holder, name) for name in ("WindowCenter", "WindowWidth"))
    if table:
        top = (1 << int(table[0].LUTDescriptor[2])) - 1
        grey = apply_voi(values.round().astype(np.int64), holder) * (255 / top)
    elif None not in window and float(window[1]) >= 1:
        voi = Dataset()  # of which pydicom takes the range of its result: 0 to 255
        voi.PhotometricInterpretation, voi.BitsStored, voi.PixelRepresentation = "MONOCHROME2", 8, 0
        voi.WindowCenter, voi.WindowWidth = (float(part) for part in window)
        voi.VOILUTFunction = text(holder, "VOILUTFunction") or "LINEAR"
        grey = apply_windowing(values, voi)
    else:
        low, high = np.percentile(values, SHOWN)
        grey = (values - low) * (255 / max(high - low, np.finfo(np.float32).tiny))
    return np.clip(np.round(grey), 0, 255).astype(np.uint8)


def first(dataset: Dataset, keyword: str) -> Any:
    """The first of several values, or the only one; None where there is none."""
    found = value(dataset, keyword)
    several = not isinstance(found, str | bytes) and hasattr(found, "__iter__")
    return next(iter(found), None) if several else found
