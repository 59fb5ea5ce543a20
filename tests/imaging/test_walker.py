from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from fastmrigan.errors import UsageError
from fastmrigan.imaging.walker import Refused, kind_told, printable, stem, suffix, walk


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_natural_order_and_what_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "b/slice 10.png", "b/slice 2.PNG", "a.jpeg", "IM0001", "MR.1.2.3", "v.nii.gz")
    make(tmp_path, "README.md", "c/manifest.csv", "c/other.csv", "notes.csv.gz", "x.gz.gz")
    make(tmp_path, "DICOMDIR", "b/scans.ZIP", "a.tar.gz", "IM1.gz", "b/MR.dcm.gz", "c/t.tgz")
    make(tmp_path, ".hidden.png", ".git/a.png")
    make(tmp_path, *(f"out/{name}" for name in ("dataset.json", "slices.npy", "sheet.png")))
    found = walk(tmp_path)
    assert [name for name, _ in found.files] == [
        "IM0001",
        "MR.1.2.3",
        "a.jpeg",
        "b/slice 2.PNG",
        "b/slice 10.png",
        "v.nii.gz",
    ]
    assert found.ignored == {
        ".md": 1,
        ".csv": 2,
        ".gz": 2,
        "prepared data set": 1,
    }
    assert [name for name, _ in found.archives] == [
        "DICOMDIR",
        "IM1.gz",
        "a.tar.gz",
        "b/MR.dcm.gz",
        "b/scans.ZIP",
        "c/t.tgz",
    ]
    assert found.refused == []
    assert all(path == tmp_path / name for name, path in found.files + found.archives)


def test_links_and_pipes(tmp_path: Path) -> None:
    make(tmp_path, "real/a.png")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "b.png").symlink_to(tmp_path / "real/a.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = walk(tmp_path)
    assert [name for name, _ in found.files] == ["b.png", "real/a.png"]
    assert {refused.name: refused.reason for refused in found.refused} == {
        "dead.png": "a link that leads nowhere (No such file or directory)",
        "pipe.png": "not a regular file",
        "self.png": "a link that leads nowhere (Too many levels of symbolic links)",
    }
    assert found.ignored == {"linked folder": 1}


def test_dicom_is_found_under_any_name_and_no_name_is_told(tmp_path: Path) -> None:
    make(tmp_path, "notes.smith", "a.md")
    (tmp_path / "scan.smith").write_bytes(bytes(128) + b"DICM")
    os.mkfifo(tmp_path / "pipe.smith")  # opening it would wait for ever
    (tmp_path / "dead.smith").symlink_to("nowhere")
    found = walk(tmp_path)
    assert [name for name, _ in found.files] == ["scan.smith"]
    assert found.ignored == {".md": 1, "other": 3}
    assert found.refused == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.CSV", ".csv"),
        ("a.png", ".png"),
        ("a.nii.gz", ".nii.gz"),
        ("cd/DICOMDIR", "dicomdir"),
        ("IM1", "without extension"),
        ("1.2.840", "without extension"),
        ("scan.smith", "other"),
        ("john.doe.1970-01-02", "other"),
    ],
)
def test_what_is_told_of_a_name(name: str, told: str) -> None:
    assert kind_told(name) == told


@pytest.mark.parametrize("root", ["", "p"])
def test_a_whole_phantom_is_refused(tmp_path: Path, root: str) -> None:
    make(tmp_path, "p/phantom.json", "p/manifest.csv")
    make(tmp_path, *(f"p/{name}/normal/a.png" for name in ("t1", "t2", "tissue", "tumour_mask")))
    with pytest.raises(UsageError, match=r"p: the output of .*: \S*/p/t1 or \S*/p/t2$"):
        walk(tmp_path / root)
    assert [name for name, _ in walk(tmp_path / "p" / "t2").files] == ["normal/a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_closed_folder(tmp_path: Path) -> None:
    make(tmp_path, "shut/a.png")
    (tmp_path / "shut").chmod(0)
    (refused,) = walk(tmp_path).refused
    (tmp_path / "shut").chmod(0o700)
    assert str(refused) == "shut: a folder that cannot be read (Permission denied)"


def test_one_file(tmp_path: Path) -> None:
    make(tmp_path, "odd.xyz", "scans.zip", "DICOMDIR")
    assert [name for name, _ in walk(tmp_path / "odd.xyz").files] == ["odd.xyz"]
    for name in ("scans.zip", "DICOMDIR"):
        found = walk(tmp_path / name)
        assert (found.files, found.archives) == ([], [(name, tmp_path / name)])


@pytest.mark.parametrize(
    ("name", "kind", "twin"),
    [
        ("a/b.PNG", ".png", "a/b"),
        ("v.nii.gz", ".nii.gz", "v"),
        ("v.nii", ".nii", "v"),
        ("a.TAR.gz", ".tar.gz", "a"),
        ("a.dcm.gz", ".gz", "a.dcm"),
        ("cd/DICOMDIR", "dicomdir", "cd/"),
        ("1.2.840.5", "", "1.2.840.5"),
        ("IM", "", "IM"),
        ("a.b/c", "", "a.b/c"),
        ("1 no.jpeg", ".jpeg", "1 no"),
    ],
)
def test_names(name: str, kind: str, twin: str) -> None:
    assert (suffix(name), stem(name)) == (kind, twin)


def test_a_refusal_survives_the_way_between_processes() -> None:
    refused = pickle.loads(pickle.dumps(Refused("a\nb.png", "broken")))
    assert (refused.name, refused.reason) == ("a\nb.png", "broken")
    assert str(refused) == r"a\nb.png: broken"


def test_refusals_are_one_line_whatever_the_name() -> None:
    name = os.fsdecode(b"a\nb\x1b[31m\xff.png")
    assert str(Refused(name, "broken")) == r"a\nb\x1b[31m\udcff.png: broken"
    assert printable("tête 1.png") == "tête 1.png"
