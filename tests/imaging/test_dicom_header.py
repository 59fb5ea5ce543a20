"""What a header tells, and what it never tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dicom_files import AXIAL, CORONAL, SAGITTAL, STORED, at, dicom, enhanced, mr
from pydicom import dcmread
from pydicom.uid import RLELossless

from fastmrigan.imaging.dicom import open_bounded, read_dicom, read_header

ACQUISITION = {
    "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    "MagneticFieldStrength": 1.5,
    "RepetitionTime": 9000,
    "EchoTime": 98.5,
    "InversionTime": 2500,
    "FlipAngle": 150,
    "ScanningSequence": ["SE", "IR"],
    "SequenceVariant": "SK",
    "MRAcquisitionType": "2D",
    "SpacingBetweenSlices": 5.5,
}
IDENTITY = {
    "PatientName": "SECRET^NAME",
    "PatientID": "SECRET-ID",
    "PatientBirthDate": "19330101",
    "StudyDate": "20200102",
    "InstitutionName": "SECRET HOSPITAL",
    "StationName": "SECRETSTATION",
    "ProtocolName": "SECRET protocol",
    "SequenceName": "SECRETseq",
    "SeriesDescription": "SECRET words",
    "DeviceSerialNumber": "SECRET7",
    "SeriesInstanceUID": "1.2.3.4.7777",
    "StudyInstanceUID": "1.2.3.4.8888",
}


def test_the_facts_of_a_classic_image(tmp_path: Path) -> None:
    tags = {**at(12.5), **ACQUISITION, **IDENTITY}
    header = read_header(dicom(tmp_path / "a.dcm", **tags))
    assert (header.rows, header.columns, header.frames) == (20, 24, 1)
    assert (header.modality, header.photometric) == ("MR", "MONOCHROME2")
    assert header.syntax == "1.2.840.10008.1.2.1"
    assert header.sop_class == "1.2.840.10008.5.1.4.1.1.4"
    assert (header.patient, header.series) == ("SECRET-ID", "1.2.3.4.7777")
    assert header.tags == {
        "Modality": "MR",
        "ImageType": "ORIGINAL\\PRIMARY\\M",
        "MRAcquisitionType": "2D",
        "ScanningSequence": "SE\\IR",
        "SequenceVariant": "SK",
        "MagneticFieldStrength": 1.5,
        "RepetitionTime": 9000,
        "EchoTime": 98.5,
        "InversionTime": 2500,
        "FlipAngle": 150,
        "SliceThickness": 4,
        "SpacingBetweenSlices": 5.5,
        "PixelSpacing": "0.9\\0.8",
    }
    assert header.positions is not None
    (position,) = header.positions
    assert position.origin == (0, 0, 12.5)
    assert (position.row, position.column) == ((1, 0, 0), (0, 1, 0))
    assert (position.spacing, position.thickness) == ((0.9, 0.8), 4)


def test_identity_stays_out_of_the_tags(tmp_path: Path) -> None:
    hidden = {"ImageType": ["ORIGINAL", "SECRET"], "ScanningSequence": "SECRET"}
    path = dicom(tmp_path / "a.dcm", **{**ACQUISITION, **IDENTITY, **hidden})
    for tags in (read_header(path).tags, read_dicom(path).tags):
        told = json.dumps(dict(tags))
        assert "SECRET" not in told
        assert not any(value in told for value in ("1933", "2020", "7777", "8888"))
        assert tags["ImageType"] == "ORIGINAL"


def test_the_facts_of_an_enhanced_object(tmp_path: Path) -> None:
    stored = np.stack([STORED] * 3)
    enhanced(stored, (8, 0, 4)).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    header = read_header(tmp_path / "a.dcm")
    assert header.frames == 3
    assert header.positions is not None
    assert [position.along_normal for position in header.positions] == [8, 0, 4]
    expected = {"EchoTime": 98.5, "RepetitionTime": 2500, "FlipAngle": 90, "SliceThickness": 4}
    assert {name: header.tags[name] for name in expected} == expected
    assert header.tags["PixelSpacing"] == "0.9\\0.8"


@pytest.mark.parametrize(
    ("cosines", "plane"),
    [
        (AXIAL, "axial"),
        (SAGITTAL, "sagittal"),
        (CORONAL, "coronal"),
        ((0.9, 0.4359, 0, 0, 0, -1), "coronal"),
        ((0.8, 0.6, 0, -0.36, 0.48, 0.8), "oblique"),
    ],
)
def test_the_plane(tmp_path: Path, cosines: tuple[float, ...], plane: str) -> None:
    header = read_header(dicom(tmp_path / "a.dcm", **at(3, cosines)))
    assert header.positions is not None
    assert header.positions[0].plane == plane
    assert header.positions[0].along_normal == pytest.approx(3, abs=1e-3)


@pytest.mark.parametrize(
    "tags",
    [
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": None},
        {"PixelSpacing": None},
        {"PixelSpacing": [1e-300, 1e-300]},
        {"ImagePositionPatient": [0, 0, 1e308]},
        {"PixelSpacing": [0, 0.8]},
        {"ImagePositionPatient": [1, 2]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]},
    ],
)
def test_a_position_that_cannot_be_is_none(tmp_path: Path, tags: dict) -> None:
    plain = at(0)
    plain.update({name: value for name, value in tags.items() if value is not None})
    absent = [name for name, value in tags.items() if value is None]
    path = dicom(tmp_path / "a.dcm", **{k: v for k, v in plain.items() if k not in absent})
    assert read_header(path).positions is None
    assert read_dicom(path).positions is None


@pytest.mark.parametrize(
    ("said", "expected"), [("NO", "no"), ("YES", "yes"), ("", "unknown"), (None, "unknown")]
)
def test_burned_in_annotation(tmp_path: Path, said: str | None, expected: str) -> None:
    tags = {} if said is None else {"BurnedInAnnotation": said}
    assert read_header(dicom(tmp_path / "a.dcm", **tags)).burned_in == expected


def test_the_pixels_are_not_read(tmp_path: Path) -> None:
    """A header whose pixels are cut off is still a header."""
    made = mr(np.zeros((512, 512), int))
    made.compress(RLELossless)
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    data = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(data[: data.index(b"\xe0\x7f\x10\x00") + 30])
    assert read_header(tmp_path / "a.dcm").rows == 512
    with pytest.raises(ValueError, match=r"^its pixels are cut short$"):
        read_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize("tags", [{"Rows": None}, {"PhotometricInterpretation": None}])
def test_without_an_image_there_is_no_header(tmp_path: Path, tags: dict) -> None:
    path = dicom(tmp_path / "a.dcm", **tags)
    with pytest.raises(ValueError, match=f"^DICOM without {next(iter(tags))}$"):
        read_header(path)


def test_open_bounded_gives_what_pydicom_gives(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", **{**at(3), **ACQUISITION, **IDENTITY})
    assert open_bounded(path) == dcmread(path)
    assert open_bounded(path).file_meta == dcmread(path).file_meta
