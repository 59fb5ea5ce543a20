"""What a DICOM file says of itself, read without its pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from fastmrigan.imaging.dicom.bounded import claims, open_bounded, parse, plain_reasons
from fastmrigan.imaging.dicom.elements import Frames, text
from fastmrigan.imaging.dicom.technical import CODES, NUMBERS, technical_tags
from fastmrigan.imaging.position import FAR_MM, VOXEL_MM, SlicePosition, Vector
from fastmrigan.imaging.worker import unclocked

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["DicomHeader", "facts", "open_bounded", "read_header"]

BurnedIn = Literal["no", "yes", "unknown"]

KEYWORDS = (  # of the top level; all else is skipped unread
    "SpecificCharacterSet SOPClassUID SOPInstanceUID PatientID StudyInstanceUID SeriesInstanceUID "
    "Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation BitsAllocated "
    "BitsStored BurnedInAnnotation ImagePositionPatient ImageOrientationPatient "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
)

NEARLY = 0.01  # how far direction cosines may be from unit length and from a right angle


@dataclass(frozen=True)
class DicomHeader:
    """The facts that decide what becomes of a file.

    `patient`, `series` and `instance` stay in memory.
    """

    patient: str | None  # PatientID, else StudyInstanceUID: tells patients apart, nothing else
    series: str | None  # SeriesInstanceUID
    sop_class: str  # SOPClassUID
    modality: str  # "MR", "CT", …; "" where absent
    syntax: str  # TransferSyntaxUID
    rows: int
    columns: int
    frames: int
    photometric: str  # PhotometricInterpretation
    positions: tuple[SlicePosition, ...] | None  # [frames], where each lies in the patient
    burned_in: BurnedIn  # BurnedInAnnotation; "unknown" where absent
    tags: Mapping[str, str | float]  # technical, from an allow-list (technical.py)
    instance: str | None = None  # SOPInstanceUID: one image in all its copies; in memory alone


def read_header(path: Path) -> DicomHeader:
    """The header of one image file; its pixels are not read, and only KEYWORDS are kept.

    Cost is bounded as in `open_bounded`. Raises ValueError with the reason in one line (not DICOM,
    broken, no image, a size that nobody scans) and MissingDependency.
    """
    dataset, pixels = parse(path, whole_file=False, only=tags_of_interest())
    with plain_reasons():
        return facts(dataset, pixels)


def tags_of_interest() -> list[int]:
    try:
        with unclocked():
            from pydicom.datadict import tag_for_keyword
    except ModuleNotFoundError:
        return []  # `parse` says what is missing
    keywords = [*KEYWORDS.split(), *CODES, *NUMBERS]
    return [cast(int, tag_for_keyword(keyword)) for keyword in keywords]


def facts(dataset: Dataset, pixels: bool) -> DicomHeader:
    """The header of a data set that has pixels or not. Raises ValueError where it is no image."""
    if not pixels:
        raise ValueError("DICOM without pixels")
    rows, columns, count = claims(dataset)
    photometric = " ".join((text(dataset, "PhotometricInterpretation") or "").split())
    syntax = text(dataset.file_meta, "TransferSyntaxUID")
    needed = {
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": text(dataset, "BitsAllocated"),
        "PhotometricInterpretation": photometric,
        "TransferSyntaxUID": syntax,
    }
    missing = [name for name, found in needed.items() if not found]
    if missing or syntax is None:
        raise ValueError(f"DICOM without {', '.join(missing)}")
    frames = Frames(dataset)
    return DicomHeader(
        patient=(text(dataset, "PatientID") or "").strip() or text(dataset, "StudyInstanceUID"),
        series=text(dataset, "SeriesInstanceUID"),
        sop_class=text(dataset, "SOPClassUID") or "",
        modality=text(dataset, "Modality") or "",
        syntax=syntax,
        rows=rows,
        columns=columns,
        frames=count,
        photometric=photometric,
        positions=positions(frames, count),
        burned_in=burned_in(text(dataset, "BurnedInAnnotation")),
        tags=technical_tags(frames),
        instance=text(dataset, "SOPInstanceUID"),
    )


def burned_in(annotation: str | None) -> BurnedIn:
    said = (annotation or "").strip().upper()
    return "yes" if said == "YES" else "no" if said == "NO" else "unknown"


def positions(frames: Frames, count: int) -> tuple[SlicePosition, ...] | None:
    """Where each frame lies; None where one of them does not say, or says what cannot be."""
    if count > 1 and len(frames.own) != count:
        return None  # one position for several frames says nothing of any
    found = []
    for frame in range(count):
        try:
            position = position_of(frames, frame)
        except ValueError:
            return None
        if position is None:
            return None
        found.append(position)
    return tuple(found)


def position_of(frames: Frames, frame: int) -> SlicePosition | None:
    """The Image Plane of one frame (PS3.3 C.7.6.2, and C.7.6.16.2.1 to .4 in enhanced ones)."""
    origin = frames.numbers(frame, "PlanePositionSequence", "ImagePositionPatient", 3)
    if origin is None:
        return None
    cosines = frames.numbers(frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = frames.numbers(frame, "PixelMeasuresSequence", "PixelSpacing", 2)
    if cosines is None or spacing is None:
        return None
    if not (VOXEL_MM[0] <= min(spacing) and max(spacing) <= VOXEL_MM[1]):
        raise ValueError("its PixelSpacing is one that nobody scans")
    if max(map(abs, origin)) > FAR_MM:
        raise ValueError("its ImagePositionPatient lies far outside any scanner")
    row, column = unit(cosines[:3]), unit(cosines[3:])
    if abs(sum(a * b for a, b in zip(row, column, strict=True))) > NEARLY:
        raise ValueError("its ImageOrientationPatient is not a right angle")
    thickness = frames.numbers(frame, "PixelMeasuresSequence", "SliceThickness", 1)
    return SlicePosition(
        origin=cast(Vector, origin),
        row=row,
        column=column,
        spacing=cast(tuple[float, float], spacing),
        thickness=(thickness[0] or None) if thickness is not None else None,
    )


def unit(vector: tuple[float, ...]) -> Vector:
    """The vector at length 1. Raises ValueError where it is far from that."""
    length = math.hypot(*vector)
    if abs(length - 1) > NEARLY:
        raise ValueError("its ImageOrientationPatient is not made of unit vectors")
    return cast(Vector, tuple(part / length for part in vector))
