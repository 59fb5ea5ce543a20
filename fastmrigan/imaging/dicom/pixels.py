"""Stored values to the modality's unit: float32 slices of one DICOM file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.dicom.bounded import open_bounded, plain_reasons
from fastmrigan.imaging.dicom.elements import Frames, number, sequence, whole
from fastmrigan.imaging.dicom.frames import COLOUR, GREY, Stored, named, stored_frames
from fastmrigan.imaging.dicom.header import DicomHeader, facts
from fastmrigan.imaging.readers import Float32, ReadImage, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

LUMINANCE = np.array((0.299, 0.587, 0.114), dtype=np.float32)  # ITU-R BT.601, as for pictures
PHILIPS = "Philips MR Imaging DD 001"  # who owns (2005,xx0E)
PHILIPS_FRAME = "Philips MR Imaging DD 005"  # who owns (2005,xx0F), a frame's private group


def read_dicom(path: Path, *, convert_rgb: bool = False) -> ReadImage:
    """All frames of one file in the modality's unit, in the file's own order.

    Stored values become the modality's by its lookup table, or by slope and intercept, each frame's
    own in enhanced objects (PS3.3 C.11.1, C.7.6.16.2.9; Philips: `scale`). MONOCHROME1 is turned
    over within the range of the stored type first, so that dark is low. Padding (PS3.3 C.7.5.1.1.2)
    takes the lowest real value of its slice: it counts as background. No window is applied
    (`preview` does that). convert_rgb: colour becomes luminance (ITU-R BT.601) instead of being
    refused.

    The result's patient is PatientID, else StudyInstanceUID: to keep a patient on one side of a
    split, never to be written. Raises ValueError with the reason in one line (no DICOM, no pixels,
    a codec that is absent, a size that nobody scans, broken data) and MissingDependency.
    """
    dataset = open_bounded(path)
    with plain_reasons():
        header = facts(dataset, pixels_in(dataset))
        check_size(header.rows, header.columns)
        check_photometric(header, convert_rgb)
        shape = (header.frames, header.rows, header.columns)
        slices = np.empty(shape, dtype=np.float32)  # [N, H, W]
        frames = Frames(dataset)
        padded = padding(dataset)
        empty = []  # slices that are padding throughout
        for i, stored in enumerate(stored_frames(dataset)):
            slices[i] = modality(stored, header, frames, i)
            if padded is not None and stored.ndim == 2:
                mask = (stored >= padded[0]) & (stored <= padded[1])  # [H, W]
                if mask.all():
                    empty.append(i)
                elif mask.any():
                    slices[i][mask] = slices[i][~mask].min()
        if empty and len(empty) < len(slices):
            slices[empty] = np.delete(slices, empty, axis=0).min()
    return ReadImage(
        slices,
        f"DICOM {header.photometric} {depth(dataset)}",
        header.patient,
        volume=is_volume(header),
        positions=header.positions,
        tags=header.tags,
    )


def pixels_in(dataset: Dataset) -> bool:
    return any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))


def depth(dataset: Dataset) -> str:
    floating = "PixelData" not in dataset
    return f"{whole(dataset, 'BitsAllocated' if floating else 'BitsStored')} bit" + (
        " float" if floating else ""
    )


def check_photometric(header: DicomHeader, convert_rgb: bool) -> None:
    """Raises ValueError for colour, unless it is to be converted and can be."""
    if header.photometric in GREY or (convert_rgb and header.photometric in COLOUR):
        return
    remedy = "; ask for its conversion" if header.photometric in COLOUR else ""
    raise ValueError(f"colour DICOM ({named(header.photometric)}); grey is read{remedy}")


def is_volume(header: DicomHeader) -> bool:
    """Several frames, and none of them in a plane of its own."""
    if header.positions is None:
        return header.frames > 1
    normals = np.array([position.normal for position in header.positions])  # [N, 3]
    return header.frames > 1 and bool(np.all(np.abs(normals @ normals[0]) > 0.999))


def modality(
    stored: Stored, header: DicomHeader, frames: Frames, frame: int, *, precise: bool = True
) -> npt.NDArray[np.floating[Any]]:
    """One frame's stored values [H, W] or [H, W, 3] in the modality's unit, [H, W].

    precise: Philips's precise values rather than its displayed ones (`scale`).
    """
    if stored.ndim == 3:
        luminance: Float32 = stored.astype(np.float32) @ LUMINANCE
        return luminance
    if header.photometric == "MONOCHROME1":
        stored = inverted(stored, frames.dataset)
    if sequence(frames.dataset, "ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return apply_modality_lut(stored, frames.dataset).astype(np.float64)
    slope, intercept = scale(frames, frame, precise)
    scaled: npt.NDArray[np.float64] = stored.astype(np.float64) * slope + intercept
    return scaled


def inverted(stored: Stored, dataset: Dataset) -> Stored:
    """Turned over within the range of the stored type, so that all slices of a series agree."""
    if stored.dtype.kind == "f":
        raise ValueError("MONOCHROME1 with floating-point pixels, whose range nobody says")
    top = -1 if stored.dtype.kind == "i" else (1 << (whole(dataset, "BitsStored") or 16)) - 1
    return np.subtract(top, stored, dtype=np.int64)


def scale(frames: Frames, frame: int, precise: bool) -> tuple[float, float]:
    """Slope and intercept of one frame: value = stored * slope + intercept.

    RescaleSlope RS and RescaleIntercept RI, the frame's own where it has them (PS3.3 C.11.1,
    C.7.6.16.2.9). Philips MR scanners choose RS per image for display and keep a private scale
    slope SS, (2005,100E), beside it: the displayed value is D = stored * RS + RI, the precise
    one, in units that are equal from image to image, P = D / (RS * SS). Taken is P, as dcm2niix
    does unless told otherwise: a series is graded as one, so that its slices must be in one unit.
    Where RS and SS are constant, as in most series, grading gives the same either way. Source:
    Chenevert et al. 2014 (PMC3998685), and "Image Scaling" in dcm2niix's notes on Philips. The
    private intercept (2005,100D) is -RI / RS and has no place of its own in P.
    """
    holder = frames.holder(frame, "PixelValueTransformationSequence")
    slope, intercept = number(holder, "RescaleSlope"), number(holder, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0:
        raise ValueError("its RescaleSlope is 0")
    philips = philips_scale_slope(frames, frame) if precise else None
    if philips is None:
        return slope, intercept
    return 1 / philips, intercept / (slope * philips)


def philips_scale_slope(frames: Frames, frame: int) -> float | None:
    """SS of one frame; None where no Philips scanner wrote one. Raises ValueError for 0."""
    holders = [frames.dataset]
    for group in reversed(frames.groups(frame)):
        items = private(group, PHILIPS_FRAME, 0x0F)
        holders = [*(items or []), group, *holders]
    for holder in holders:
        found = private(holder, PHILIPS, 0x0E)
        if isinstance(found, bytes) and len(found) == 4:  # its type lost on the way
            little = frames.dataset.original_encoding[1] is not False
            (found,) = struct.unpack("<f" if little else ">f", found)
        if found is not None:
            if not isinstance(found, int | float) or not np.isfinite(found) or found == 0:
                raise ValueError("its Philips scale slope is not a number other than 0")
            return float(found)
    return None


def private(dataset: Dataset, creator: str, element: int) -> Any:
    """A private value of group 2005; None where its creator or itself is absent."""
    try:
        return dataset.private_block(0x2005, creator)[element].value
    except KeyError:
        return None


def padding(dataset: Dataset) -> tuple[float, float] | None:
    """The stored values from first to last that are padding (PS3.3 C.7.5.1.1.2); None for none."""
    kind = next(k for k in ("", "Float", "DoubleFloat") if f"{k}PixelData" in dataset)
    first = number(dataset, f"{kind}PixelPaddingValue")
    if first is None:
        return None
    last = number(dataset, f"{kind}PixelPaddingRangeLimit")
    last = first if last is None else last
    if not kind:
        first, last = as_stored(int(first), dataset), as_stored(int(last), dataset)
    return min(first, last), max(first, last)


def as_stored(found: int, dataset: Dataset) -> int:
    """A padding value with the pixels' signedness: some write -2000 as the unsigned 63536."""
    bits = whole(dataset, "BitsAllocated") or 16
    found &= (1 << bits) - 1
    signed = whole(dataset, "PixelRepresentation") == 1
    return found - (1 << bits) if signed and found >> (bits - 1) else found
