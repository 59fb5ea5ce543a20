"""Associations with a peer that carry C-ECHO and C-STORE.

pynetdicom negotiates an association; then its threads end, and messages go over its socket by
transport.py: a sender has no requests of the peer to answer meanwhile but to release or to abort.
Data sets go out encoded as they lie in their files (`send_c_store` takes paths or decodes; a member
of a tar archive has no path).
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.send.message import (
    C_ECHO_RSP,
    C_STORE_RSP,
    Response,
    command_set,
    request,
)
from fastmrigan.imaging.send.peer import SMALLEST_PDU, Answer, Limits, Peer, PeerError
from fastmrigan.imaging.send.source import Item
from fastmrigan.imaging.send.transport import (
    P_DATA_TF,
    RELEASE_RQ,
    Ended,
    Transport,
    abort_reason,
)

if TYPE_CHECKING:
    from pynetdicom.events import Event

VERIFICATION = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")  # C-ECHO, in implicit VR little endian
RECEIVED_PDU = 16384  # what we take at once: the peer sends us answers of 100 bytes
CONTEXTS = 128  # that one association carries (PS3.8 section 9.3.2.2: odd numbers up to 255)

TRANSIENT = 2  # a rejection that may not last (PS3.8 table 9-21)

# Why a presentation context was not accepted: PS3.8 table 9-18.
REFUSALS = {
    1: "its user does not want it",
    2: "it gives no reason",
    3: "it does not store this SOP class",
    4: "it does not take this transfer syntax",
}


class EchoRefused(PeerError):
    """A peer that accepts associations, but no C-ECHO on them."""


class Busy(PeerError):
    """A peer that refuses an association for now: it has as many as it takes."""


class Lost(Exception):
    """An association that ended while an answer was due; the message says why."""


class Connection:
    """One association, for one thread; `cut` alone may be called from another.

    contexts: (SOP class, transfer syntax) of what is to be sent, 1 to CONTEXTS; nothing else is
    offered. `accepted` and `refused` tell, once open, what became of each. Raises PeerError where
    the host's name leads nowhere, MissingDependency.
    """

    def __init__(self, peer: Peer, contexts: Sequence[tuple[str, str]], limits: Limits) -> None:
        try:
            from pynetdicom import AE, build_context, evt
            from pynetdicom.association import Association
            from pynetdicom.transport import AddressInformation, AssociationSocket
        except ImportError:
            raise MissingDependency("pynetdicom", "dicom", "sending DICOM") from None

        self.peer, self.limits = peer, limits
        self.accepted: dict[tuple[str, str], int] = {}  # to the number of the context
        self.refused: dict[tuple[str, str], str] = {}  # to the reason
        self.reached = False  # the transport connection has been open
        self.said = ""  # by the peer when it aborted
        self.rejection: Any = None  # the answer that rejected the association, an A-ASSOCIATE
        self.number = 0  # of the last message
        self.transport: Transport | None = None  # while the association stands
        try:
            remote = AddressInformation(peer.host, peer.port)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", error)
            raise PeerError(f"--to {peer}: no such host ({why})") from error
        local = AddressInformation("" if remote.is_ipv4 else "::", 0)

        ae = AE(peer.calling)
        ae.connection_timeout = ae.acse_timeout = limits.timeout
        ae.network_timeout = None
        self.association = association = Association(ae, "requestor")
        for event in association.get_events():  # what writes every message out for a log
            if event.is_notification:
                for handler in list(association.get_handlers(event)):
                    association.unbind(event, handler[0])  # type: ignore[index]
        association.bind(evt.EVT_CONN_OPEN, self._opened)
        association.bind(evt.EVT_PDU_RECV, self._received)
        transport = AssociationSocket(association, address=local)
        assert transport.socket is not None
        self.socket: socket.socket = transport.socket
        # Else Nagle's algorithm keeps the end of each message back until the peer acknowledges.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        association.set_socket(transport)
        association.acceptor.ae_title = peer.title
        association.acceptor.address_info = remote
        association.requestor.address_info = local
        association.requestor.ae_title = ae.ae_title
        association.requestor.maximum_length = RECEIVED_PDU
        association.requestor.implementation_class_uid = ae.implementation_class_uid
        association.requestor.implementation_version_name = ae.implementation_version_name
        self.offered = {2 * i + 1: pair for i, pair in enumerate(contexts)}
        requested = []
        for number, pair in self.offered.items():
            context = build_context(*pair)
            context.context_id = number
            requested.append(context)
        association.requestor.requested_contexts = requested

    def _opened(self, event: Event) -> None:
        self.reached = True
        # A net below our own waits: pynetdicom cannot end a thread that reads or writes for ever.
        self.socket.settimeout(2 * self.limits.timeout + 1)

    def _received(self, event: Event) -> None:
        from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ

        if isinstance(event.pdu, A_ABORT_RQ):
            self.said = abort_reason(event.pdu.encode())
        elif isinstance(event.pdu, A_ASSOCIATE_RJ):
            # pynetdicom 3.0 takes a rejection that comes at once for a connection that failed.
            self.rejection = event.pdu.to_primitive()

    def open(self) -> None:
        """Connects and negotiates. Raises PeerError with the reason where there is none."""
        from pydicom.uid import UID

        association = self.association
        began = time.monotonic()
        association.request()
        waited = time.monotonic() - began
        for context in association.accepted_contexts:
            pair = self.offered[context.context_id or 0]
            if context.transfer_syntax[0] == pair[1]:
                self.accepted[pair] = context.context_id or 0
            else:  # it would read the data set as what it is not
                why = f"it answers with {context.transfer_syntax[0]}, which was not offered"
                self.refused[pair] = f"the peer accepts no {pair[0]} in {pair[1]}: {why}"
        for context in association.rejected_contexts:
            pair = self.offered[context.context_id or 0]
            why = REFUSALS.get(context.result or 0, f"result {context.result}")
            what = f"{UID(pair[0]).name} in {UID(pair[1]).name}"
            self.refused[pair] = f"the peer accepts no {what}: {why}"
        if association.is_established:
            largest = association.acceptor.maximum_length or 0
            self.pdu = min(filter(None, (largest, self.limits.max_pdu)), default=0)
            if 0 < self.pdu < SMALLEST_PDU:
                self.close()
                raise PeerError(f"{self.peer}: takes PDUs of {largest} bytes only")
            self._take_over()
        elif not self.refused:  # else all was answered, and nothing accepted
            busy = self.rejection is not None and self.rejection.result == TRANSIENT
            reason = f"{self.peer}: {self._why_not(waited)}"
            self.close()
            raise Busy(reason) if busy else PeerError(reason)

    def _why_not(self, waited: float) -> str:
        seconds = f"{self.limits.timeout:g} s"
        if self.rejection is not None:
            remedies = {
                "Called AE title not recognised": "; give the peer's own AE title in --to",
                "Calling AE title not recognised": f"; it must know {self.peer.calling}, or name "
                "one it knows with --from",
            }
            reason = str(self.rejection.reason_str)
            return f"refuses the association: {reason}{remedies.get(reason, '')}"
        if not self.reached:
            if waited >= self.limits.timeout:
                return f"cannot be reached within {seconds}; check host, port and firewall"
            return f"cannot be reached ({self._systems_words()}); check host and port"
        if self.said:
            return f"aborts the association ({self.said})"
        if waited >= self.limits.timeout:
            return (
                f"takes the connection, but did not answer within {seconds}; check that it is a "
                "DICOM peer and free, or give it longer with --timeout"
            )
        return "closes the connection before there is an association; check that it is DICOM"

    def _systems_words(self) -> str:
        """Why there is no connection: pynetdicom keeps that to its log, so try once more."""
        try:
            socket.create_connection((self.peer.host, self.peer.port), self.limits.timeout).close()
        except OSError as error:
            return error.strerror or str(error)
        return "it answers again by now"

    def _take_over(self) -> None:
        """Ends pynetdicom's thread: from here on this one reads and writes the socket."""
        dul = self.association.dul
        dul.kill_dul()
        dul.join(self.limits.timeout)
        if dul.is_alive():
            raise PeerError(f"{self.peer}: sends the beginning of something nobody asked for")
        if dul.to_user_queue.empty() and dul.event_queue.empty():  # else it ended at once
            self.transport = Transport(self.socket, self.limits.timeout, RECEIVED_PDU)

    @property
    def alive(self) -> bool:
        """True while the association stands; a release that the peer asks for is granted here."""
        if self.transport is not None and self.transport.waiting:
            transport, self.transport = self.transport, None
            with contextlib.suppress(Ended):
                if transport.receive()[0] == RELEASE_RQ:
                    transport.grant_release()
        return self.transport is not None

    def echo(self) -> float:
        """C-ECHO: seconds until the answer. Raises EchoRefused, PeerError."""
        from pynetdicom import pdu
        from pynetdicom.dimse_messages import C_ECHO_RQ
        from pynetdicom.dimse_primitives import C_ECHO

        if VERIFICATION not in self.accepted:
            raise EchoRefused(f"{self.peer}: {self.refused[VERIFICATION]}")
        primitive, message = C_ECHO(), C_ECHO_RQ()
        primitive.MessageID = self._next_number()
        primitive.AffectedSOPClassUID = VERIFICATION[0]
        message.primitive_to_message(primitive)
        number = self.accepted[VERIFICATION]
        parts = [pdu.P_DATA_TF(part).encode() for part in message.encode_msg(number, 0)]
        began = time.monotonic()
        try:
            status = self._exchange(parts, number, C_ECHO_RSP).status
        except Lost as error:
            raise PeerError(f"{self.peer}: no answer to C-ECHO: {error}") from error
        if status != 0:
            raise PeerError(f"{self.peer}: answers C-ECHO with status 0x{status:04X}")
        return time.monotonic() - began

    def store(self, item: Item, content: bytes) -> Answer:
        """C-STORE of one data set. Raises Lost, with the association ended."""
        context = self.accepted[item.context]
        command = command_set(item.sop_class, item.sop_instance, self._next_number())
        return self._exchange(request(context, command, content, self.pdu), context, C_STORE_RSP)

    def _next_number(self) -> int:
        self.number = self.number % 65535 + 1
        return self.number

    def _exchange(
        self, parts: Iterable[bytes | memoryview], context: int, command_field: int
    ) -> Answer:
        """Sends one message and waits for its answer. Raises Lost, with the association ended.

        context: that it goes in. command_field: of the answer.
        """
        if self.transport is None:
            raise Lost("the peer ended the association")
        try:
            self.transport.send(parts)
            response = self._answer(self.transport, context, command_field)
        except Ended as error:
            self.transport = None
            self.cut()
            raise Lost(str(error)) from None
        return response

    def _answer(self, transport: Transport, context: int, command_field: int) -> Answer:
        response, whole = Response(), False
        until = transport.deadline()  # of the whole answer, in however many pieces it comes
        while not whole:
            kind, received = transport.receive(until)
            if kind == RELEASE_RQ:  # sent while it could not know of our message
                transport.grant_release()
                raise Ended("the peer released the association before it answered")
            if kind != P_DATA_TF:
                raise Ended("the peer answered what it was not asked")
            try:
                whole = response.add(received)
            except ValueError as error:
                raise Ended(f"the peer's answer is no DICOM message ({error})") from None
        told = response.context, response.command_field, response.number
        if told != (context, command_field, self.number):
            raise Ended("the peer answered what it was not asked")
        if response.status is None:
            raise Ended("the peer's answer states no status")
        return Answer(response.status, response.comment)

    def close(self) -> None:
        """Releases the association where it stands, and ends pynetdicom's thread in any case."""
        if self.alive and self.transport is not None:
            with contextlib.suppress(Ended):
                self.transport.release()
        self.transport = None
        self.cut()
        self.association.kill()
        self.socket.close()

    def cut(self) -> None:
        """Closes the bare connection, from any thread: whoever waits on it is told at once."""
        with contextlib.suppress(OSError):  # not connected yet, or not any more
            self.socket.shutdown(socket.SHUT_RDWR)


def echo(peer: Peer, limits: Limits) -> float:
    """C-ECHO on an association of its own: seconds until the answer.

    Raises PeerError with the reason, EchoRefused where associations are welcome but C-ECHO is not.
    """
    connection = Connection(peer, [VERIFICATION], limits)
    try:
        connection.open()
        return connection.echo()
    finally:
        connection.close()
