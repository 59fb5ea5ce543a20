"""`fastmrigan info` of DICOM files: technical facts, a preview, no identity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dicom_files import STORED, at, dicom, enhanced
from PIL import Image

from fastmrigan.cli.info import info
from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dicom import preview

SECRETS = {
    "PatientName": "SECRET^NAME",
    "PatientID": "SECRET-ID",
    "StudyDate": "20200102",
    "InstitutionName": "SECRET HOSPITAL",
    "StudyInstanceUID": "1.2.3.777",
    "SeriesInstanceUID": "1.2.3.888",
}


def test_the_technical_facts_and_no_identity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dicom(tmp_path / "a.dcm", EchoTime=98.5, BurnedInAnnotation="NO", **at(4), **SECRETS)
    info(path)
    told = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in told.splitlines())
    assert lines["class"] == "MR Image Storage"
    assert "Explicit VR Little Endian" in told
    assert lines["pixels"] == "24x20, 1 frame, MONOCHROME2"
    assert lines["stack"] == "1 axial slice"
    assert lines["EchoTime"] == "98.5"
    info(path, as_json=True)
    document = json.loads(told_json := capsys.readouterr().out)
    assert document["rows"] == 20
    assert document["burned_in_annotation"] == "no"
    assert document["tags"]["EchoTime"] == 98.5
    for text in (told.replace(str(path), ""), told_json.replace(str(path), "")):
        assert not any(word in text for word in ("SECRET", "2020", "777", "888"))


def test_what_dicom_does_not_know_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"SOPClassUID": "2.25.777888", "PhotometricInterpretation": "SECRET NAME"}
    info(dicom(tmp_path / "a.dcm", **odd))
    told = capsys.readouterr()
    assert "SECRET" not in told.out + told.err
    assert "777888" not in told.out + told.err
    assert "class            unknown to DICOM" in told.out


def test_the_preview_is_the_middle_slice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = np.stack([STORED, STORED[::-1], STORED])
    path = tmp_path / "a.dcm"
    enhanced(stored, (0, 4, 8)).save_as(path, enforce_file_format=True)
    info(path, preview=tmp_path / "a.png")
    assert "3 axial slices, 4 mm apart" in capsys.readouterr().out
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(shown, preview(path)[1])
    assert shown[0, 0] > shown[-1, -1]


def test_what_cannot_be_shown_is_refused_by_name(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", Rows=None)
    with pytest.raises(InputRejected, match=r"a\.dcm: DICOM without Rows$"):
        info(path)
    path.write_text("words")
    with pytest.raises(UsageError, match=r"a\.dcm: not a DICOM file; --preview"):
        info(path, preview=tmp_path / "a.png")
