"""Which files are sent: those that are whole; the others are named with the reason."""

from __future__ import annotations

import os
import sys
import time
from itertools import product
from pathlib import Path

import pytest
from pace import pace
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    RLELossless,
)
from recording_scp import Recorder
from send_files import (
    QUICK,
    UNCOMPRESSED,
    data_set,
    deflated,
    element,
    folder,
    header,
    make,
    meta,
    reasons,
    sent_to,
    shard,
    uid,
)

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.send import Peer, echo
from fastmrigan.imaging.send.head import explicit_little
from fastmrigan.imaging.send.source import Found, look
from fastmrigan.imaging.walker import Refused

LONG = element(8, 5, b"CS", b"") + b"\x09\x00\x01\x00OB\0\0" + (64 << 20).to_bytes(4, "little")
SEQUENCE = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a DICOM file"),
        (b"x" * 500, "not a DICOM file"),
        (header(), "no transfer syntax that is known (none)"),
        (header(meta("1.2.3")), "no transfer syntax that is known (1.2.3)"),
        (header(meta(str(MRImageStorage))), "no transfer syntax that is known"),
        (header(meta(ExplicitVRLittleEndian)), "holds nothing behind"),
        (header(meta(ExplicitVRLittleEndian), element(8, 5, b"CS", b"")), "names no SOP class"),
        (header(meta(ExplicitVRLittleEndian), b"\x08"), "holds nothing behind"),
        (
            header(meta(ExplicitVRLittleEndian), element(8, 0x16, b"UI", b"1.2")),
            "names no SOP instance",
        ),
        (
            header(meta(ExplicitVRLittleEndian), element(8, 0x16, b"UI", b"1.2/..")),
            "names no SOP class",
        ),
        (header(meta(DeflatedExplicitVRLittleEndian), b"\xff" * 9), "its header cannot be read"),
        (
            header(meta(DeflatedExplicitVRLittleEndian), deflated(LONG + bytes(8 << 20))),
            "its header is longer than 4 MiB",
        ),
        (header(meta(ExplicitVRLittleEndian), SEQUENCE * 2000), "its header cannot be read"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else len(value),
)
def test_files_that_cannot_be_sent(
    tmp_path: Path, scp: Recorder, content: bytes, reason: str
) -> None:
    root = folder(tmp_path / "in", 1)
    (root / "bad.dcm").write_bytes(content)
    slower, began, used = pace(), time.monotonic(), time.process_time()
    result = sent_to(scp, root)
    assert time.monotonic() - began < QUICK.timeout  # no answer was waited for
    assert time.process_time() - used < 2 * max(slower, pace())
    assert reasons(result)["bad.dcm"].startswith(reason)
    assert scp.instances == [uid(0)]


def test_places_that_cannot_be_read(tmp_path: Path, scp: Recorder) -> None:
    root = folder(tmp_path / "in", 1)
    (root / "gone.dcm").symlink_to("nowhere")
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "pipe.dcm")
    five = make(tmp_path / "x", 5).read_bytes()
    whole = shard(root / "shard-000000.tar", {"4.dcm": five[:200], "5.dcm": five})
    cut = whole.read_bytes()
    (root / "shard-000001.tar").write_bytes(cut[:1800])
    (root / "shard-000002.tar").write_bytes(b"no tar" * 500)
    (root / "other.tar").write_bytes(cut)
    directory = make(root / "DICOMDIR", 9, sop_class=MediaStorageDirectoryStorage)
    assert directory.exists()
    result = sent_to(scp, root)
    assert sorted(scp.instances) == [uid(0), uid(5)]
    listed = reasons(result)
    assert listed["gone.dcm"] == "a link that leads nowhere (No such file or directory)"
    assert listed["pipe.dcm"] == "not a regular file"
    assert listed["shard-000002.tar"].startswith("not a whole tar archive (")
    assert listed["shard-000001.tar"] == "not a whole tar archive (it ends within a member)"
    for name in ("shard-000000.tar/4.dcm", "shard-000001.tar/4.dcm"):
        assert "transfer syntax" in listed[name] or "header cannot" in listed[name]
    assert len(listed) == 6
    assert result.ignored == {".tar": 1, "DICOMDIR": 1}


@pytest.mark.parametrize(
    ("syntax", "missing", "goes"),
    [
        *product([*UNCOMPRESSED, ExplicitVRBigEndian], [0], [True]),
        *product([*UNCOMPRESSED, ExplicitVRBigEndian], [1, 2, 400], [False]),
        *product([RLELossless], [0], [True]),
        *product([RLELossless], [1, 2, 8, 400], [False]),
    ],
)
def test_copies_that_were_cut_short(
    tmp_path: Path, scp: Recorder, syntax: str, missing: int, goes: bool
) -> None:
    path = make(tmp_path / "in" / "x.dcm", 1, syntax=syntax)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - missing])
    result = sent_to(scp, path)
    assert result.sent == goes
    if not goes:
        assert reasons(result) == {"x.dcm": "is not whole: it ends before its last element does"}


def test_an_odd_deflated_data_set_is_padded(tmp_path: Path, scp: Recorder) -> None:
    path = make(tmp_path / "x.dcm", 1)
    whole = data_set(path)
    for filler in range(9):  # until it deflates to an odd length
        extra = element(0x0009, 0x0010, b"LO", b"x" * 2 * filler)
        packed = deflated(whole.replace(element(0x10, 0x20, b"LO", b"1"), extra))
        if len(packed) % 2:
            break
    path.write_bytes(header(meta(DeflatedExplicitVRLittleEndian), packed))
    assert sent_to(scp, path).sent == 1
    assert scp.received == [(uid(1), packed + b"\0")]


def test_a_file_that_shrinks_meanwhile(tmp_path: Path) -> None:
    path = make(tmp_path / "x.dcm", 1)
    found = Found()
    look("x.dcm", path, found)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(Refused, match=r"x\.dcm: has become shorter"):
        found.items[0].read()


@pytest.mark.parametrize("package", ["pynetdicom", "pydicom"])
def test_missing_package(tmp_path: Path, monkeypatch, scp: Recorder, package: str) -> None:
    path = make(tmp_path / "x.dcm", 1)
    needs = {
        "pynetdicom": lambda: echo(Peer.parse(str(scp)), QUICK),
        "pydicom": lambda: look("x.dcm", path, Found()),
    }[package]
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("filereader", "uid"):
        monkeypatch.setitem(sys.modules, f"{package}.{module}", None)
    explicit_little.cache_clear()
    with pytest.raises(MissingDependency, match=rf"package {package}, .*fastmrigan\[dicom\]"):
        needs()
