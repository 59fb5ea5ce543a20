"""DICOM made here, in every grey flavour, read back against the plain arithmetic of PS3.3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from fastmrigan.imaging.readers import read
from fastmrigan.imaging.walker import Refused

STORED = np.arange(20 * 24).reshape(20, 24)  # [H, W]


def dicom(path: Path, stored: np.ndarray | None = STORED, **tags: object) -> Path:
    """Writes an MR image; `tags` override or, as None, remove elements."""
    signed = bool(tags.get("PixelRepresentation", 0))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    dataset = FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientID, dataset.PatientName = "MR", "id-17", "Doe^Jane"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(signed)
    if stored is not None:
        dataset.Rows, dataset.Columns = stored.shape[-2:]
        dataset.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("stored", "tags", "expected"),
    [
        (STORED, {}, STORED),
        (STORED, {"RescaleSlope": 2.5, "RescaleIntercept": -1024}, STORED * 2.5 - 1024),
        (STORED - 200, {"PixelRepresentation": 1}, STORED - 200),
        (STORED, {"PhotometricInterpretation": "MONOCHROME1"}, 4095 - STORED),
        (
            STORED - 200,
            {"PixelRepresentation": 1, "PhotometricInterpretation": "MONOCHROME1"},
            -1 - (STORED - 200),
        ),
        (
            STORED,
            {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": 2, "RescaleIntercept": 5},
            (4095 - STORED) * 2 + 5,
        ),
    ],
    ids=["plain", "rescale", "signed", "inverted", "inverted-signed", "inverted-rescale"],
)
def test_stored_values_to_the_modality_unit(
    tmp_path: Path, stored: np.ndarray, tags: dict, expected: np.ndarray
) -> None:
    image = read(dicom(tmp_path / "a.dcm", stored, **tags), "a.dcm")
    np.testing.assert_array_equal(image.slices, expected[None].astype(np.float32))
    assert image.patient == "id-17"
    assert image.mode == f"DICOM {tags.get('PhotometricInterpretation', 'MONOCHROME2')} 12 bit"


def test_modality_lookup_table(tmp_path: Path) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [480, 0, 16], "US"
    lut.LUTData = (np.arange(480, dtype="<u2") * 3 + 1).tobytes()
    lut["LUTData"].VR = "OW"
    image = read(dicom(tmp_path / "a.dcm", ModalityLUTSequence=[lut]), "a.dcm")
    np.testing.assert_array_equal(image.slices[0], STORED * 3 + 1)


def test_found_by_content_without_an_extension(tmp_path: Path) -> None:
    assert read(dicom(tmp_path / "IM0001"), "IM0001").mode.startswith("DICOM")


def test_without_a_patient_the_study_tells_patients_apart(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", PatientID="", StudyInstanceUID="1.2.3")
    assert read(path, "a.dcm").patient == "1.2.3"
    assert read(dicom(tmp_path / "b.dcm", PatientID=None), "b.dcm").patient is None


@pytest.mark.parametrize(
    ("stored", "tags", "reason"),
    [
        (None, {}, "DICOM without pixels"),
        (STORED, {"Rows": None}, "DICOM without Rows"),
        (STORED, {"PhotometricInterpretation": None}, "DICOM without PhotometricInterpretation"),
        (np.stack([STORED] * 3), {"NumberOfFrames": 3}, r"multi-frame DICOM \(3 frames\)"),
        (STORED, {"PhotometricInterpretation": "RGB"}, r"colour DICOM \(RGB\)"),
        (STORED, {"Rows": 60000, "Columns": 60000}, "claims 60000x60000 pixels"),
        (STORED[:10], {}, "24x10 pixels; at least 16x16"),
        (STORED, {"Rows": 400}, r"cannot be decoded \(The number of bytes of pixel data is less"),
        (STORED * 0 + 9, {}, "constant: every pixel is 9"),
    ],
)
def test_refused(tmp_path: Path, stored: np.ndarray | None, tags: dict, reason: str) -> None:
    with pytest.raises(Refused, match=f"^a.dcm: .*{reason}"):
        read(dicom(tmp_path / "a.dcm", stored, **tags), "a.dcm")


def test_deflated_is_refused_before_anything_is_inflated(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", syntax="1.2.840.10008.1.2.1.99")
    with pytest.raises(Refused, match="deflated DICOM is not read"):
        read(path, "a.dcm")


def test_truncated_header(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(Refused, match="DICOM"):
        read(path, "a.dcm")
