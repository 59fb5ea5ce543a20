"""DICOM files that name somebody, and what de-identifying left of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from fastmrigan.imaging import deidentify as room
from fastmrigan.imaging.deidentify import (
    DeidentifyOptions,
    deidentify,
)

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
