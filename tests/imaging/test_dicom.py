"""DICOM made here, in every grey flavour, read back against the plain arithmetic of PS3.3."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import STORED, at, dicom, enhanced, item, mr
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.dicom import preview, read_dicom, read_header
from fastmrigan.imaging.readers import read
from fastmrigan.imaging.walker import Refused

SIGNED = {"PixelRepresentation": 1}
INVERTED = {"PhotometricInterpretation": "MONOCHROME1"}


@pytest.mark.parametrize(
    ("stored", "tags", "expected"),
    [
        (STORED, {}, STORED),
        (STORED, {"RescaleSlope": 2.5, "RescaleIntercept": -1024}, STORED * 2.5 - 1024),
        (STORED, {"RescaleSlope": -3, "RescaleIntercept": 7}, STORED * -3.0 + 7),
        (STORED - 200, SIGNED, STORED - 200),
        (STORED % 256, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, STORED % 256),
        (
            STORED % 256 - 128,
            {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, **SIGNED},
            STORED % 256 - 128,
        ),
        (STORED * 130, {"BitsStored": 16, "HighBit": 15}, STORED * 130),
        (STORED * 60 - 9000, {"BitsStored": 16, "HighBit": 15, **SIGNED}, STORED * 60 - 9000),
        (STORED | 0x3000, {}, STORED),  # an overlay in the unused bits
        (STORED, INVERTED, 4095 - STORED),
        (STORED - 200, {**SIGNED, **INVERTED}, -1 - (STORED - 200)),
        (
            STORED,
            {**INVERTED, "RescaleSlope": 2, "RescaleIntercept": 5},
            (4095 - STORED) * 2 + 5,
        ),
    ],
    ids=[
        "plain",
        "rescale",
        "negative-slope",
        "signed",
        "8-bit",
        "signed-8-bit",
        "16-bit",
        "signed-16-bit",
        "unused-bits",
        "inverted",
        "inverted-signed",
        "inverted-rescale",
    ],
)
def test_stored_values_to_the_modality_unit(
    tmp_path: Path, stored: np.ndarray, tags: dict, expected: np.ndarray
) -> None:
    image = read(dicom(tmp_path / "a.dcm", stored, **tags), "a.dcm")
    np.testing.assert_array_equal(image.slices, expected[None].astype(np.float32))
    assert image.patient == "id-17"
    bits = tags.get("BitsStored", 12)
    assert image.mode == f"DICOM {tags.get('PhotometricInterpretation', 'MONOCHROME2')} {bits} bit"


def test_modality_lookup_table(tmp_path: Path) -> None:
    lut = item(LUTDescriptor=[480, 0, 16], ModalityLUTType="US")
    lut.LUTData = (np.arange(480, dtype="<u2") * 3 + 1).tobytes()
    lut["LUTData"].VR = "OW"
    image = read(dicom(tmp_path / "a.dcm", ModalityLUTSequence=[lut]), "a.dcm")
    np.testing.assert_array_equal(image.slices[0], STORED * 3 + 1)


@pytest.mark.parametrize(("keyword", "kind"), [("Float", "<f4"), ("DoubleFloat", "<f8")])
def test_floating_point_pixels(tmp_path: Path, keyword: str, kind: str) -> None:
    dataset = mr(None, Rows=20, Columns=24, BitsAllocated=int(kind[2]) * 8)
    for name in ("BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    setattr(dataset, f"{keyword}PixelData", (STORED / 7).astype(kind).tobytes())
    setattr(dataset, f"{keyword}PixelPaddingValue", float((STORED / 7).astype(kind)[3, 3]))
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    expected = (STORED / 7).astype(np.float32)
    expected[3, 3] = 0
    image = read_dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.slices[0], expected)
    assert image.mode == f"DICOM MONOCHROME2 {int(kind[2]) * 8} bit float"


@pytest.mark.parametrize(
    ("stored", "tags", "padded"),
    [
        (STORED, {"PixelPaddingValue": 0}, STORED == 0),
        (STORED, {"PixelPaddingValue": 470}, STORED == 470),
        (STORED, {"PixelPaddingValue": 479, "PixelPaddingRangeLimit": 400}, STORED >= 400),
        (STORED, {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 99}, STORED < 100),
        (STORED - 200, {"PixelPaddingValue": -200, **SIGNED}, STORED == 0),
        (STORED, {"PixelPaddingValue": 9, **INVERTED}, STORED == 9),
        (STORED, {"PixelPaddingValue": 9, "RescaleSlope": -2, "RescaleIntercept": 1}, STORED == 9),
        (STORED, {"PixelPaddingValue": 4000}, STORED < 0),
    ],
    ids=["0", "bright", "range-down", "range", "signed", "inverted", "rescaled", "absent"],
)
def test_padding_becomes_the_lowest_real_value(
    tmp_path: Path, stored: np.ndarray, tags: dict, padded: np.ndarray
) -> None:
    tags = {"RescaleSlope": 1, "RescaleIntercept": 0, **tags}
    plain = {name: value for name, value in tags.items() if "Padding" not in name}
    expected = read_dicom(dicom(tmp_path / "plain.dcm", stored, **plain)).slices[0].copy()
    expected[padded] = expected[~padded].min()
    image = read_dicom(dicom(tmp_path / "a.dcm", stored, **tags))
    np.testing.assert_array_equal(image.slices[0], expected)


def test_padding_written_with_the_wrong_sign(tmp_path: Path) -> None:
    stored = (STORED - 200).copy()
    stored[:5] = -2000
    dataset = mr(stored, BitsStored=16, HighBit=15, PixelRepresentation=1)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert read_dicom(tmp_path / "a.dcm").slices.min() == stored[5:].min()


def test_a_slice_of_padding_alone_takes_the_lowest_value_of_the_file(tmp_path: Path) -> None:
    stored = np.stack([STORED + 100, STORED * 0, STORED + 50])
    enhanced(stored, (0, 4, 8), PixelPaddingValue=0).save_as(tmp_path / "a.dcm")
    slices = read_dicom(tmp_path / "a.dcm").slices
    assert np.all(slices[1] == 50)
    np.testing.assert_array_equal(slices[0], stored[0])


def test_frames_of_an_enhanced_object_have_their_own_scale_and_place(tmp_path: Path) -> None:
    stored = np.stack([STORED, STORED[::-1], STORED.T.reshape(STORED.shape)])
    own = [
        item(PixelValueTransformationSequence=[item(RescaleSlope=s, RescaleIntercept=i)])
        for s, i in ((1, 0), (2.5, -10), (0.5, 3))
    ]
    enhanced(stored, (10, 2, 6), own).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = read(tmp_path / "a.dcm", "a.dcm")
    expected = np.stack([stored[0], stored[1] * 2.5 - 10, stored[2] * 0.5 + 3])
    np.testing.assert_array_equal(image.slices, expected.astype(np.float32))
    assert image.volume
    assert image.positions is not None
    assert [position.origin for position in image.positions] == [(-100, -90, z) for z in (10, 2, 6)]
    assert image.positions[0].spacing == (0.9, 0.8)
    assert image.positions[0].thickness == 4


def test_the_shared_scale_holds_for_frames_without_their_own(tmp_path: Path) -> None:
    dataset = enhanced(np.stack([STORED] * 2), (0, 4))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence = [item(RescaleSlope=3, RescaleIntercept=1)]
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom(tmp_path / "a.dcm").slices[1], STORED * 3 + 1)


def test_several_frames_without_positions_are_a_volume_in_file_order(tmp_path: Path) -> None:
    stored = np.stack([STORED, STORED + 9])
    image = read(dicom(tmp_path / "a.dcm", stored, NumberOfFrames=2, **at(3)), "a.dcm")
    np.testing.assert_array_equal(image.slices, stored)
    assert image.volume
    assert image.positions is None  # one position says nothing of two frames


def philips(
    dataset: Dataset, scale_slope: float, creator: str = "Philips MR Imaging DD 001"
) -> None:
    block = dataset.private_block(0x2005, creator, create=True)
    block.add_new(0x0D, "FL", 0.0)
    block.add_new(0x0E, "FL", scale_slope)


def test_philips_precise_values(tmp_path: Path) -> None:
    """P = (stored * RS + RI) / (RS * SS); dcm2niix agrees in test_dicom_peers.py."""
    dataset = mr(STORED, RescaleSlope=2, RescaleIntercept=-6)
    philips(dataset, 0.25)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    expected = (STORED * 2 - 6) / (2 * 0.25)
    np.testing.assert_array_equal(read_dicom(tmp_path / "a.dcm").slices[0], expected)


def test_philips_precise_values_of_each_frame(tmp_path: Path) -> None:
    own = []
    for slope, scale_slope in ((2, 0.25), (4, 0.125)):
        private = Dataset()
        philips(private, scale_slope)
        group = item(
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=0)]
        )
        block = group.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        block.add_new(0x0F, "SQ", [private])
        own.append(group)
    enhanced(np.stack([STORED] * 2), (0, 4), own).save_as(tmp_path / "a.dcm")
    slices = read_dicom(tmp_path / "a.dcm").slices
    np.testing.assert_array_equal(slices, np.stack([STORED * 4, STORED * 8]))


def test_the_same_private_number_of_another_maker_is_no_scale(tmp_path: Path) -> None:
    dataset = mr(STORED, RescaleSlope=2, RescaleIntercept=-6)
    philips(dataset, 0.25, creator="SOMEONE ELSE")
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom(tmp_path / "a.dcm").slices[0], STORED * 2 - 6)


def rgb(path: Path, colours: np.ndarray, kind: str = "RGB") -> Path:
    dataset = mr(STORED, PhotometricInterpretation=kind, SamplesPerPixel=3, PlanarConfiguration=0)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = colours.astype(np.uint8).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_colour_becomes_luminance_when_asked(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 24, 3))
    path = rgb(tmp_path / "a.dcm", colours)
    with pytest.raises(ValueError, match=r"^colour DICOM \(RGB\); grey is read; ask"):
        read_dicom(path)
    image = read_dicom(path, convert_rgb=True)
    np.testing.assert_allclose(image.slices[0], colours @ (0.299, 0.587, 0.114), rtol=1e-5)
    same = rgb(tmp_path / "b.dcm", np.dstack([STORED % 256] + [STORED * 0 + 128] * 2), "YBR_FULL")
    np.testing.assert_allclose(read_dicom(same, convert_rgb=True).slices[0], STORED % 256, atol=0.6)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_window_is_for_the_preview_alone(tmp_path: Path, photometric: str) -> None:
    """Against PS3.3 C.11.2.1.2: ((x - (c - 0.5)) / (w - 1) + 0.5) * 255."""
    tags = {"WindowCenter": [500, 1], "WindowWidth": [401, 1], "RescaleSlope": 2}
    tags |= {"RescaleIntercept": 0, "PhotometricInterpretation": photometric}
    path = dicom(tmp_path / "a.dcm", **tags)
    expected = np.clip(((STORED * 2 - 499.5) / 400 + 0.5) * 255, 0, 255)
    if photometric == "MONOCHROME1":
        expected = 255 - expected
    assert np.abs(preview(path)[0] - expected).max() <= 0.5
    assert preview(path).dtype == np.uint8
    assert read_dicom(path).slices.max() - read_dicom(path).slices.min() == 479 * 2


def test_preview_by_lookup_table_and_without_a_window(tmp_path: Path) -> None:
    table = item(LUTDescriptor=[480, 0, 16], LUTData=[65535 - 100 * i for i in range(480)])
    table["LUTData"].VR = "US"
    expected = (65535 - 100 * STORED) * (255 / 65535)
    path = dicom(tmp_path / "a.dcm", VOILUTSequence=[table])
    assert np.abs(preview(path)[0] - expected).max() <= 0.5
    plain = preview(dicom(tmp_path / "b.dcm"))[0]
    assert plain[0, 0] == 0
    assert plain[-1, -1] == 255
    assert np.all(np.diff(plain.ravel().astype(int)) >= 0)


def test_each_frame_has_its_own_window(tmp_path: Path) -> None:
    own = [
        item(FrameVOILUTSequence=[item(WindowCenter=c, WindowWidth=w)])
        for c, w in ((100.5, 101), (300.5, 51))
    ]
    enhanced(np.stack([STORED] * 2), (0, 4), own).save_as(tmp_path / "a.dcm")
    made = preview(tmp_path / "a.dcm")
    for frame, (center, width) in zip(made, ((100, 100), (300, 50)), strict=True):
        expected = np.clip(((STORED - center) / width + 0.5) * 255, 0, 255)
        assert np.abs(frame - expected).max() <= 0.5


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
        (STORED, {"BitsAllocated": None}, "DICOM without BitsAllocated"),
        (STORED, {"PixelRepresentation": None}, "DICOM without PixelRepresentation"),
        (STORED, {"PhotometricInterpretation": "RGB"}, r"colour DICOM \(RGB\)"),
        (STORED, {"PhotometricInterpretation": "PALETTE COLOR"}, r"colour DICOM \(PALETTE COLOR"),
        (STORED, {"PhotometricInterpretation": "DOE JOHN"}, r"colour DICOM \(an unknown photom"),
        (STORED, {"HighBit": 15}, "12 stored bits of which bit 15 is the highest"),
        (STORED, {"SamplesPerPixel": 3}, "3 samples a pixel of MONOCHROME2"),
        (STORED, {"Rows": 60000, "Columns": 60000}, "claims 60000x60000 pixels; at most"),
        (STORED, {"NumberOfFrames": 10**7}, "claims 10,000,000 frames; at most 65,536 are read"),
        (STORED, {"NumberOfFrames": -1}, "claims -1 frames"),
        (
            STORED,
            {"NumberOfFrames": 10, "Rows": 8000, "Columns": 7000},
            "claims 10 frames of 7000x8000 pixels; at most",
        ),
        (STORED, {"BitsAllocated": 32}, "pixels of 32 bits; 8 to 16-bit integers and floats"),
        (STORED, {"BitsAllocated": 1, "BitsStored": 1}, "pixels of 1 bits"),
        (STORED, {"BitsStored": 17}, "claims 17 stored bits in 16 allocated ones"),
        (STORED[:10], {}, "24x10 pixels; at least 16x16"),
        (STORED, {"Rows": 400}, r"cannot be decoded \(The number of bytes of pixel data is less"),
        (STORED, {"NumberOfFrames": 3}, "cannot be decoded"),
        (STORED, {"RescaleSlope": 0, "RescaleIntercept": 0}, "its RescaleSlope is 0"),
        (STORED * 0 + 9, {}, "constant: every pixel is 9"),
    ],
)
def test_refused(tmp_path: Path, stored: np.ndarray | None, tags: dict, reason: str) -> None:
    with pytest.raises(Refused, match=f"^a.dcm: .*{reason}"):
        read(dicom(tmp_path / "a.dcm", stored, **tags), "a.dcm")


@pytest.mark.parametrize(
    ("syntax", "name"), [("1.2.840.10008.1.2.4.102", "MPEG-4 AVC"), ("1.2.3.4.5", "1.2.3.4.5")]
)
def test_a_syntax_that_is_not_read_is_named(tmp_path: Path, syntax: str, name: str) -> None:
    made = mr(STORED)
    made.compress(RLELossless)
    made.file_meta.TransferSyntaxUID = syntax
    made.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=True)
    with pytest.raises(Refused, match=f"^a.dcm: transfer syntax {name}.* is not read"):
        read(tmp_path / "a.dcm", "a.dcm")


def test_without_pydicom_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dicom(tmp_path / "a.dcm")
    for name in ("pydicom", "pydicom.datadict"):
        monkeypatch.setitem(sys.modules, name, None)
    for face in (read_dicom, read_header, preview):
        with pytest.raises(MissingDependency, match=r"reading DICOM \(a\.dcm\).*fastmrigan\[dicom"):
            face(path)
