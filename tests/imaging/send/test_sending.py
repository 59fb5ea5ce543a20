"""`imaging.send` against a storage SCP on loopback: each file once, as it lies, or the reason."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import evt
from recording_scp import Recorder, recording_scp
from send_files import (
    UNCOMPRESSED,
    comes_true,
    data_set,
    folder,
    make,
    reasons,
    sent_to,
    shard,
    uid,
)

from fastmrigan.errors import UsageError
from fastmrigan.imaging.send import Limits, PeerError
from fastmrigan.imaging.send.association import VERIFICATION


def test_data_sets_arrive_as_they_lie(tmp_path: Path, scp: Recorder) -> None:
    root, expected = tmp_path / "in", {}
    for number, (name, syntax) in enumerate(
        [
            ("explicit.dcm", ExplicitVRLittleEndian),
            ("deep/er/implicit", ImplicitVRLittleEndian),
            ("deep/big.IMA", ExplicitVRBigEndian),
            ("deflated.dcm", DeflatedExplicitVRLittleEndian),
            ("1.2.840.1", RLELossless),
        ]
    ):
        expected[uid(number)] = data_set(make(root / name, number, syntax=syntax))
    members = {"notes.json": b"{}"}
    for number in range(5, 25):
        path = make(tmp_path / "apart.dcm", number)
        expected[uid(number)] = data_set(path)
        members[f"{number:09}.dcm"] = path.read_bytes()
    shard(root / "shard-000000.tar", members)
    (root / "README.md").write_text("x")
    (root / ".hidden.dcm").write_text("x")

    result = sent_to(scp, root)
    assert reasons(result) == {}
    assert (result.sent, result.earlier) == (25, 0)
    assert result.ignored == {".md": 1}
    assert dict(scp.received) == expected
    assert len(scp.received) == 25
    assert result.bytes == sum(map(len, expected.values()))
    assert comes_true(lambda: scp.released == scp.associations)  # the echo's too: none was cut
    assert result.state == tmp_path / "in.send"


@pytest.mark.parametrize("which", ["x.dcm", "shard-000000.tar"])
def test_one_file_or_shard(tmp_path: Path, scp: Recorder, which: str) -> None:
    path = make(tmp_path / "x.dcm", 1)
    shard(tmp_path / "shard-000000.tar", {"0.dcm": path.read_bytes()})
    result = sent_to(scp, tmp_path / which)
    assert scp.received == [(uid(1), data_set(path))]
    assert result.state == tmp_path / f"{which}.send"


@pytest.mark.parametrize(
    ("ours", "theirs", "longest"),
    [(1024, 16382, 1024), (0, 16382, 16382), (1 << 18, 4096, 4096), (1 << 17, 0, 1 << 17)],
)
def test_no_pdu_is_longer_than_both_allow(
    tmp_path: Path, ours: int, theirs: int, longest: int
) -> None:
    path = make(tmp_path / "in" / "x.dcm", 1, side=300)  # 180,000 bytes
    with recording_scp(max_pdu=theirs) as recorder:
        sent_to(recorder, tmp_path / "in", limits=Limits(20.0, ours))
        assert recorder.received == [(uid(1), data_set(path))]
        assert recorder.longest == longest


def test_the_files_alone_are_offered(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", 2)
    make(root / "ct", 2, sop_class=CTImageStorage, syntax=ImplicitVRLittleEndian)
    offered = []

    def requested(event: evt.Event) -> None:
        contexts = event.assoc.requestor.primitive.presentation_context_definition_list
        offered.append({(c.abstract_syntax, *c.transfer_syntax) for c in contexts})

    with recording_scp(more=[(evt.EVT_REQUESTED, requested)]) as recorder:
        sent_to(recorder, root, associations=1)
    needed = {
        (MRImageStorage, ExplicitVRLittleEndian),
        (CTImageStorage, ImplicitVRLittleEndian),
    }
    assert offered == [{VERIFICATION}, needed]


@pytest.mark.parametrize(
    ("status", "stored", "reason"),
    [
        (0x0000, True, ""),
        (0xB000, True, "status 0xB000, Coercion of Data Elements"),
        (0xB006, True, "status 0xB006, Element Discarded"),
        (0xB007, True, "status 0xB007, Data Set Does Not Match SOP Class"),
        (0x0117, False, "the peer refuses it: status 0x0117, Invalid Object Instance"),
        (0x0122, False, "the peer refuses it: status 0x0122, Refused: SOP Class Not Supported"),
        (0x0124, False, "the peer refuses it: status 0x0124, Refused: Not Authorised"),
        (0xA700, False, "the peer refuses it: status 0xA700, Refused: Out of Resources"),
        (0xA900, False, "the peer refuses it: status 0xA900, Data Set Does Not Match SOP Class"),
        (0xC123, False, "the peer refuses it: status 0xC123, Cannot Understand"),
        (0xD000, False, "the peer refuses it: status 0xD000"),
    ],
)
def test_statuses(tmp_path: Path, scp: Recorder, status: int, stored: bool, reason: str) -> None:
    root = folder(tmp_path / "in", 3)
    scp.answer = lambda number, event: status if number == 2 else 0x0000
    result = sent_to(scp, root)
    assert result.sent == 3 if stored else 2
    name = f"{int(scp.instances[1][5:]) - 1000}.dcm"
    if stored:
        assert result.warnings == ({reason: 1} if reason else {})
        assert reasons(result) == {}
    else:
        listed = reasons(result)
        assert list(listed) == [name]
        assert listed[name].startswith(reason)
    scp.reset()
    again = sent_to(scp, root)  # what failed is tried again, what was stored is not
    assert (again.sent, again.earlier) == ((0, 3) if stored else (1, 2))
    assert len(scp.received) == again.sent
    assert reasons(again) == {}


def test_refused_presentation_contexts(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", 2)
    make(root / "ct.dcm", 10, sop_class=CTImageStorage)
    make(root / "rle.dcm", 11, syntax=RLELossless)
    with recording_scp(classes=[MRImageStorage], syntaxes=UNCOMPRESSED) as recorder:
        result = sent_to(recorder, root)
        assert sorted(recorder.instances) == [uid(0), uid(1)]
    refused = "the peer accepts no"
    assert reasons(result) == {
        "ct.dcm": f"{refused} CT Image Storage in Explicit VR Little Endian: it does not store "
        "this SOP class",
        "rle.dcm": f"{refused} MR Image Storage in RLE Lossless: it does not take this transfer "
        "syntax",
    }


def test_a_peer_that_accepts_nothing(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", 3)
    with recording_scp(classes=[CTImageStorage], verification=False) as recorder:
        result = sent_to(recorder, root)
        assert recorder.received == []
    assert result.echo_seconds is None
    assert set(reasons(result)) == {"0.dcm", "1.dcm", "2.dcm"}


def test_abort_in_mid_send_then_the_rest_once_each(tmp_path: Path, scp: Recorder) -> None:
    root = folder(tmp_path / "in", 12)

    def abort(number: int, event: evt.Event) -> int:
        if number in (4, 7):
            event.assoc.abort()
        return 0x0000

    scp.answer = abort
    result = sent_to(scp, root, associations=1)
    assert result.sent == 10
    listed = reasons(result)
    assert set(listed.values()) == {"the peer aborted the association (by its user)"}
    heard = Counter(scp.instances)
    assert set(heard.values()) == {1}
    assert len(heard) == 12

    scp.reset()
    again = sent_to(scp, root)
    names = {f"{int(instance[5:]) - 1000}.dcm" for instance in scp.instances}
    assert names == set(listed)
    assert (again.sent, again.earlier) == (2, 10)
    assert reasons(again) == {}
    assert not again.rejects.exists()
    scp.reset()
    assert sent_to(scp, root).earlier == 12
    assert scp.received == []


def test_a_peer_that_is_gone_for_good(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", 12)
    with recording_scp() as recorder:
        recorder.answer = lambda number, event: event.assoc.abort() or 0 if number > 2 else 0
        with pytest.raises(PeerError, match=r"[56] files in a row got no answer; 2 of 12 files"):
            sent_to(recorder, root, associations=1)
        where = str(recorder)
    with pytest.raises(PeerError, match=r"cannot be reached \(Connection refused\)"):
        sent_to(where, root)


def test_no_answer_within_the_timeout(tmp_path: Path, scp: Recorder) -> None:
    root = folder(tmp_path / "in", 3)
    release = threading.Event()
    scp.answer = lambda number, event: (release.wait(60) and 0) if number == 2 else 0
    began = time.monotonic()
    result = sent_to(scp, root, limits=Limits(2.0), associations=1)
    release.set()
    assert time.monotonic() - began < 30
    assert result.sent == 2
    assert set(reasons(result).values()) == {"the peer did not answer within 2 s"}


def test_a_peer_with_one_association_at_a_time(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", 40)
    with recording_scp(associations=1) as recorder:
        result = sent_to(recorder, root, associations=4)
        assert sorted(recorder.instances) == sorted(map(uid, range(40)))
    assert result.sent == 40
    assert result.associations <= 2  # another's turn may come when one has ended


@pytest.mark.parametrize(
    ("attributes", "goes"),
    [
        ({"SyntheticData": "YES"}, True),
        ({"PatientIdentityRemoved": "YES"}, True),
        ({"SyntheticData": "NO", "PatientIdentityRemoved": "YES"}, True),
        ({"SyntheticData": "NO", "PatientIdentityRemoved": "NO"}, False),
        ({"PatientIdentityRemoved": ""}, False),
        ({"StudyDescription": "YES"}, False),
    ],
)
def test_identified_files_stay(
    tmp_path: Path, scp: Recorder, attributes: dict[str, str], goes: bool
) -> None:
    root = tmp_path / "in"
    make(root / "x.dcm", 1, **attributes)
    make(root / "y.dcm", 2)
    result = sent_to(scp, root)
    assert result.sent == 1 + goes
    assert result.unmarked == 0
    if not goes:
        assert "does not say that it is synthetic" in reasons(result)["x.dcm"]
        assert scp.instances == [uid(2)]
        allowed = sent_to(scp, root, allow_identified=True)
        assert (allowed.sent, allowed.unmarked) == (1, 1)


def test_nothing_to_send(tmp_path: Path, scp: Recorder) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x" * 200)
    with pytest.raises(UsageError, match=r"in: no DICOM files in this folder, nor shards"):
        sent_to(scp, tmp_path / "in")
    with pytest.raises(UsageError, match=r"nowhere: no such file or folder"):
        sent_to(scp, tmp_path / "nowhere")
