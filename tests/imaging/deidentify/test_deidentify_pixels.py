"""De-identification: pixels, transfer syntaxes and text that is burned in."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from deidentify_files import MR, make, one, outputs, run, saved
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID


def test_file_meta_information_and_stamp(tmp_path: Path) -> None:
    dataset = make()
    dataset.file_meta.SourceApplicationEntityTitle = "DOE"
    dataset.file_meta.PrivateInformationCreatorUID = UID("1.2.3.4")
    dataset.file_meta.PrivateInformation = b"DOE "
    (tmp_path / "in").mkdir()
    dataset.save_as(tmp_path / "in" / "a.dcm", enforce_file_format=True)
    after = one(tmp_path / "in", tmp_path / "out")
    content = outputs(tmp_path / "out")[0].read_bytes()
    assert content[:132] == bytes(128) + b"DICM"
    assert b"DOE" not in content
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert after.file_meta.MediaStorageSOPClassUID == after.SOPClassUID == MR
    assert after.PatientIdentityRemoved == "YES"
    assert "2026c" in str(after.DeidentificationMethod)
    (code,) = after.DeidentificationMethodCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
    assert after.LongitudinalTemporalInformationModified == "REMOVED"


SYNTAXES = [
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "image_dfl.dcm",
    "JPGExtended.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_jpeg.dcm",  # says explicit VR and is implicit
]


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
@pytest.mark.parametrize("name", SYNTAXES)
def test_pixels_and_transfer_syntax_stay_to_the_byte(tmp_path: Path, name: str) -> None:
    source = Path(get_testdata_file(name, download=False))
    before = dcmread(source)
    after = one(source, tmp_path / "out", allow_burned_in="yes")
    assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
    assert after.PixelData == before.PixelData


@pytest.mark.parametrize(
    ("value", "allowed", "passes"),
    [
        ("NO", "no", True),
        ("YES", "no", False),
        ("YES", "unknown", False),
        ("YES", "yes", True),
        ("", "no", False),
        ("", "unknown", True),
        ("MAYBE", "no", False),
        (None, "no", False),
        (None, "unknown", True),
    ],
)
def test_burned_in_text_goes_to_quarantine(
    tmp_path: Path, value: str | None, allowed: str, passes: bool
) -> None:
    source = saved(tmp_path / "in", BurnedInAnnotation=value)
    made = run(source, tmp_path / "out", allow_burned_in=allowed)
    assert made.written == passes
    if not passes:
        (refused,) = made.refused
        assert "in quarantine: its pixels" in refused.reason
        wanted = "yes" if value == "YES" else "unknown"
        assert refused.reason.endswith(f"--allow-burned-in {wanted}")


@pytest.mark.parametrize("data", [None, b""])
def test_an_overlay_in_the_pixels_counts_as_burned_in(tmp_path: Path, data: bytes | None) -> None:
    dataset = make()
    dataset.add_new(0x6000_0010, "US", 2)
    dataset.add_new(0x6000_0102, "US", 12)
    if data is not None:
        dataset.add_new(0x6000_3000, "OW", data)
    (tmp_path / "in").mkdir()
    dataset.save_as(tmp_path / "in" / "a.dcm", enforce_file_format=True)
    (refused,) = run(tmp_path / "in", tmp_path / "out", allow_burned_in="unknown").refused
    assert "an overlay is kept in the high bits" in refused.reason
    assert run(tmp_path / "in", tmp_path / "out", allow_burned_in="yes").written == 1


def test_a_voice_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "in", SOPClassUID="1.2.840.10008.5.1.4.1.1.9.4.1")
    (refused,) = run(source, tmp_path / "out").refused
    assert refused.reason == "a recording of a voice, which tells who speaks"


def test_without_pixels_nothing_is_burned_in(tmp_path: Path) -> None:
    source = Path(get_testdata_file("rtplan.dcm", download=False))
    assert one(source, tmp_path / "out").Modality == "RTPLAN"
