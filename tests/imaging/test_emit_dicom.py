"""Emitted DICOM: what pydicom writes, what the standard asks for, what other readers find."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastmrigan.errors import UsageError
from fastmrigan.imaging.emit.dicom import SeriesWriter, SliceHeader, file_bytes, write_series
from fastmrigan.imaging.emit.header import SeriesHeader, ds, text
from fastmrigan.imaging.emit.places import STEP_MM, invented
from fastmrigan.imaging.emit.uids import UID_LENGTH, uid
from fastmrigan.imaging.position import SlicePosition

pydicom = pytest.importorskip("pydicom")

OBLIQUE = SlicePosition(
    (0.0, 0.0, 0.0),
    (0.99846, -0.05536, -0.00307),
    (0.05331, 0.97368, -0.22156),
    (0.798611, 0.79861111111),
)
PLAIN = SeriesHeader(
    run="a run",
    series="series 3",
    patient="patient-0001",
    number=4,
    size=(5, 7),
    geometry=OBLIQUE,
    model="cyclegan-t1-t2",
    model_sha256="ab" * 32,
    contrast="t2",
    derivation="Translated, every slice by itself.",
)
HEADERS = {
    "translated": PLAIN,
    "sampled": replace(
        PLAIN,
        series="shard 0",
        patient="",
        geometry=invented((6, 4), 0),
        size=(6, 4),
        step_mm=STEP_MM,
        patient_position="HFS",
    ),
    "ct": replace(PLAIN, contrast="ct", geometry=replace(OBLIQUE, thickness=2.5)),
    "odd texts": replace(PLAIN, model="näme\\with\nodd parts " * 9, contrast="unknown"),
}
SLICES = {
    "short": SliceHeader(0, 1, (0.0, 0.0, 0.0)),
    "long": SliceHeader(
        123456789,
        2**31 - 1,
        (-123.45678901234567, 1e-7, 98765.4321),
        (-1024.0, 3071.3),
        '{"index": 5, "source": "\\\\ab"}',
    ),
    "odd": SliceHeader("x", 12, (-1.5, 2.25, 33.0), (0.0, 785.0), "odd"),
    "small range": SliceHeader("y", 3, (1.0, 2.0, 3.0), (0.0, 1e-3), "pair"),
}


def pixels(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, size, np.uint16)


def read(content: bytes):
    return pydicom.dcmread(io.BytesIO(content))


def test_identifiers():
    made = [uid("run", "instance", index) for index in range(2000)]
    made += [uid(), uid("ab"), uid("a", "b")]
    assert len(set(made)) == len(made)
    assert {len(one) for one in made} == {UID_LENGTH}
    for one in made:
        assert pydicom.uid.UID(one).is_valid
        number = uuid.UUID(int=int(one.removeprefix("2.25.")))
        assert (number.version, number.variant) == (8, uuid.RFC_4122)
    bits = hashlib.sha256(b"run\0instance\0" + b"7").digest()[:16]
    ours = uuid.UUID(int=int(uid("run", "instance", 7).removeprefix("2.25."))).bytes
    differing = [n for n in range(128) if (bits[n // 8] ^ ours[n // 8]) >> (7 - n % 8) & 1]
    assert set(differing) <= {0, 48, 49, 50, 51, 64, 65}  # the highest, version and variant


@pytest.mark.parametrize(
    ("value", "written"),
    [(5.0, "5"), (-0.0, "0"), (0.1, "0.1"), (-119.53125, "-119.53125"), (1e-7, "1e-07")],
)
def test_decimal_strings(value, written):
    assert ds(value) == written


def test_decimal_strings_are_as_exact_as_sixteen_characters_allow():
    dice = np.random.default_rng(0)
    for value in dice.normal(0, 1, 500) * 10.0 ** dice.integers(-6, 6, 500):
        for number in (value, -value, value * 1e3, value / 1e9):
            written = ds(float(number))
            assert len(written) <= 16
            assert float(written) == pytest.approx(number, rel=1e-8)


def test_texts_fit_their_elements():
    assert text("näme\\a\n", 64) == "n?me?a?"
    assert text("x" * 99, 64) == "x" * 64


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("slice", SLICES.values(), ids=SLICES)
def test_bytes_are_those_that_pydicom_writes(header, slice):
    writer = SeriesWriter(header)
    stored = pixels(header.size)
    content = writer.encode(slice, stored)
    assert content == file_bytes(writer.dataset(slice, stored))
    again = read(content)
    assert len(list(again.iterall())) > 60  # every element decoded, so that none is copied raw
    assert file_bytes(again) == content
    assert content == SeriesWriter(header).encode(slice, stored)


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("slice", SLICES.values(), ids=SLICES)
def test_what_is_written_reads_back(header, slice):
    stored = pixels(header.size)
    data = read(SeriesWriter(header).encode(slice, stored))
    np.testing.assert_array_equal(data.pixel_array, stored)
    low, high = slice.scale
    expected = low + stored / 65535 * (high - low)
    unit = pydicom.pixels.apply_rescale(data.pixel_array, data)
    np.testing.assert_allclose(unit, expected, atol=1e-6 * (high - low))
    shown = pydicom.pixels.apply_voi_lut(unit, data)  # the window spans the whole range
    np.testing.assert_allclose(shown, unit, atol=1e-4 * (high - low))
    assert data.InstanceNumber == slice.number
    np.testing.assert_allclose(data.ImagePositionPatient, slice.origin, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        data.ImageOrientationPatient, [*header.geometry.row, *header.geometry.column], rtol=1e-9
    )
    np.testing.assert_allclose(data.PixelSpacing, header.geometry.spacing, rtol=1e-9)
    along = np.cross(header.geometry.row, header.geometry.column) @ np.array(slice.origin)
    assert float(data.SliceLocation) == pytest.approx(along, abs=1e-4)
    assert data.get("ImageComments") == slice.comment
    assert (data.Rows, data.Columns) == header.size


def test_a_file_says_that_it_is_synthetic_and_names_nobody():
    data = read(SeriesWriter(PLAIN).encode(SLICES["odd"], pixels(PLAIN.size)))
    assert data.SOPClassUID == pydicom.uid.MRImageStorage
    assert data.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert data.SyntheticData == "YES"
    assert list(data.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert data.ContentQualification == "RESEARCH"
    assert data.BurnedInAnnotation == "NO"
    assert "generative model cyclegan-t1-t2 (sha256 abab" in data.DerivationDescription
    assert "For research; not for diagnosis" in data.DerivationDescription
    (item,) = data.ContributingEquipmentSequence
    assert (item.Manufacturer, item.ManufacturerModelName) == ("FastMRIGAN", "cyclegan-t1-t2")
    assert item.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
    assert str(data.PatientName).startswith("SYNTHETIC^")
    assert re.fullmatch("SYN-[0-9a-f]{16}", data.PatientID)
    for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"):
        assert name in data
        assert not data.get(name)


def test_identifiers_tell_what_belongs_together():
    def facts(**changes):
        data = read(SeriesWriter(replace(PLAIN, **changes)).encode(SLICES["odd"], blank))
        names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
        return [data[name].value for name in (*names, "SOPInstanceUID")]

    blank = pixels(PLAIN.size)
    one = facts()
    for changes, same in (
        ({"number": 9}, [True] * 5),
        ({"series": "another"}, [True, True, False, False, True]),
        ({"patient": "another"}, [False, False, True, True, True]),
        ({"run": "another"}, [False] * 5),
    ):
        assert [a == b for a, b in zip(one, facts(**changes), strict=True)] == same, changes
    assert len(set(one)) == 5


def test_sampled_slices_neither_overlap_nor_leave_gaps():
    places = [invented((256, 192), number) for number in range(4)]
    assert {place.plane for place in places} == {"axial"}
    np.testing.assert_allclose(np.diff([place.along_normal for place in places]), STEP_MM)
    assert {place.thickness for place in places} == {STEP_MM}
    middle = np.array(places[0].origin) + 95.5 * 0.9375 * np.array([1, 0, 0])
    np.testing.assert_allclose(middle + 127.5 * 0.9375 * np.array([0, 1, 0]), 0, atol=1e-9)


def test_a_series_in_a_folder(tmp_path):
    stack = np.stack([pixels(PLAIN.size, seed) for seed in range(3)])
    places = [replace(OBLIQUE, origin=(0.0, 0.0, 6.0 * n)) for n in range(3)]
    paths = write_series(tmp_path / "s", PLAIN, stack, places, scale=(0.0, 100.0))
    assert [path.name for path in paths] == ["000001.dcm", "000002.dcm", "000003.dcm"]
    read_back = [pydicom.dcmread(path) for path in paths]
    np.testing.assert_array_equal([data.pixel_array for data in read_back], stack)
    assert [float(data.ImagePositionPatient[2]) for data in read_back] == [0, 6, 12]
    assert len({data.SOPInstanceUID for data in read_back}) == 3
    with pytest.raises(UsageError, match="3 slices, but 2 positions"):
        write_series(tmp_path / "t", PLAIN, stack, places[:2])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": (0, 5)}, "size: expected 1 to 65535"),
        ({"geometry": replace(OBLIQUE, row=(1.0, 1.0, 0.0))}, "expected orthogonal unit vectors"),
        ({"geometry": replace(OBLIQUE, row=(0.0, 0.0, 0.0))}, "expected orthogonal unit vectors"),
        ({"geometry": replace(OBLIQUE, column=OBLIQUE.row)}, "expected orthogonal unit vectors"),
        ({"geometry": replace(OBLIQUE, spacing=(1.0, 0.0))}, "spacing: expected above 0 mm"),
        ({"geometry": replace(OBLIQUE, spacing=(1.0, np.nan))}, "expected finite numbers"),
    ],
)
def test_a_series_that_cannot_be_said_in_dicom(change, told):
    with pytest.raises(UsageError, match=f"DICOM series series 3: .*{told}"):
        SeriesWriter(replace(PLAIN, **change))


@pytest.mark.parametrize(
    ("change", "array", "told"),
    [
        ({}, np.zeros((7, 5), np.uint16), r"pixels: expected uint16 \[5, 7\], got uint16 \[7, 5\]"),
        ({}, np.zeros((5, 7), np.uint8), "pixels: expected uint16"),
        ({"number": 2**31}, None, "number: expected 0 to"),
        ({"number": -1}, None, "number: expected 0 to"),
        ({"origin": (0.0, np.inf, 0.0)}, None, "origin: expected finite"),
        ({"scale": (1.0, 1.0)}, None, "scale: expected finite, low < high"),
        ({"scale": (0.0, np.nan)}, None, "scale: expected finite"),
        ({"comment": "ä"}, None, "comment: expected at most 10,240 ASCII"),
        ({"comment": "a" * 10241}, None, "comment: expected at most 10,240 ASCII"),
    ],
)
def test_a_slice_that_cannot_be_said_in_dicom(change, array, told):
    stored = pixels(PLAIN.size) if array is None else array
    for way in ("encode", "dataset"):
        with pytest.raises(UsageError, match=told):
            getattr(SeriesWriter(PLAIN), way)(replace(SLICES["odd"], **change), stored)


def without_pydicom(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydicom.dataset", None)


def test_an_absent_pydicom_is_named(monkeypatch):
    from fastmrigan.errors import MissingDependency

    without_pydicom(monkeypatch)
    with pytest.raises(MissingDependency, match=r"needs the package pydicom.*fastmrigan\[dicom\]"):
        SeriesWriter(PLAIN)


@pytest.mark.slow
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("slice", SLICES.values(), ids=SLICES)
def test_dciodvfy_finds_no_error(tmp_path, header, slice):
    check_with_dciodvfy(tmp_path / "x.dcm", SeriesWriter(header).encode(slice, pixels(header.size)))


def check_with_dciodvfy(path: Path, content: bytes) -> None:
    """Fails where dciodvfy finds an error beyond the element it is too old to know."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy absent (Debian: apt install dicom3tools)")
    path.write_bytes(content)
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, timeout=300)
    said = (done.stdout + done.stderr).splitlines()
    assert {"MRImage", "CTImage"} & set(said), said  # it recognised the object
    errors = [line for line in said if line.startswith("Error")]
    known = [line for line in errors if "0008,0x001c" in line or "0008,001c" in line.lower()]
    assert errors == known
    assert len(known) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_highdicoms_tables_miss_nothing(header):
    standard = pytest.importorskip("highdicom._standard_utils", reason="highdicom absent")
    data = read(SeriesWriter(header).encode(SLICES["odd"], pixels(header.size)))
    iod = standard.get_sop_class_iod_map()[data.SOPClassUID]
    modules = standard.get_iod_module_map()[iod]
    mandatory = [module["key"] for module in modules if module["usage"] == "M"]
    named = {"patient", "general-study", "general-series", "image-plane", "sop-common"}
    assert named <= set(mandatory)
    missing, empty, looked_at = [], [], 0
    for module in mandatory:
        for attribute in standard.get_module_attribute_map()[module]:
            if attribute["path"] or attribute["type"] not in ("1", "2"):
                continue
            looked_at += 1
            element = data.get(attribute["keyword"])
            if attribute["keyword"] not in data:
                missing.append(attribute["keyword"])
            elif attribute["type"] == "1" and element in (None, ""):
                empty.append(attribute["keyword"])
    assert (missing, empty) == ([], [])
    assert looked_at > 30
