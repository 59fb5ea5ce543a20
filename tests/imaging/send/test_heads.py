"""Heads read without pydicom: what `plain_head` says of a file is what pydicom says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from send_files import element, header, make, meta

from fastmrigan.imaging.phantom.formats import SliceInfo, dicom_bytes
from fastmrigan.imaging.send.head import Head, full_head, plain_head
from fastmrigan.imaging.walker import Refused

FIRST = 16 << 10  # bytes of a file that are read at first


def heads(content: bytes) -> tuple[Head | None, Head | None]:
    """By ours and, where ours does not leave it to pydicom, by pydicom."""
    head = content[:FIRST]
    ours = plain_head(head)
    return ours, None if ours is None else full_head("x", head, len(content))


@pytest.mark.parametrize(
    ("syntax", "attributes", "ours"),
    [
        (ExplicitVRLittleEndian, {}, True),
        (ExplicitVRLittleEndian, {"PatientIdentityRemoved": "YES"}, True),
        (ExplicitVRLittleEndian, {"SyntheticData": "NO", "PatientIdentityRemoved": "YES"}, True),
        (ExplicitVRLittleEndian, {"SyntheticData": "NO"}, True),
        (ExplicitVRLittleEndian, {"StudyDescription": "YES"}, True),
        (ExplicitVRLittleEndian, {"SyntheticData": ""}, False),
        (RLELossless, {}, True),
        (ImplicitVRLittleEndian, {}, False),
        (ExplicitVRBigEndian, {}, False),
    ],
)
def test_files_of_every_kind(tmp_path: Path, syntax: str, attributes, ours: bool) -> None:
    path = make(tmp_path / "x.dcm", 1, syntax=syntax, **attributes)
    here, theirs = heads(path.read_bytes())
    assert (here is not None) == ours
    assert here == theirs


def test_what_we_write_ourselves_is_read_without_pydicom() -> None:
    info = SliceInfo("x", "t2", 1, 2, 0.0, 1.0)
    here, theirs = heads(dicom_bytes(np.zeros((256, 256), np.float32), info))
    assert here is not None
    assert here == theirs
    assert (here.marked, here.claimed) == (True, 2 * 256 * 256)


def test_pydicoms_own_files() -> None:
    """The test files in its package: whatever ours reads, pydicom reads alike."""
    alike = 0
    for name in sorted(Path(pydicom.data.__file__).with_name("test_files").rglob("*.dcm")):
        content = name.read_bytes()
        if content[128:132] == b"DICM":
            here, theirs = heads(content)
            assert here == theirs, name
            alike += here is not None
    assert alike >= 10


UIDS = element(8, 0x16, b"UI", b"1.2") + element(8, 0x18, b"UI", b"1.2.3.4")
PIXELS = b"\xe0\x7f\x10\x00OW\0\0\4\0\0\0abcd"
PLAIN = meta(ExplicitVRLittleEndian)
SEQUENCE = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"
END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def test_a_plain_head() -> None:
    head = header(PLAIN, UIDS + PIXELS)
    here, theirs = heads(head)
    data = len(header(PLAIN))
    assert here == theirs
    assert here == Head(
        data, ExplicitVRLittleEndian, "1.2", "1.2.3.4", False, False, len(head) - 4, 4
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        header(),
        header(PLAIN, UIDS),  # ends before the pixel data
        header(PLAIN, UIDS + PIXELS[:11]),
        header(PLAIN, PIXELS),
        header(PLAIN, element(8, 0x18, b"UI", b"1.2") + PIXELS),
        header(PLAIN, element(8, 0x16, b"UI", b"1.2") + PIXELS),
        header(b"", UIDS + PIXELS),
        header(meta("1.2.3"), UIDS + PIXELS),  # a transfer syntax that nobody knows
        header(meta(ImplicitVRLittleEndian), UIDS + PIXELS),
        header(meta(ExplicitVRBigEndian), UIDS + PIXELS),
        header(meta(DeflatedExplicitVRLittleEndian), UIDS + PIXELS),
        header(PLAIN, UIDS + SEQUENCE + END + PIXELS),  # of no stated length
        header(PLAIN, UIDS + UIDS + PIXELS),  # twice
        header(PLAIN, UIDS + PLAIN + PIXELS),  # out of order
        header(PLAIN, UIDS + element(0x10, 0x20, b"??", b"1") + PIXELS),
        header(PLAIN, UIDS + PIXELS.replace(b"OW", b"UN")),
        header(PLAIN, UIDS + PIXELS.replace(b"\x10\0", b"\x20\0", 1)),
        header(PLAIN, UIDS.replace(b"UI", b"LO") + PIXELS),
        header(PLAIN, UIDS.replace(b"1.2\0", b"1.2 ") + PIXELS),
        header(PLAIN, UIDS.replace(b"1.2\0", b"1\\2\0") + PIXELS),
        header(PLAIN, UIDS.replace(b"1.2\0", b"a.2\0") + PIXELS),
        header(PLAIN, element(8, 0x16, b"UI", b"1." * 33) + UIDS[12:] + PIXELS),
        header(PLAIN, UIDS + element(8, 0x1C, b"CS", b"YES\\NO") + PIXELS),
        header(PLAIN, UIDS + element(8, 0x1C, b"CS", b"yes") + PIXELS),
        header(PLAIN, UIDS + element(8, 0x1C, b"LO", b"YES") + PIXELS),
    ],
)
def test_what_is_left_to_pydicom(content: bytes) -> None:
    assert plain_head(content) is None


def test_altered_heads(tmp_path: Path) -> None:
    """Bytes replaced, taken out and put in: never another answer than pydicom's."""
    rng = np.random.default_rng(7)
    whole = make(tmp_path / "x.dcm", 1, SyntheticData="NO", PatientIdentityRemoved="YES")
    content = whole.read_bytes()
    alike = 0
    for _ in range(3000):
        at = int(rng.integers(132, len(content) - 500))
        new = rng.integers(0, 256, rng.integers(0, 3), np.uint8).tobytes()
        altered = content[:at] + new + content[at + int(rng.integers(0, 3)) :]
        try:
            here, theirs = heads(altered)
        except Refused as refused:
            raise AssertionError(f"{refused}, at {at} with {new!r}") from refused
        assert here == theirs, (at, new)
        alike += here is not None
    assert alike > 100
