"""Small DICOM files made here, classic and enhanced, in every grey flavour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

STORED = np.arange(20 * 24).reshape(20, 24)  # [H, W]
AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL = (1, 0, 0, 0, 0, -1)


def mr(stored: np.ndarray | None = STORED, **tags: object) -> FileDataset:
    """A classic MR image of 12 bits in 16; `tags` override or, as None, remove elements."""
    signed = bool(tags.get("PixelRepresentation", 0))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags.pop("sop_class", MRImageStorage)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    syntax = UID(meta.TransferSyntaxUID)
    written = {"is_implicit_VR": syntax.is_implicit_VR, "is_little_endian": syntax.is_little_endian}
    dataset = FileDataset(None, Dataset(), file_meta=meta, preamble=b"\0" * 128, **written)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientID, dataset.PatientName = "MR", "id-17", "Doe^Jane"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(signed)
    if stored is not None:
        dataset.Rows, dataset.Columns = stored.shape[-2:]
        bits = 8 if tags.get("BitsAllocated") == 8 else 16
        order = "<" if syntax.is_little_endian else ">"
        kind = f"{order}{'i' if signed else 'u'}{bits // 8}"
        dataset.PixelData = stored.astype(kind).tobytes()
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def dicom(path: Path, stored: np.ndarray | None = STORED, **tags: object) -> Path:
    """Writes `mr(stored, **tags)`."""
    mr(stored, **tags).save_as(path, enforce_file_format=True)
    return path


def at(z: float, cosines: Sequence[float] = AXIAL, **tags: object) -> dict[str, object]:
    """Tags of a slice at `z` mm along the normal of its plane."""
    normal = np.cross(cosines[:3], cosines[3:])
    return {
        "ImagePositionPatient": list(normal * z),
        "ImageOrientationPatient": list(cosines),
        "PixelSpacing": [0.9, 0.8],
        "SliceThickness": 4,
        **tags,
    }


def item(**tags: object) -> Dataset:
    made = Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def enhanced(
    stored: np.ndarray, places: Sequence[float], own: Sequence[Dataset] = (), **tags: object
) -> FileDataset:
    """An enhanced MR object of frames [N, H, W] at `places`; `own` adds to each frame's group."""
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))],
        PixelMeasuresSequence=[item(PixelSpacing=[0.9, 0.8], SliceThickness=4)],
        MRTimingAndRelatedParametersSequence=[item(RepetitionTime=2500.0, FlipAngle=90.0)],
        MREchoSequence=[item(EffectiveEchoTime=98.5)],
    )
    frames = []
    for i, z in enumerate(places):
        group = item(PlanePositionSequence=[item(ImagePositionPatient=[-100.0, -90.0, z])])
        if own:
            group.update(own[i])
        frames.append(group)
    dataset = mr(stored, sop_class=EnhancedMRImageStorage, NumberOfFrames=len(stored))
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = frames
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset
