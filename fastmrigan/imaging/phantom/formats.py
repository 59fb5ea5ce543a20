"""One phantom slice to the bytes of one file: PNG, NIfTI or DICOM.

Stored values are the same in PNG and DICOM: MR round(signal * 65535), CT Hounsfield units + 1024.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.emit import uids
from fastmrigan.imaging.phantom.signal import SEQUENCES
from fastmrigan.imaging.phantom.slices import FIELD_OF_VIEW_MM

Float32 = npt.NDArray[np.float32]

HU_OFFSET = 1024
THICKNESS_MM = 5.0  # what the headers say; the phantom itself is cut infinitely thin
EXTENSIONS = {"png": ".png", "nifti": ".nii.gz", "dicom": ".dcm"}


@dataclass(frozen=True)
class SliceInfo:
    """What a file says of its slice besides the pixels."""

    request: str  # identifies the settings, for the unique identifiers of DICOM
    contrast: str
    head: int
    slice: int
    level_mm: float
    pixel_mm: float


def stored(signal: Float32, contrast: str) -> npt.NDArray[np.uint16]:
    """Signal to 16 bits: MR [0, 1] to 0 .. 65535, CT HU + 1024, both rounded and clamped."""
    scaled = signal + HU_OFFSET if contrast == "ct" else signal * 65535.0
    return np.clip(np.rint(scaled), 0, 65535).astype(np.uint16)


def png_bytes(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> bytes:
    """A grey PNG of [H, W] pixels, 8 or 16 bits by their type."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def nifti_bytes(pixels: npt.NDArray[np.generic], info: SliceInfo) -> bytes:
    """A gzipped NIfTI-1 volume of one slice, [W, H, 1], millimetres in scanner space.

    The first axis runs to the patient's left and the second to the back, as the affine says.
    Raises MissingDependency where nibabel is absent.
    """
    try:
        import nibabel
    except ImportError:
        raise MissingDependency("nibabel", "dicom", "writing NIfTI") from None

    corner = (FIELD_OF_VIEW_MM - info.pixel_mm) / 2.0
    affine = np.diag([-info.pixel_mm, -info.pixel_mm, THICKNESS_MM, 1.0])
    affine[:3, 3] = corner, corner, info.level_mm
    new_image: Any = nibabel.Nifti1Image  # nibabel leaves it untyped
    image = new_image(np.ascontiguousarray(pixels.T[:, :, None]), affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"synthetic phantom {info.contrast}".encode()
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def dicom_bytes(signal: Float32, info: SliceInfo) -> bytes:
    """A DICOM file: MR Image Storage, or CT Image Storage for ct, marked as synthetic.

    Raises MissingDependency where pydicom is absent.
    """
    try:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
    except ImportError:
        raise MissingDependency("pydicom", "dicom", "writing DICOM") from None

    ct = info.contrast == "ct"
    head = f"HEAD{info.head:04d}"
    data = Dataset()
    data.SOPClassUID = CTImageStorage if ct else MRImageStorage
    data.SOPInstanceUID = uid(info, "instance", info.contrast, info.slice)
    data.StudyInstanceUID = uid(info, "study")
    data.SeriesInstanceUID = uid(info, "series", info.contrast)
    data.FrameOfReferenceUID = uid(info, "frame")  # one a head: the contrasts are registered
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if ct else "OTHER"]
    data.DerivationDescription = "Synthetic phantom, not acquired from a patient"
    data.SyntheticData = "YES"
    data.ContentQualification = "RESEARCH"
    data.BurnedInAnnotation = "NO"
    data.Modality = "CT" if ct else "MR"
    data.Manufacturer = "FastMRIGAN"
    data.ManufacturerModelName = "Procedural head phantom"
    data.PatientName = f"PHANTOM^{head}"
    data.PatientID = head
    data.PatientBirthDate = data.PatientSex = ""
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.StudyID = str(info.head)
    data.SeriesNumber = 1 + ("ct", *SEQUENCES).index(info.contrast)
    data.SeriesDescription = f"phantom {info.contrast}"
    data.InstanceNumber = info.slice + 1
    data.BodyPartExamined = "HEAD"
    data.PatientPosition = "HFS"
    data.PositionReferenceIndicator = ""
    corner = (FIELD_OF_VIEW_MM - info.pixel_mm) / 2.0
    data.ImagePositionPatient = [f"{value:.6g}" for value in (-corner, -corner, info.level_mm)]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.PixelSpacing = [f"{info.pixel_mm:.6g}"] * 2
    data.SliceThickness = f"{THICKNESS_MM:g}"
    data.SliceLocation = f"{info.level_mm:.6g}"
    if ct:
        data.KVP = "120"
        data.AcquisitionNumber = 1
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -HU_OFFSET, 1, "HU"
        data.WindowCenter, data.WindowWidth = 40, 80
    else:
        sequence = SEQUENCES[info.contrast]
        data.ScanningSequence = ["SE", "IR"] if sequence.ti_ms else "SE"
        data.SequenceVariant = "NONE"
        data.ScanOptions = ""
        data.MRAcquisitionType = "2D"
        data.RepetitionTime = f"{sequence.tr_ms:g}"
        data.EchoTime = f"{sequence.te_ms:g}"
        data.EchoTrainLength = 1
        if sequence.ti_ms:
            data.InversionTime = f"{sequence.ti_ms:g}"
        data.MagneticFieldStrength = "1.5"
        data.WindowCenter, data.WindowWidth = 32768, 65536
    pixels = stored(signal, info.contrast)
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = 0
    data.PixelData = pixels.astype("<u2").tobytes()

    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def uid(info: SliceInfo, *parts: object) -> str:
    """A 2.25 unique identifier made of the settings, the head and `parts`: the same each run."""
    return uids.uid(info.request, info.head, *parts)
