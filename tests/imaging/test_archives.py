"""Archives and DICOMDIR: what comes out, under which name, and that nothing lands elsewhere.

tests/hostile has those that are meant to do harm.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from fastmrigan.imaging import archives
from fastmrigan.imaging.archives import dicomdir_files, open_archive
from fastmrigan.imaging.walker import Refused

MEMBERS = {
    "head/slice 1.png": b"first",
    "head/SLICE2.DCM": b"second",
    "IM0003": b"third",
    "volume.nii.gz": b"fourth",
    "MR.1.2.840.5": b"fifth",
    "empty.png": b"",
    "README.md": b"passed over",
    ".hidden.png": b"passed over",
    ".git/a.png": b"passed over",
    "__MACOSX/._slice 1.png": b"passed over",
    "DICOMDIR": b"passed over",
}
WANTED = {name: data for name, data in MEMBERS.items() if data != b"passed over"}
SUFFIXES = {".png", ".dcm", "", ".nii.gz"}


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.mkdir("folder")
    return path


def tarred(path: Path, members: dict[str, bytes], packing: str = "") -> Path:
    with tarfile.open(path, f"w:{packing}", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        archive.add(path.parent, "folder", recursive=False)
    return path


def everything(path: Path, scratch: Path) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """The images of an archive by name, and what was refused."""
    found, refused, files = {}, [], []
    for member in open_archive(path, scratch):
        if isinstance(member, Refused):
            refused.append((member.name, member.reason))
        else:
            found[member[0]] = member[1].read_bytes()
            files.append(member[1])
    assert {file.parent for file in files} <= {scratch}
    assert len({file.name for file in files}) == len(files)
    return found, refused


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.mark.parametrize(
    "name",
    ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.txz", "a.tar.bz2", "a.tbz2"],
)
def test_images_come_out_of_every_kind(tmp_path: Path, scratch: Path, name: str) -> None:
    packing = {"z": "xz", "p": "", "2": "bz2"}.get(name[-1], "")
    packing = "gz" if name.endswith("gz") else packing
    make = zipped if name.endswith(".zip") else lambda *args: tarred(*args, packing)
    found, refused = everything(make(tmp_path / name, MEMBERS), scratch)
    assert found == WANTED
    assert refused == []
    kinds = {"".join(Path(file.name).suffixes) for file in scratch.iterdir()}
    assert kinds == SUFFIXES


def test_a_single_packed_file(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "MR.dcm.gz").write_bytes(gzip.compress(b"pixels"))
    assert everything(tmp_path / "MR.dcm.gz", scratch) == ({"MR.dcm": b"pixels"}, [])
    assert [file.suffix for file in scratch.iterdir()] == [".dcm"]


def test_members_are_written_as_they_are_asked_for(tmp_path: Path, scratch: Path) -> None:
    run = open_archive(zipped(tmp_path / "a.zip", MEMBERS), scratch)
    next(run)
    assert len(list(scratch.iterdir())) == 1
    run.close()


def test_equal_names_are_different_members(tmp_path: Path, scratch: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of the second
        archive.writestr("a.png", b"first")
        archive.writestr("a.png", b"second")
    got = [m[1].read_bytes() for m in open_archive(tmp_path / "a.zip", scratch) if m[0] == "a.png"]
    assert got == [b"first", b"second"]


def test_names_in_other_encodings(tmp_path: Path, scratch: Path) -> None:
    names = {"tête/ä.png": b"1", "\udcff\udcfe.png": b"2", "two\nlines.png": b"3"}
    found, refused = everything(tarred(tmp_path / "a.tar", names), scratch)
    assert found == names
    assert refused == []


@pytest.mark.parametrize("make", [zipped, tarred])
def test_names_from_the_current_folder(tmp_path: Path, scratch: Path, make) -> None:
    """What `tar c .` writes."""
    found, _ = everything(make(tmp_path / f"a.{make.__name__[:3]}", {"./a//b.png": b"1"}), scratch)
    assert found == {"a/b.png": b"1"}


def test_too_many_members(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
    with pytest.raises(Refused, match=r"a.zip: holds more than 4 members; unpack it"):
        everything(zipped(tmp_path / "a.zip", MEMBERS), scratch)


@pytest.mark.parametrize("ratio", [3, 200])
def test_the_bound_is_a_ratio_above_what_is_always_allowed(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, ratio: int
) -> None:
    """Random bytes and as many zeros: packed to half."""
    monkeypatch.setattr(archives, "ALWAYS", 1000)
    monkeypatch.setattr(archives, "MAX_RATIO", ratio)
    members = {"a.png": os.urandom(10_000), "b.png": bytes(50_000)}
    path = zipped(tmp_path / "a.zip", members)
    if ratio == 200:
        assert everything(path, scratch)[0] == members
        return
    with pytest.raises(Refused, match="unpacks to more than"):
        everything(path, scratch)
    assert [file.name for file in scratch.iterdir()] == ["000001.png"]  # no half-written member


def test_a_table_of_contents_is_bounded(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_DIRECTORY", 200)
    with pytest.raises(Refused, match="bytes of contents to list; unpack it"):
        everything(zipped(tmp_path / "a.zip", MEMBERS), scratch)


def test_what_is_no_archive(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"x")
    with pytest.raises(Refused, match="not an archive that is opened"):
        everything(tmp_path / "a.rar", scratch)


def test_a_full_or_absent_scratch_folder_is_no_refusal(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        everything(zipped(tmp_path / "a.zip", MEMBERS), tmp_path / "nowhere")


def dicomdir(folder: Path, *names: list[str] | str | None, kind: str = "IMAGE") -> Path:
    """A DICOMDIR of one record a name, under a patient without a file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = "2.25.9"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole = FileDataset("", Dataset(), file_meta=meta, preamble=bytes(128))
    records = []
    for name in (None, *names):
        record = Dataset()
        record.DirectoryRecordType = "PATIENT" if name is None else kind
        if name is not None:
            record["ReferencedFileID"] = DataElement(
                0x00041500, "CS", name, validation_mode=config.IGNORE
            )
        records.append(record)
    whole.DirectoryRecordSequence = records
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of names that are none
        whole.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def test_the_files_a_dicomdir_names(tmp_path: Path) -> None:
    (tmp_path / "dicom" / "St1").mkdir(parents=True)
    (tmp_path / "dicom" / "St1" / "im0002").write_bytes(b"x")
    (tmp_path / "IM1").write_bytes(b"x")
    path = dicomdir(tmp_path, ["DICOM", "ST1", "IM0002"], "IM1", ["DICOM", "ST9", "GONE"])
    assert dicomdir_files(path) == [
        tmp_path / "dicom" / "St1" / "im0002",  # as the medium's own folders are written
        tmp_path / "IM1",
        tmp_path / "dicom" / "ST9" / "GONE",  # named by whoever reads it
    ]


