"""The bytes of an association against a peer that is a bare socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from pynetdicom.pdu import A_ABORT_RQ, A_RELEASE_RP, A_RELEASE_RQ

from fastmrigan.imaging.send.transport import P_DATA_TF, Ended, Transport

ANSWER = b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x01\x03ab"
ABORT = A_ABORT_RQ()
ABORT.source, ABORT.reason_diagnostic = 2, 6


@pytest.fixture
def ends() -> Iterator[tuple[Transport, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    with ours, theirs:
        yield Transport(ours, 0.3, 100), theirs


def test_a_pdu_in_pieces(ends: tuple[Transport, socket.socket]) -> None:
    transport, peer = ends
    assert not transport.waiting

    def trickle() -> None:
        for byte in ANSWER:
            peer.send(bytes((byte,)))
            time.sleep(0.005)

    thread = threading.Thread(target=trickle)
    thread.start()
    assert transport.receive() == (P_DATA_TF, ANSWER)
    thread.join()
    assert not transport.waiting


@pytest.mark.parametrize(
    ("sent", "hangs_up", "why"),
    [
        (b"", True, "the peer closed the connection"),
        (ANSWER[:4], True, "the peer closed the connection"),
        (ANSWER[:-1], True, "the peer closed the connection"),
        (ANSWER[:-1], False, "the peer did not answer within 0.3 s"),
        (b"", False, "the peer did not answer within 0.3 s"),
        (
            ANSWER[:2] + b"\x00\x00\x00\x65" + bytes(101),
            False,
            "a PDU of 101 bytes, and may of 100",
        ),
        (ANSWER[:2] + b"\xff\xff\xff\xff", False, "a PDU of 4,294,967,295 bytes"),
        (ABORT.encode(), False, r"aborted the association \(Invalid PDU parameter value\)"),
        (ABORT.encode()[:8] + b"\x00\x00", False, r"aborted the association \(by its user\)"),
        (ABORT.encode()[:8] + b"\x09\x09", False, r"aborted the association"),
        (b"\x07\x00\x00\x00\x00\x01\x00", False, r"aborted the association"),
    ],
)
def test_what_ends_it(
    ends: tuple[Transport, socket.socket], sent: bytes, hangs_up: bool, why: str
) -> None:
    transport, peer = ends
    peer.sendall(sent)
    if hangs_up:
        peer.close()
    began = time.monotonic()
    with pytest.raises(Ended, match=why):
        transport.receive()
    assert time.monotonic() - began < 10


def test_more_than_the_socket_holds(ends: tuple[Transport, socket.socket]) -> None:
    transport, peer = ends
    content = bytes(range(256)) * 40_000  # 10 MB
    received = bytearray()

    def read() -> None:
        while len(received) < len(content):
            received.extend(peer.recv(1 << 20))

    thread = threading.Thread(target=read)
    thread.start()
    transport.send([content[:7], memoryview(content)[7:]])
    thread.join()
    assert received == content
    with pytest.raises(Ended, match="did not answer within"):  # nobody reads now
        transport.send([content])


@pytest.mark.parametrize("hangs_up", [False, True])
def test_an_abort_while_we_send_is_told(
    ends: tuple[Transport, socket.socket], hangs_up: bool
) -> None:
    transport, peer = ends
    peer.sendall(ABORT.encode())
    if hangs_up:
        peer.shutdown(socket.SHUT_RDWR)
    with pytest.raises(Ended, match=r"aborted the association \(Invalid PDU parameter value\)"):
        transport.send([bytes(10_000_000)])


def test_a_peer_that_never_grants_a_release(ends: tuple[Transport, socket.socket]) -> None:
    transport, peer = ends
    done = threading.Event()

    def chatter() -> None:
        while not done.wait(0.05):
            peer.sendall(ANSWER)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        with pytest.raises(Ended, match=r"did not answer within 0\.3 s"):
            transport.release()
    finally:
        done.set()
        thread.join()


def test_a_peer_that_asks_for_release_at_the_same_moment(
    ends: tuple[Transport, socket.socket],
) -> None:
    transport, peer = ends
    peer.sendall(A_RELEASE_RQ().encode() + A_RELEASE_RP().encode())
    transport.release()
    assert peer.recv(100) == A_RELEASE_RQ().encode() + A_RELEASE_RP().encode()


def test_a_connection_that_is_cut(ends: tuple[Transport, socket.socket]) -> None:
    transport, peer = ends
    threading.Timer(0.05, transport.socket.shutdown, (socket.SHUT_RDWR,)).start()
    with pytest.raises(Ended, match="closed the connection"):
        transport.receive()
    peer.close()
    with pytest.raises(Ended, match="closed the connection"):
        transport.send([ANSWER])
