"""What every file of one emitted DICOM series says: MR (PS3.3 A.4) or CT (A.3) Image Storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastmrigan import NOTICE, __version__
from fastmrigan.errors import MissingDependency, UsageError
from fastmrigan.imaging.emit.uids import short_name, uid
from fastmrigan.imaging.position import SlicePosition

if TYPE_CHECKING:
    from pydicom import Dataset

MAKER = "FastMRIGAN"
MAX_SIDE = 65535  # of Rows and Columns, which are unsigned 16-bit
UNIT_TOLERANCE = 1e-3  # real scanners round their direction cosines


@dataclass(frozen=True)
class SeriesHeader:
    """What all slices of a series share. Texts are cut to what their elements hold."""

    run: str  # names the job that made it; identifiers and the patient's are made of it
    series: str  # names the series within the run
    patient: str  # names the invented patient within the run
    number: int  # SeriesNumber
    size: tuple[int, int]  # [H, W] in pixels
    geometry: SlicePosition  # of its slices, but for the origin, which each has of its own
    model: str  # what made the slices: the recipe's name
    model_sha256: str  # of the model file
    contrast: str  # "t1", "t2", …; "ct" makes CT Image Storage, anything else MR
    derivation: str  # how the slices were made, and what must not be read into them
    step_mm: float | None = None  # between slices, where it is the same for all
    patient_position: str = ""  # HFS, …; empty where it is not known

    def check(self) -> None:
        """Raises UsageError where a value cannot stand in a DICOM file."""
        row, column = np.asarray(self.geometry.row), np.asarray(self.geometry.column)
        products = np.array([row @ row - 1, column @ column - 1, row @ column])  # 0 where square
        numbers = (*self.geometry.row, *self.geometry.column, *self.geometry.spacing)
        for name, holds, expected, got in (
            ("size", all(1 <= n <= MAX_SIDE for n in self.size), f"1 to {MAX_SIDE}", self.size),
            ("geometry", bool(np.isfinite(numbers).all()), "finite numbers", self.geometry),
            (
                "geometry.row and column",
                bool((np.abs(products) < UNIT_TOLERANCE).all()),
                "orthogonal unit vectors",
                (self.geometry.row, self.geometry.column),
            ),
            ("spacing", min(self.geometry.spacing) > 0, "above 0 mm", self.geometry.spacing),
        ):
            if not holds:
                raise UsageError(f"DICOM series {self.series}: {name}: expected {expected}: {got}")

    def uid(self, *parts: object) -> str:
        """A unique identifier within the run."""
        return uid(self.run, *parts)

    @property
    def is_ct(self) -> bool:
        return self.contrast == "ct"


def series_dataset(header: SeriesHeader) -> Dataset:
    """The elements that do not change from slice to slice, file meta information included.

    Elements of type 2 that nobody knows are present and empty: dates and times above all, which
    would make the bytes depend on the clock. Raises UsageError and MissingDependency.
    """
    try:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
    except ModuleNotFoundError as error:
        raise MissingDependency("pydicom", "dicom", "writing DICOM") from error

    header.check()
    data = Dataset()
    # SOP Common (C.12.1)
    data.SOPClassUID = CTImageStorage if header.is_ct else MRImageStorage
    data.SyntheticData = "YES"
    data.ContentQualification = "RESEARCH"
    data.ContributingEquipmentSequence = [_equipment(header)]
    # Patient (C.7.1.1), General Study (C.7.2.1), General Series (C.7.3.1)
    patient = short_name(header.run, "patient", header.patient)
    data.PatientName = f"SYNTHETIC^{patient[:8].upper()}"
    data.PatientID = f"SYN-{patient}"
    data.PatientBirthDate = data.PatientSex = ""
    data.StudyInstanceUID = header.uid("study", header.patient)
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.StudyID = "1"
    data.StudyDescription = f"Synthetic, {NOTICE}"
    data.Modality = "CT" if header.is_ct else "MR"
    data.SeriesInstanceUID = header.uid("series", header.series)
    data.SeriesNumber = header.number
    data.SeriesDescription = text(f"synthetic {header.contrast} {header.model}", 64)
    data.BodyPartExamined = "HEAD"
    data.PatientPosition = header.patient_position
    # Frame of Reference (C.7.4.1), General Equipment (C.7.5.1)
    data.FrameOfReferenceUID = header.uid("frame of reference", header.series)
    data.PositionReferenceIndicator = ""
    data.Manufacturer = MAKER
    data.ManufacturerModelName = text(header.model, 64)
    data.SoftwareVersions = __version__
    # General Image (C.7.6.1), Image Plane (C.7.6.2)
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if header.is_ct else "OTHER"]
    data.DerivationDescription = text(
        f"Synthetic: made by the generative model {header.model} (sha256 {header.model_sha256}) "
        f"with {MAKER} {__version__}. {header.derivation} {NOTICE.capitalize()}.",
        1024,
    )
    data.BurnedInAnnotation = "NO"
    plane = header.geometry
    data.ImageOrientationPatient = [ds(cosine) for cosine in (*plane.row, *plane.column)]
    data.PixelSpacing = [ds(mm) for mm in plane.spacing]
    data.SliceThickness = "" if plane.thickness is None else ds(plane.thickness)
    if header.step_mm is not None:
        data.SpacingBetweenSlices = ds(header.step_mm)
    # MR Image (C.8.3.1) or CT Image (C.8.2.1)
    if header.is_ct:
        data.KVP = data.AcquisitionNumber = None
    else:
        data.ScanningSequence, data.SequenceVariant = "RM", "NONE"  # research mode: none was run
        data.ScanOptions = data.MRAcquisitionType = ""
        data.RepetitionTime = data.EchoTime = data.EchoTrainLength = None
    # Image Pixel (C.7.6.3), Modality LUT (C.11.1), VOI LUT (C.11.2)
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = header.size
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = 0
    data.RescaleType = "US"  # unspecified: a contrast that was synthesised has no unit
    data.VOILUTFunction = "LINEAR_EXACT"

    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.ImplementationClassUID = UID(uid(MAKER))
    data.file_meta.ImplementationVersionName = f"{MAKER} {__version__}"[:16]
    return data


def _equipment(header: SeriesHeader) -> Dataset:
    """The model, as the equipment that contributed (C.12.1, PS3.16 CID 7005)."""
    from pydicom.dataset import Dataset

    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = MAKER
    item.ManufacturerModelName = text(header.model, 64)
    item.SoftwareVersions = [__version__, f"model sha256 {header.model_sha256}"[:64]]
    item.ContributionDescription = text(header.derivation, 1024)
    return item


def ds(value: float) -> str:
    """A finite number as a decimal string: at most 16 characters (PS3.5 6.2), as exact as fits."""
    shortest = repr(float(value) + 0.0)  # never -0
    if len(shortest) <= 16:
        return shortest.removesuffix(".0")
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value))


def text(value: str, length: int) -> str:
    """`value` in printable ASCII, without the backslash that parts values, cut to `length`."""
    plain = value.encode("ascii", "replace").decode()
    return "".join(c if c.isprintable() and c != "\\" else "?" for c in plain)[:length].strip()