def test_reports_and_plans_of_a_dicomdir_are_passed_over(tmp_path: Path) -> None:
    assert dicomdir_files(dicomdir(tmp_path, "SR1", kind="SR DOCUMENT")) == []


@pytest.mark.parametrize(
    "name", [["..", "OUT"], ["A", "..", "..", "OUT"], "/etc/passwd", ["A/../..", "OUT"], "..", "."]
)
def test_a_dicomdir_names_nothing_outside(tmp_path: Path, name: list[str] | str) -> None:
    with pytest.raises(Refused, match="DICOMDIR: names a file outside its folder"):
        dicomdir_files(dicomdir(tmp_path, name))


def test_what_a_dicomdir_names_is_told_in_one_short_line(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        dicomdir_files(dicomdir(tmp_path, ["..", "\x1b[31m" * 999]))
    assert len(caught.value.reason) <= 200
    assert caught.value.reason.isprintable()


def test_a_dicomdir_leads_nowhere_through_links(tmp_path: Path) -> None:
    (tmp_path / "cd").mkdir()
    (tmp_path / "cd" / "OUT").symlink_to(tmp_path)
    with pytest.raises(Refused, match="names a link out of its folder: OUT/SECRET"):
        dicomdir_files(dicomdir(tmp_path / "cd", ["OUT", "SECRET"]))


@pytest.mark.parametrize("name", ["A" * 5000, ["A", "LOOP", "B"]])
def test_a_dicomdir_names_what_is_no_file(tmp_path: Path, name: list[str] | str) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "LOOP").symlink_to("LOOP")
    with pytest.raises(Refused, match="names what is no file: A") as caught:
        dicomdir_files(dicomdir(tmp_path, name))
    assert len(caught.value.reason) <= 200


@pytest.mark.parametrize("content", [b"", b"letter" * 100, bytes(128) + b"DICM" + b"\xff" * 90])
def test_broken_dicomdirs_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "DICOMDIR").write_bytes(content)
    with pytest.raises(Refused, match=r"^DICOMDIR: "):
        dicomdir_files(tmp_path / "DICOMDIR")
