"""Associations: requests byte by byte, peers that are wrong, silent, busy or gone."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pydicom.uid import (
    MRImageStorage,
)
from pynetdicom import evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF
from recording_scp import TITLE, Recorder, recording_scp
from send_files import (
    QUICK,
    comes_true,
    make,
)

from fastmrigan.errors import UsageError
from fastmrigan.imaging.send import Limits, Peer, PeerError, echo
from fastmrigan.imaging.send.association import VERIFICATION, Connection, Lost
from fastmrigan.imaging.send.message import command_set, request
from fastmrigan.imaging.send.source import Found, look


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
    block = [(evt.EVT_PDU_RECV, lambda event: event.pdu.pdu_type == 4 and release.wait(10))]
    found = Found()
    look("x.dcm", path, found)
    with recording_scp(more=block) as recorder:
        connection = Connection(
            Peer.parse(str(recorder)), [found.items[0].context], Limits(timeout=0.3)
        )
        connection.open()
        began = time.monotonic()
        with pytest.raises(Lost, match=r"did not answer within 0\.3 s"):
            connection.store(found.items[0], found.items[0].read())
        connection.close()
        assert time.monotonic() - began < 3
        release.set()


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
    asking.join(5)
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
        echo(peer, Limits(1.0))
    thread.join(5)


def test_unreachable_peers(tmp_path: Path, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    with pytest.raises(PeerError, match=r"cannot be reached \(Connection refused\); check host"):
        echo(Peer.parse(f"X@127.0.0.1:{closed}"), QUICK)
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
