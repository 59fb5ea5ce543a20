"""De-identification: every line of PS3.15 table E.1-1 at three depths, and the policy on top."""

from __future__ import annotations

import errno
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table  # noqa: E402
from pydicom import DataElement, Dataset, dcmread  # noqa: E402
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.datadict import dictionary_has_tag, dictionary_VR  # noqa: E402
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.filebase import DicomBytesIO  # noqa: E402
from pydicom.filewriter import write_sequence  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import UID, ExplicitVRLittleEndian  # noqa: E402

from fastmrigan import files  # noqa: E402
from fastmrigan.errors import DiskFull, Interrupted, UsageError  # noqa: E402
from fastmrigan.imaging import deidentify as room  # noqa: E402
from fastmrigan.imaging.deidentify import (  # noqa: E402
    DeidentifyOptions,
    deidentify,
    rejects_path,
)
from fastmrigan.imaging.deidentify_profile import Profile  # noqa: E402

SALT = b"a salt of twenty byt"
MR = "1.2.840.10008.5.1.4.1.1.4"
WRAP = "RealWorldValueMappingSequence"  # a sequence that the table does not name
NAME = "DOE^JOHN"

VALUES = {
    "AE": "DOEAE",
    "AS": "042Y",
    "CS": "DOE",
    "DA": "20010203",
    "DS": "17.5",
    "DT": "20010203040506",
    "FD": 17.5,
    "FL": 17.5,
    "IS": "17",
    "LO": NAME,
    "LT": NAME,
    "OB": b"DOE JOHN",
    "PN": NAME,
    "SH": NAME,
    "SL": 17,
    "SS": 17,
    "ST": NAME,
    "TM": "040506",
    "UC": NAME,
    "UI": "1.2.3.4",
    "UL": 17,
    "UN": b"DOE JOHN",
    "UR": "http://doe",
    "US": 17,
    "UT": NAME,
}
LETTERS = {
    "X": table.X_TAGS,
    "Z": [*table.Z_TAGS, *table.X_Z_TAGS],
    "D": [*table.D_TAGS, *table.Z_D_TAGS, *table.X_D_TAGS, *table.X_Z_D_TAGS],
    "U": table.U_TAGS,
    "U*": table.X_Z_U_STAR_TAGS,
}


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def make(**values: object) -> FileDataset:
    """A small MR image, with what a test adds."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(MR)
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.1")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"DOE^JOHN" * 16)
    given = {
        "SOPClassUID": MR,
        "SOPInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.2",
        "StudyInstanceUID": "1.2.3.3",
        "PatientName": NAME,
        "PatientID": "4711",
        "Modality": "MR",
        "BurnedInAnnotation": "NO",
        "Rows": 2,
        "Columns": 2,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": np.arange(4, dtype="<u2").tobytes(),
    }
    for keyword, value in (given | values).items():
        setattr(dataset, keyword, value)
    return dataset


def saved(folder: Path, name: str = "a.dcm", **values: object) -> Path:
    folder.mkdir(exist_ok=True)
    make(**values).save_as(folder / name, enforce_file_format=True)
    return folder / name


def run(source: Path, out: Path, **options: object) -> room.Deidentified:
    return deidentify(source, out, DeidentifyOptions(**({"salt": SALT} | options)))


def outputs(out: Path) -> list[Path]:
    return sorted(out.rglob("*.dcm"))


def one(source: Path, out: Path, **options: object) -> Dataset:
    made = run(source, out, **options)
    assert made.refused == []
    (path,) = outputs(out)
    return dcmread(path)


def everything(dataset: Dataset) -> Iterator[DataElement]:
    """All elements at all depths."""
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for inner in element.value:
                yield from everything(inner)


def element_for(tag: tuple[int, ...]) -> DataElement:
    number = tag[0] << 16 | tag[1]
    vr = dictionary_VR(number) if dictionary_has_tag(number) else "LO"
    if vr == "SQ":
        inner = item(CodeValue="DOE", CodeMeaning=NAME, ReferencedSOPInstanceUID="1.2.3.4")
        inner.ReferencedSOPClassUID = MR
        return DataElement(number, "SQ", Sequence([inner]))
    return DataElement(number, vr, VALUES["OB" if vr.startswith("OB") else vr])


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("letter", LETTERS)
def test_every_line_of_the_table(letter: str, depth: int) -> None:
    tags = [tag for tag in LETTERS[letter] if tag[0] not in (0, 2)]
    assert len(tags) > 1
    inner = Dataset()
    for tag in tags:
        inner.add(element_for(tag))
    outer = inner
    for _ in range(depth):
        outer = item(Modality="MR", **{WRAP: [outer]})
    Profile(SALT).apply(outer)
    for _ in range(depth):
        outer = outer[WRAP].value[0] if WRAP in outer else Dataset()
    for tag in tags:
        number = tag[0] << 16 | tag[1]
        after = outer.get(number)
        if letter == "X" or number == 0x0008_1110 or not dictionary_has_tag(number):
            assert after is None, tag
            continue
        assert after is not None, tag
        before = element_for(tag)
        if before.VR == "SQ" and letter == "Z":
            assert len(after.value) == 0, tag
        elif before.VR == "SQ":
            (left,) = after.value
            assert left.ReferencedSOPInstanceUID == Profile(SALT).uid("1.2.3.4")
            assert left.ReferencedSOPClassUID == MR
            assert letter == "U*" or "DOE" not in str(left), tag
        else:
            assert after.value != before.value, tag
            assert "DOE" not in str(after.value), tag
            assert letter == "Z" or not after.is_empty, tag
            if before.VR == "UI":
                assert after.value == Profile(SALT).uid("1.2.3.4")


def test_the_only_rules_over_groups_are_those_of_curves_and_overlays() -> None:
    masked = {tag[:2] for tag in table.ALL_TAGS if len(tag) != 2}
    assert masked == {(0x5000, 0x0000), (0x6000, 0x3000), (0x6000, 0x4000)}
    dataset = item(Rows=2)
    for group in (0x5000, 0x501E, 0x6000, 0x6002, 0x601E):
        dataset.add_new(group << 16 | 0x0010, "US", 2)
        dataset.add_new(group << 16 | 0x3000, "OW", b"DOE ")
    Profile(SALT).apply(dataset)
    assert [element.keyword for element in dataset] == ["Rows"]


@pytest.mark.parametrize("vr", ["DA", "TM", "DT"])
def test_dates_that_are_replaced_are_valid(vr: str) -> None:
    dataset = item(StudyDate="20010203", ContentTime="010203", AcquisitionDateTime="20010203")
    Profile(SALT).apply(dataset)
    keyword = {"DA": "StudyDate", "TM": "ContentTime", "DT": "AcquisitionDateTime"}[vr]
    form = {"DA": "%Y%m%d", "TM": "%H%M%S", "DT": "%Y%m%d%H%M%S"}[vr]
    parsed = datetime.strptime(dataset[keyword].value, form)
    assert vr == "TM" or parsed == datetime(1900, 1, 1)


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("EvaluatorName", NAME, "ANONYMIZED"),
        ("SecondaryReviewDate", "20010203", "19000101"),
        ("StudyUpdateDateTime", "20010203", "19000101000000"),
        ("TextValue", NAME, "ANONYMIZED"),
        ("SetupImageComment", NAME, "ANONYMIZED"),
        ("DocumentTitle", NAME, "ANONYMIZED"),
        ("PotentialReasonsForProcedure", NAME, "ANONYMIZED"),
        ("RetrieveURL", "http://doe", None),
        ("PixelDataProviderURL", "http://doe", None),
        ("PatientBirthDateInAlternativeCalendar", "H13.02.03", None),
        ("FillerOrderNumberProcedure", "4711", None),
        ("ContactDisplayName", NAME, None),
        ("EncryptedAttributesSequence", [item(EncryptedContent=b"DOE ")], None),
        ("LongCodeValue", "a long one", "a long one"),
        ("URNCodeValue", "urn:lex:us", "urn:lex:us"),
        ("ManufacturerModelName", "Scanner", "Scanner"),
        ("EchoTime", "17.5", 17.5),
    ],
)
def test_what_the_table_does_not_name(keyword: str, value: str, expected: object) -> None:
    """In each of several items, too."""
    dataset = item(**{keyword: value, WRAP: [item(**{keyword: value}) for _ in range(3)]})
    Profile(SALT).apply(dataset)
    inner = dataset[WRAP].value if WRAP in dataset else [Dataset()] * 3
    assert [place.get(keyword) for place in (dataset, *inner)] == [expected] * 4


def test_what_was_empty_stays_empty() -> None:
    dataset = item(PatientID="", StudyDate="", InstitutionName="", SOPInstanceUID="")
    Profile(SALT).apply(dataset)
    assert [element.is_empty for element in dataset] == [True] * 4


def test_uids_are_equal_across_files_and_runs_and_depend_on_the_salt(tmp_path: Path) -> None:
    reference = [item(ReferencedSOPClassUID=MR, ReferencedSOPInstanceUID="1.2.3.1")]
    saved(tmp_path / "in", "a.dcm")
    saved(
        tmp_path / "in",
        "b.dcm",
        SOPInstanceUID="1.2.3.9",
        SourceImageSequence=reference,
        IrradiationEventUID=["1.2.3.1", "1.2.3.3"],
    )
    for out in ("x", "y"):
        assert run(tmp_path / "in", tmp_path / out).written == 2
    run(tmp_path / "in", tmp_path / "z", salt=SALT[::-1])
    x, y, z = (outputs(tmp_path / out) for out in "xyz")
    assert [path.read_bytes() for path in x] == [path.read_bytes() for path in y]
    assert {path.name for path in x}.isdisjoint(path.name for path in z)
    by_reference = {"SourceImageSequence" in d: d for d in map(dcmread, x)}
    a, b = by_reference[False], by_reference[True]
    assert b.SourceImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID
    assert b.SourceImageSequence[0].ReferencedSOPClassUID == MR
    assert list(b.IrradiationEventUID) == [a.SOPInstanceUID, a.StudyInstanceUID]
    assert a.StudyInstanceUID == b.StudyInstanceUID
    for element in everything(b):
        if element.VR == "UI" and not element.keyword.endswith("ClassUID"):
            for uid in [element.value] if element.VM == 1 else element.value:
                assert uid.is_valid
                assert uid.startswith("2.25.")
                assert len(uid) <= 64


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("SOPClassUID", "1.3.12.2.1107.5.9.1", True),  # a private class is a class all the same
        ("CodingSchemeUID", "2.16.840.1.113883.6.96", True),
        ("ContextUID", "1.2.840.10008.6.1.308", True),
        ("VolumeFrameOfReferenceUID", "1.2.3.4", False),  # an instance that the table forgets
        ("SourceFrameOfReferenceUID", "1.2.840.10008.1.4.1.1", False),  # the table does not ask
    ],
)
def test_uids_of_classes_stay(keyword: str, value: str, kept: bool) -> None:
    dataset = item(**{keyword: value})
    Profile(SALT).apply(dataset)
    assert (dataset[keyword].value == value) == kept


def test_one_pseudonym_for_a_patient(tmp_path: Path) -> None:
    dataset = one(saved(tmp_path / "in"), tmp_path / "out")
    assert re.fullmatch(r"ANON-[0-9a-f]{16}", dataset.PatientID)
    assert dataset.PatientName == dataset.PatientID
    other = Profile(SALT)
    assert other.pseudonym("4711 ") == dataset.PatientID  # padding is no part of an ID
    assert other.pseudonym("4712") != dataset.PatientID


def test_private_elements_go_at_every_depth_and_group_lengths_with_them(tmp_path: Path) -> None:
    dataset = make()
    code = item(CodeValue="1", CodeMeaning="kept")
    for place in (dataset, code):
        block = place.private_block(0x0009, "DOE HOSPITAL", create=True)
        block.add_new(1, "SQ", [item(PatientName=NAME)])
        place.add_new(0x0008_0000, "UL", 4)
        place.add_new(0x0008_FFF0, "LO", NAME)  # an even group, but in no dictionary
    dataset.ProcedureCodeSequence = [code]
    (tmp_path / "in").mkdir()
    dataset.save_as(tmp_path / "in" / "a.dcm", enforce_file_format=True)
    after = one(tmp_path / "in", tmp_path / "out")
    assert not [e for e in everything(after) if e.tag.is_private or e.tag.element == 0]
    assert after.ProcedureCodeSequence[0].CodeMeaning == "kept"
    assert b"DOE" not in outputs(tmp_path / "out")[0].read_bytes()


def test_a_sequence_that_only_held_private_elements_goes() -> None:
    private = Dataset()
    private.add_new(0x0009_0010, "LO", "DOE")
    dataset = item(ProcedureCodeSequence=[private], AnatomicRegionSequence=[])
    Profile(SALT).apply(dataset)
    assert "ProcedureCodeSequence" not in dataset
    assert len(dataset.AnatomicRegionSequence) == 0


def test_a_report_keeps_its_skeleton_and_none_of_its_content() -> None:
    inner = item(
        RelationshipType="CONTAINS",
        ValueType="TEXT",
        ConceptNameCodeSequence=[
            item(CodeValue="DOE", CodeMeaning=NAME, CodingSchemeUID="1.2.3.4")
        ],
        TextValue=NAME,
        RedPaletteColorLookupTableData=b"DOE ",
        GraphicData=[1.5, 2.5, 3.5, 4.5],
        NumericValue="17.5",
        ReferencedFrameNumber=[3, 4],
    )
    dataset = item(ContentSequence=[inner])
    Profile(SALT).apply(dataset)
    (left,) = dataset.ContentSequence
    assert (left.RelationshipType, left.ValueType) == ("CONTAINS", "TEXT")
    assert left.TextValue == "ANONYMIZED"
    assert left.GraphicData == [0, 0, 0, 0]
    assert left.ReferencedFrameNumber == [1, 1]
    assert left.NumericValue == 0
    assert "RedPaletteColorLookupTableData" not in left
    assert left.ConceptNameCodeSequence[0].CodingSchemeUID == Profile(SALT).uid("1.2.3.4")
    assert "DOE" not in str(dataset)


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


@pytest.mark.parametrize("items", [1, 3_000])
def test_a_sequence_stored_as_unknown_is_cleaned_or_refused(tmp_path: Path, items: int) -> None:
    inner = [item(CodeValue="1", PatientName=NAME) for _ in range(items)]
    encoded = DicomBytesIO()  # what is inside of UN is implicit (PS3.5 6.2.2)
    encoded.is_implicit_VR = encoded.is_little_endian = True
    write_sequence(encoded, DataElement("ProcedureCodeSequence", "SQ", inner), ["iso8859"])
    value = encoded.getvalue()
    path = saved(tmp_path / "in", ProcedureCodeSequence=[])
    stated = b"\x08\x00\x32\x10%b\0\0"
    content = path.read_bytes()
    assert content.count(stated % b"SQ" + bytes(4)) == 1
    unknown = stated % b"UN" + len(value).to_bytes(4, "little") + value
    path.write_bytes(content.replace(stated % b"SQ" + bytes(4), unknown))
    made = run(path, tmp_path / "out")
    if len(value) < 0xFFFF:  # pydicom parses no longer ones
        (output,) = outputs(tmp_path / "out")
        assert b"DOE" not in output.read_bytes()
        assert dcmread(output).ProcedureCodeSequence[0].CodeValue == "1"
        assert dcmread(output).PixelData == dcmread(path).PixelData
    else:
        assert "nobody can look into it" in made.refused[0].reason


def test_a_length_that_swallows_other_elements_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "in", ManufacturerModelName="ABCD", ImageType=["ORIGINAL", "PRIMARY"])
    content = path.read_bytes()
    model = b"\x08\0\x90\x10LO\4\0"
    name = b"\x10\0\x10\0PN\x08\0"
    assert content.count(model + b"ABCD" + name + b"DOE^JOHN") == 1
    path.write_bytes(content.replace(model, model[:-2] + b"\x14\0"))
    (refused,) = run(path, tmp_path / "out").refused
    assert refused.reason == "broken DICOM ((0008,1090) holds bytes that are no text)"


def test_a_dicomdir_is_refused(tmp_path: Path) -> None:
    source = Path(get_testdata_file("DICOMDIR", download=False))
    saved(tmp_path / "in")
    for name in ("DICOMDIR", "renamed.dcm"):
        (tmp_path / "in" / name).write_bytes(source.read_bytes())
    (tmp_path / "in" / "more.zip").write_bytes(b"")
    made = run(tmp_path / "in", tmp_path / "out")
    assert made.written == 1
    assert made.ignored == {"dicomdir": 1}
    assert [refused.name for refused in made.refused] == ["more.zip", "renamed.dcm"]
    assert "a DICOMDIR" in made.refused[1].reason


def test_dicom_under_any_name_is_deidentified(tmp_path: Path) -> None:
    saved(tmp_path / "in", "scan.smith")
    (tmp_path / "in" / "notes.smith").write_text("x")
    made = run(tmp_path / "in", tmp_path / "out")
    assert (made.written, made.ignored, made.refused) == (1, {"other": 1}, [])


def test_names_say_nothing_and_rejects_stand_beside(tmp_path: Path) -> None:
    saved(tmp_path / "in", "doe_john.dcm")
    (tmp_path / "in" / "broken_doe.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    (tmp_path / "in" / "notes.txt").write_text(NAME)
    made = run(tmp_path / "in", tmp_path / "out")
    assert made.written == 1
    assert made.ignored == {".txt": 1}
    names = [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")]
    assert "doe" not in " ".join(names).lower()
    (path,) = outputs(tmp_path / "out")
    assert path.stem == dcmread(path).SOPInstanceUID
    assert path.parent.name == dcmread(path).SeriesInstanceUID
    (line,) = rejects_path(tmp_path / "out").read_text().splitlines()
    assert json.loads(line)["name"] == "broken_doe.dcm"
    (tmp_path / "in" / "broken_doe.dcm").unlink()
    assert run(tmp_path / "in", tmp_path / "out").present == 1
    assert not rejects_path(tmp_path / "out").exists()


def test_the_salt_is_written_nowhere(tmp_path: Path) -> None:
    saved(tmp_path / "in")
    run(tmp_path / "in", tmp_path / "out")
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SALT not in path.read_bytes()


def test_twins_and_copies(tmp_path: Path) -> None:
    saved(tmp_path / "in", "1.dcm")
    saved(tmp_path / "in", "2.dcm")
    saved(tmp_path / "in", "3.dcm", Modality="CT")
    for expected in [(2, 1, 1), (0, 3, 0)]:
        made = run(tmp_path / "in", tmp_path / "out")
        assert (made.written, made.present, made.twins) == expected
    assert {dcmread(path).Modality for path in outputs(tmp_path / "out")} == {"MR", "CT"}


def test_a_resumed_run_writes_what_is_missing(tmp_path: Path) -> None:
    for i in range(3):
        saved(tmp_path / "in", f"{i}.dcm", SOPInstanceUID=f"1.2.3.{i + 1}")
    run(tmp_path / "in", tmp_path / "out")
    whole = {path: path.read_bytes() for path in outputs(tmp_path / "out")}
    first, second, _ = whole
    first.unlink()
    stale = second.with_name(f".{second.name}.12345.tmp")
    stale.write_bytes(b"half")
    made = run(tmp_path / "in", tmp_path / "out")
    assert (made.written, made.present) == (1, 2)
    assert {path: path.read_bytes() for path in outputs(tmp_path / "out")} == whole
    assert not stale.exists()


@pytest.fixture
def ctrl_c_after_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second file is the last before Ctrl-C."""
    assert threading.current_thread() is threading.main_thread()
    real, calls = room.deidentify_file, []

    def counted(*arguments: object) -> room.File:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "deidentify_file", counted)


