"""Archives, single .gz files and DICOM media through `prepare`."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prepare_inputs import contents, folder, in_process, picture, write_dicom, write_series

from fastmrigan.errors import UsageError
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare

SMALL = PrepareOptions(size=32)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)


def pack(source: Path, target: Path, prefix: str = "") -> Path:
    """All files of a folder under their relative names, last first."""
    paths = sorted((path for path in source.rglob("*") if path.is_file()), reverse=True)
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                archive.write(path, path.relative_to(source))
        return target
    with tarfile.open(target, "w:" + target.suffix[1:].replace("tar", "")) as tar:
        for path in paths:
            tar.add(path, f"{prefix}{path.relative_to(source)}")
    return target


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2", "dotted.tar.gz"])
def test_a_packed_folder_gives_what_the_folder_gives(tmp_path: Path, kind: str) -> None:
    source = folder(tmp_path / "in", 7)
    write_series(source / "series", 3)
    dotted = "./" if kind.startswith("dotted") else ""  # as `tar czf packed.tar.gz .` has it
    packed = pack(source, tmp_path / f"packed.{kind}", dotted)
    plain = prepare(source, tmp_path / "plain", SMALL)
    made = prepare(packed, tmp_path / "out", SMALL)
    assert made.info.count == plain.info.count == 10
    assert made.info.fingerprint == plain.info.fingerprint
    for name in ("contact_sheet.png", "index.jsonl", "slices.npy"):
        assert contents(tmp_path / "out")[name] == contents(tmp_path / "plain")[name]


def test_archives_within_a_folder(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 3)
    with zipfile.ZipFile(source / "more.zip", "w") as archive:
        for name in ("sub/x.png", "top.png", "../evil.png", "notes.txt"):
            Image.fromarray(picture(len(name))).save(tmp_path / "x.png")
            archive.write(tmp_path / "x.png", name)
    (source / "broken.zip").write_bytes(b"PK no archive")
    with gzip.open(source / "one.dcm.gz", "wb") as file:
        path = write_dicom(tmp_path / "one.dcm", picture(77).astype(np.uint16))
        file.write(path.read_bytes())
    made = prepare(source, tmp_path / "out", SMALL)
    assert made.info.labels == {"": 1, "more": 1, "normal": 1, "sub": 1, "tumour": 2}
    assert sorted(each.name for each in made.refused) == ["broken.zip", "more.zip/../evil.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "one.dcm", "out", "x.png"]
    assert not list(source.rglob("*evil*"))


def write_dicomdir(path: Path, files: list[list[str]]) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

    data = Dataset()
    data.FileSetID = "TEST"
    data.DirectoryRecordSequence = []
    for parts in files:
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
        data.DirectoryRecordSequence.append(record)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    data.file_meta.MediaStorageSOPInstanceUID = "2.25.77"
    data.save_as(path, enforce_file_format=True)


def test_a_medium_by_its_directory(tmp_path: Path) -> None:
    """Of four files on it the DICOMDIR names two, and one that is not there."""
    medium = tmp_path / "medium"
    write_series(medium / "DATA", 4)
    files = [["DATA", "IM001"], ["DATA", "IM004"], ["DATA", "IM009"]]
    write_dicomdir(medium / "DICOMDIR", files)
    made = prepare(medium / "DICOMDIR", tmp_path / "out", SMALL)
    assert made.info.count == 2
    assert made.info.labels == {"DATA": 2}
    absent = "DATA/IM009: is not there, though DICOMDIR names it; copy the whole medium"
    assert [str(each) for each in made.refused] == [absent]
    whole = prepare(medium, tmp_path / "whole", SMALL)  # files of the folder come once
    assert whole.info.count == 4
    assert [str(each) for each in whole.refused] == [absent]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_dicom_under_any_name(tmp_path: Path, kind: str) -> None:
    """An extension may be a person's name: it is read, and the name goes nowhere."""
    source = tmp_path / "in"
    write_series(source, 3)
    (source / "IM002").rename(source / "scan.smith")
    (source / "notes.smith").write_text("x" * 200)
    (source / "short.smith").write_text("x")
    packed = pack(source, tmp_path / f"packed.{kind}")
    made = prepare(source, tmp_path / "out", SMALL)
    assert (made.info.count, made.ignored, made.refused) == (3, {"other": 2}, [])
    assert made.info.notes == []
    of_archive = prepare(packed, tmp_path / "out2", SMALL)
    assert of_archive.info.fingerprint == made.info.fingerprint
    for path in (*(tmp_path / "out").iterdir(), *(tmp_path / "out2").iterdir()):
        assert b"smith" not in path.read_bytes()


def test_what_holds_no_images(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(UsageError, match=r"empty\.zip: no images in it"):
        prepare(tmp_path / "empty.zip", tmp_path / "out", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.zip"]


def test_real_series_packed(tmp_path: Path, real_data) -> None:
    source = real_data("dicom/series")
    packed = pack(source, tmp_path / "packed.zip")
    options = PrepareOptions(size=32, allow_burned_in="unknown")
    plain = prepare(source, tmp_path / "plain", options)
    made = prepare(packed, tmp_path / "out", options)
    assert made.info.fingerprint == plain.info.fingerprint
    assert made.info.labels == {"brainix_flair": 22, "dwv_mprage_sag": 3, "hanke_t1w": 6}
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["notes"] == [
        "slices of several planes: axial 28, sagittal 3; --plane keeps one of them"
    ]
