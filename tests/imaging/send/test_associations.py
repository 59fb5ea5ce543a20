"""Associations: requests byte by byte, peers that are wrong, silent, busy or gone."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRBigEndian, MRImageStorage
from pynetdicom import acse, evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket
from recording_scp import TITLE, Recorder, recording_scp
from send_files import (
    QUICK,
    comes_true,
    make,
)

from fastmrigan.errors import UsageError
from fastmrigan.imaging.send import Limits, Peer, PeerError, echo
from fastmrigan.imaging.send.association import VERIFICATION, Busy, Connection, EchoRefused, Lost
from fastmrigan.imaging.send.message import command_set, request
from fastmrigan.imaging.send.source import Found, look
from fastmrigan.imaging.send.transport import Transport


def pdus(parts: Iterable[bytes | memoryview]) -> list[bytes]:
    """Whole PDUs out of a stream of bytes, by the lengths that they claim."""
    stream, found = b"".join(parts), []
    while stream:
        size = 6 + int.from_bytes(stream[2:6], "big")
        found.append(stream[:size])
        stream = stream[size:]
    return found


@pytest.mark.parametrize("instance", ["1.2.3", "2.25.1234", "1." + 62 * "7", "1.2.840." + 9 * "5"])
@pytest.mark.parametrize("pdu", [0, 64, 1024])
def test_request_equals_pynetdicoms(instance: str, pdu: int) -> None:
    content = bytes(range(250)) * 10
    theirs, message = C_STORE(), C_STORE_RQ()
    theirs.MessageID, theirs.Priority = 65535, 2
    theirs.AffectedSOPClassUID, theirs.AffectedSOPInstanceUID = MRImageStorage, instance
    theirs.DataSet = io.BytesIO(content)
    message.primitive_to_message(theirs)
    expected = [P_DATA_TF(part).encode() for part in message.encode_msg(5, pdu)]
    command = command_set(str(MRImageStorage), instance, 65535)
    assert pdus(request(5, command, content, pdu)) == expected


def test_fragments_are_even() -> None:
    values = []
    for part in pdus(request(1, bytes(100), bytes(range(256)), 41)):
        data = P_DATA_TF()
        data.decode(part)
        values += [item.presentation_data_value for item in data.presentation_data_value_items]
    assert {len(value) % 2 for value in values} == {1}  # the control byte comes before each
    assert b"".join(value[1:] for value in values) == bytes(100) + bytes(range(256))
    assert [value[0] for value in values if value[0] & 2] == [3, 2]


def test_small_packets_are_not_held_back(scp: Recorder) -> None:
    connection = Connection(Peer.parse(str(scp)), [VERIFICATION], QUICK)
    connection.open()
    assert connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


def test_a_peer_that_reads_no_more(tmp_path: Path) -> None:
    path = make(tmp_path / "in" / "x.dcm", 1, side=4000)  # 32 MB: more than sockets buffer
    release = threading.Event()
    block = [(evt.EVT_PDU_RECV, lambda event: event.pdu.pdu_type == 4 and release.wait(60))]
    found = Found()
    look("x.dcm", path, found)
    with recording_scp(more=block) as recorder:
        connection = Connection(
            Peer.parse(str(recorder)), [found.items[0].context], Limits(timeout=2.0)
        )
        connection.open()
        began = time.monotonic()
        with pytest.raises(Lost, match=r"did not answer within 2 s"):
            connection.store(found.items[0], found.items[0].read())
        connection.close()
        assert time.monotonic() - began < 30
        release.set()


def response(
    *,
    field: int = 0x8030,  # C-ECHO-RSP
    number: int = 1,
    status: bytes = b"\0\0",
    context: int = 1,
    instance: bytes = b"",
    size: int = 1000,
) -> bytes:
    """An answer in PDUs of one PDV, whose fragments have at most `size` bytes (PS3.7 table E.1)."""
    elements = {
        0x0100: field.to_bytes(2, "little"),
        0x0120: number.to_bytes(2, "little"),
        0x0800: b"\x01\x01",  # no data set
        0x0900: status,
        **({0x1000: instance} if instance else {}),
    }
    whole = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements.items()
    )
    pdus = []
    for start in range(0, len(whole), size):
        part = whole[start : start + size]
        control = 3 if start + size >= len(whole) else 1
        value = struct.pack(">LBB", 2 + len(part), context, control) + part
        pdus.append(struct.pack(">BxL", 4, len(value)) + value)
    return b"".join(pdus)


@pytest.fixture
def asking(scp: Recorder) -> Iterator[tuple[Connection, socket.socket]]:
    """An association whose messages go to a bare socket, once it stands."""
    connection = Connection(Peer.parse(str(scp)), [VERIFICATION], QUICK)
    connection.open()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection.transport = Transport(ours, 0.5, 16384)
        yield connection, theirs
        connection.close()


def test_an_answer_in_pieces(asking: tuple[Connection, socket.socket]) -> None:
    connection, peer = asking
    peer.sendall(response(size=6))
    assert connection.echo() > 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (response(number=2), "the peer answered what it was not asked"),
        (response(context=3), "the peer answered what it was not asked"),
        (response(field=0x8001), "the peer answered what it was not asked"),  # C-STORE-RSP
        (response(field=0x0030), "the peer answered what it was not asked"),  # C-ECHO-RQ
        (response(status=b""), "the peer's answer states no status"),
        (response(status=b"\0"), "the peer's answer is no DICOM message"),
        (response(field=0x8001, instance=b"1." * 60), "the peer's answer is no DICOM message"),
        (b"\x05\0\0\0\0\x04\0\0\0\0", "the peer released the association before it answered"),
    ],
)
@pytest.mark.filterwarnings("ignore:The value length")
def test_answers_to_something_else(
    asking: tuple[Connection, socket.socket], said: bytes, why: str
) -> None:
    connection, peer = asking
    peer.sendall(said)
    with pytest.raises(PeerError, match=f"no answer to C-ECHO: {why}"):
        connection.echo()
    assert not connection.alive


def test_an_answer_that_never_ends(asking: tuple[Connection, socket.socket]) -> None:
    connection, peer = asking
    done, fragment = threading.Event(), struct.pack(">BxLLBB", 4, 6, 2, 1, 1)

    def trickle() -> None:
        with contextlib.suppress(OSError):
            while not done.wait(0.05):
                peer.sendall(fragment)

    thread = threading.Thread(target=trickle)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(PeerError, match=r"did not answer within 0\.5 s"):
            connection.echo()
        assert time.monotonic() - began < 30
    finally:
        done.set()
        thread.join()


def test_a_transfer_syntax_that_was_not_offered(scp: Recorder, monkeypatch) -> None:
    negotiate = acse.negotiate_as_requestor

    def altered(*arguments: Any) -> list[PresentationContext]:
        contexts = negotiate(*arguments)
        for context in contexts:
            context.transfer_syntax = [ExplicitVRBigEndian]
        return contexts

    monkeypatch.setattr(acse, "negotiate_as_requestor", altered)
    with pytest.raises(EchoRefused, match=r"answers with 1\.2\.840\.10008\.1\.2\.2, which was not"):
        echo(Peer.parse(str(scp)), QUICK)


def test_a_release_that_the_peer_asks_for_is_granted(tmp_path: Path, scp: Recorder) -> None:
    found = Found()
    look("x.dcm", make(tmp_path / "x.dcm", 1), found)
    item = found.items[0]
    connection = Connection(Peer.parse(str(scp)), [item.context], QUICK)
    connection.open()
    assert connection.store(item, item.read()).stored
    acceptor = next(
        thread
        for thread in threading.enumerate()
        if getattr(thread, "is_acceptor", False) and thread.is_established
    )
    asking = threading.Thread(target=acceptor.release)
    asking.start()
    assert comes_true(lambda: not connection.alive)
    asking.join(60)
    assert acceptor.is_released
    connection.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("beginning", [b"", b"\x02\x00\x00\x00\x10\x00"], ids=["", "of a PDU"])
def test_a_server_that_stays_silent(listener: socket.socket, beginning: bytes) -> None:
    peer, said = Peer.parse(f"X@127.0.0.1:{listener.getsockname()[1]}"), []

    def ask() -> None:
        try:
            echo(peer, Limits(0.3))
        except PeerError as error:
            said.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)  # so that a hang is a failure
    asking.start()
    client, _ = listener.accept()
    client.sendall(beginning)
    asking.join(5)
    client.close()
    assert "did not answer within 0.3 s; check that it is a DICOM peer" in "".join(said)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x02\x00"])
def test_a_server_that_is_not_dicom(listener: socket.socket, greeting: bytes) -> None:
    def serve() -> None:
        client, _ = listener.accept()
        client.recv(1000)
        client.sendall(greeting)
        client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    peer = Peer.parse(f"X@127.0.0.1:{listener.getsockname()[1]}")
    with pytest.raises(PeerError, match=r"X@127.0.0.1:\d+: (closes the connection|aborts|takes)"):
        echo(peer, QUICK)
    thread.join(60)


def test_unreachable_peers(tmp_path: Path, monkeypatch) -> None:
    with socket.socket() as deaf:  # held and not listened at: nobody else can take its port
        deaf.bind(("127.0.0.1", 0))
        peer = Peer.parse(f"X@127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(
            PeerError, match=r"cannot be reached \(Connection refused\); check host"
        ):
            echo(peer, QUICK)
    with pytest.raises(PeerError, match=r"no such host"):
        echo(Peer.parse("X@a..b:104"), QUICK)

    def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(PeerError, match=r"no such host \(Name or service not known\)"):
        echo(Peer.parse("X@pacs.invalid:104"), QUICK)


@pytest.mark.parametrize(
    ("rules", "title", "calling", "message"),
    [
        ({"only_called": True}, "OTHER", "ME", "Called AE title not recognised; give the peer's"),
        (
            {"only_calling": ["YOU"]},
            TITLE,
            "ME",
            "Calling AE title not recognised; it must know",
        ),
        ({"verification": False}, TITLE, "ME", "the peer accepts no Verification SOP Class in"),
    ],
)
def test_refused_associations(rules, title: str, calling: str, message: str) -> None:
    with recording_scp(**rules) as recorder:
        peer = Peer.parse(f"{title}@127.0.0.1:{recorder.port}", calling)
        with pytest.raises(PeerError, match=message):
            echo(peer, QUICK)


def test_a_refusal_that_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, and on a machine at its limits, all is over when pynetdicom's thread wakes up."""

    class Late(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            found = super().wait(timeout)
            time.sleep(0.3)
            return found

    made = AssociationSocket.__init__

    def with_late_event(self: AssociationSocket, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self._ready = Late()

    monkeypatch.setattr(AssociationSocket, "__init__", with_late_event)
    with recording_scp(only_called=True, associations=1) as recorder:
        wrong = Peer.parse(f"OTHER@127.0.0.1:{recorder.port}", "ME")
        with pytest.raises(PeerError, match="refuses the association: Called AE title not"):
            echo(wrong, QUICK)
        peer = Peer.parse(str(recorder))
        other = Connection(peer, [VERIFICATION], QUICK)
        other.open()
        with pytest.raises(Busy, match="refuses the association: Local limit exceeded"):
            Connection(peer, [VERIFICATION], QUICK).open()
        other.close()


def test_a_peer_with_enough_to_do() -> None:
    with recording_scp(associations=1) as recorder:
        peer = Peer.parse(str(recorder))
        other = Connection(peer, [VERIFICATION], QUICK)
        other.open()
        with pytest.raises(PeerError, match="refuses the association: Local limit exceeded"):
            echo(peer, QUICK)
        other.close()


def test_echo(scp: Recorder) -> None:
    assert 0 < echo(Peer.parse(str(scp)), QUICK) < 5


@pytest.mark.parametrize(
    ("text", "calling", "expected"),
    [
        ("ORTHANC@localhost:4242", "ME", Peer("ORTHANC", "localhost", 4242, "ME")),
        (" A B @10.0.0.1:104", "ME", Peer("A B", "10.0.0.1", 104, "ME")),
        ("A@B@host:104", "ME", Peer("A@B", "host", 104, "ME")),
        ("X@[::1]:104", "ME", Peer("X", "::1", 104, "ME")),
    ],
)
def test_peer(text: str, calling: str, expected: Peer) -> None:
    peer = Peer.parse(text, calling)
    assert peer == expected
    assert Peer.parse(str(peer), calling) == peer


@pytest.mark.parametrize(
    ("text", "calling", "message"),
    [
        ("host:104", "ME", "expected AET@HOST:PORT"),
        ("X@host", "ME", "expected AET@HOST:PORT"),
        ("X@host:0", "ME", "expected AET@HOST:PORT"),
        ("X@host:65536", "ME", "expected AET@HOST:PORT"),
        ("X@::1:104", "ME", "expected AET@HOST:PORT"),
        ("@host:104", "ME", "--to '': an AE title has 1 to 16"),
        ("  @host:104", "ME", "an AE title has 1 to 16"),
        ("SEVENTEEN_LETTERS@host:104", "ME", "an AE title has 1 to 16"),
        (r"A\B@host:104", "ME", "an AE title has 1 to 16"),
        ("X@host:104", "Ä", "--from 'Ä': an AE title has 1 to 16"),
    ],
)
def test_peers_that_are_none(text: str, calling: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Peer.parse(text, calling)
