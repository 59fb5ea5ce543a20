"""DICOM in, through pydicom: headers, pixels, series, previews.

Libraries parse and decode; ours is the policy. Every file is opened by `bounded.open_bounded`,
which limits what a hostile one can cost. Pixels come out in the modality's unit (`pixels`), slices
in the order in which they lie in the patient (`series`), tags by an allow-list (`technical`).
Windows are for `preview` alone. Identity stays out: what tells patients and series apart
(`DicomHeader.patient`, `.series`) is for memory, never for a file.

Every refusal is a ValueError whose text is one line and the reason; the caller adds the name.
"""

from fastmrigan.imaging.dicom.header import DicomHeader, open_bounded, read_header
from fastmrigan.imaging.dicom.pixels import read_dicom
from fastmrigan.imaging.dicom.preview import preview
from fastmrigan.imaging.dicom.series import FrameRef, Series, assemble

__all__ = [
    "DicomHeader",
    "FrameRef",
    "Series",
    "assemble",
    "open_bounded",
    "preview",
    "read_dicom",
    "read_header",
]