@pytest.mark.parametrize(("salt", "left"), [(SALT, 2), (None, 0)])
def test_ctrl_c(tmp_path: Path, ctrl_c_after_two: None, salt: bytes | None, left: int) -> None:
    for i in range(4):
        saved(tmp_path / "in", f"{i}.dcm", SOPInstanceUID=f"1.2.3.{i + 1}")
    with pytest.raises(Interrupted, match="goes on" if salt else "taken back"):
        run(tmp_path / "in", tmp_path / "out", salt=salt)
    assert len(outputs(tmp_path / "out")) == left
    assert run(tmp_path / "in", tmp_path / "out", salt=salt).written == 4 - left
    assert len(outputs(tmp_path / "out")) == 4


def other_file(out: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (None, {"salt": b"short"}, "--salt: 5 bytes; give at least 16"),
        (None, {"allow_burned_in": "all"}, "--allow-burned-in all: expected no, unknown, yes"),
        (other_file, {}, "holds notes.txt, which no de-identification made"),
        (other_file, {"salt": None}, "is not empty, and a run with a random salt"),
        (lambda out: out.write_text(""), {}, "cannot be written"),
    ],
)
def test_usage_errors(
    tmp_path: Path, prepare: Callable[[Path], None] | None, options: dict[str, object], message: str
) -> None:
    saved(tmp_path / "in")
    if prepare is not None:
        prepare(tmp_path / "out")
    with pytest.raises(UsageError, match=re.escape(message)):
        run(tmp_path / "in", tmp_path / "out", **options)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    source = saved(tmp_path / "in")
    with (
        room.writing(tmp_path / "out", resumable=True),
        pytest.raises(UsageError, match="another process writes to it"),
    ):
        run(source, tmp_path / "out")
    assert run(source, tmp_path / "out").written == 1


