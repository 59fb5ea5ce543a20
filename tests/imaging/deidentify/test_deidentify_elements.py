"""De-identification: what becomes of each element, at every depth."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest

pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from deidentify_files import (
    LETTERS,
    MR,
    NAME,
    SALT,
    WRAP,
    element_for,
    everything,
    item,
    make,
    one,
    outputs,
    run,
    saved,
)
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_has_tag
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence

from fastmrigan.imaging.deidentify_profile import Profile


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