@pytest.mark.parametrize(("salt", "left"), [(SALT, 1), (None, 0)])
def test_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, salt: bytes | None, left: int
) -> None:
    for i in range(2):
        saved(tmp_path / "in", f"{i}.dcm", SOPInstanceUID=f"1.2.3.{i + 1}")
    real, calls = files.write_synced, []

    def full_at_the_second(path: Path, content: bytes) -> None:
        calls.append(path)
        real(path, content)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_synced", full_at_the_second)
    with pytest.raises(DiskFull):
        run(tmp_path / "in", tmp_path / "out", salt=salt)
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == left
    assert run(tmp_path / "in", tmp_path / "out", salt=salt).written == 2 - left


def test_output_within_the_source_and_sources_without_dicom(tmp_path: Path) -> None:
    saved(tmp_path / "in")
    with pytest.raises(UsageError, match="name a folder outside"):
        run(tmp_path / "in", tmp_path / "in" / "out")
    with pytest.raises(UsageError, match="no such file or folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no DICOM files in this folder \(1 other files\)"):
        run(tmp_path / "empty", tmp_path / "out")


def test_command_line(tmp_path: Path, fastmrigan) -> None:
    saved(tmp_path / "in", "a.dcm")
    saved(tmp_path / "in", "b.dcm", SOPInstanceUID="1.2.3.9", BurnedInAnnotation="YES")
    (tmp_path / "salt").write_bytes(SALT + b"\n")
    arguments = ("deidentify", tmp_path / "in", tmp_path / "out", "--salt-file", tmp_path / "salt")
    first = fastmrigan(*arguments)
    assert first.returncode == 3
    assert "de-identified 1 file in" in first.stdout
    assert "b.dcm: in quarantine" in first.stdout
    second = fastmrigan(*arguments, "--allow-burned-in", "yes")
    assert second.returncode == 0
    assert "1 were there already" in second.stdout
    assert dcmread(outputs(tmp_path / "out")[0]).StudyInstanceUID == Profile(SALT).uid("1.2.3.3")
    both = fastmrigan(*arguments, "--salt", "x" * 20)
    assert both.returncode == 2
    assert "give one of them" in both.stderr
