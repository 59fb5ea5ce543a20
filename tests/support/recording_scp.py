"""A storage SCP in this process, by pynetdicom, that remembers what came and answers as it is told.

It sets TCP_NODELAY, takes every storage class the tests send, and hears C-ECHO.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    EnhancedMRImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    Verification,
)

CLASSES = (MRImageStorage, CTImageStorage, SecondaryCaptureImageStorage, EnhancedMRImageStorage)
TITLE = "RECORDER"
POLL_SECONDS = 0.02


@dataclass
class Recorder:
    """What a recording SCP heard; `answer` gives the status of the n-th C-STORE, from 1 on."""

    port: int = 0
    answer: Callable[[int, evt.Event], int] = lambda number, event: 0x0000
    received: list[tuple[str, bytes]] = field(default_factory=list)  # instance, data set as it came
    longest: int = 0  # bytes of the longest PDU, its header of 6 not counted
    associations: int = 0
    released: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return f"{TITLE}@127.0.0.1:{self.port}"

    def reset(self) -> None:
        self.answer = lambda number, event: 0x0000
        self.received.clear()
        self.longest = self.associations = self.released = 0

    @property
    def instances(self) -> list[str]:
        return [instance for instance, _ in self.received]

    def on_store(self, event: evt.Event) -> int:
        with self.lock:
            instance = str(event.request.AffectedSOPInstanceUID)
            self.received.append((instance, event.request.DataSet.getvalue()))
            number = len(self.received)
        return self.answer(number, event)

    def on_data(self, event: evt.Event) -> None:
        self.longest = max(self.longest, len(event.data) - 6)

    def on_open(self, event: evt.Event) -> None:
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def on_established(self, event: evt.Event) -> None:
        self.associations += 1

    def on_released(self, event: evt.Event) -> None:
        self.released += 1


@contextmanager
def recording_scp(
    *,
    classes: Sequence[str] = CLASSES,
    syntaxes: Sequence[str] = AllTransferSyntaxes,
    verification: bool = True,
    max_pdu: int = 16382,
    associations: int = 10,
    only_called: bool = False,
    only_calling: Sequence[str] = (),
    more: Sequence[tuple[evt.EventType, Callable[[evt.Event], object]]] = (),
) -> Iterator[Recorder]:
    """An SCP on a free loopback port until the block ends."""
    recorder = Recorder()
    ae = AE(TITLE)
    ae.maximum_pdu_size = max_pdu
    ae.maximum_associations = associations
    ae.require_called_aet = only_called
    ae.require_calling_aet = list(only_calling)
    for sop_class in classes:
        ae.add_supported_context(sop_class, list(syntaxes))
    if verification:
        ae.add_supported_context(Verification)
    handlers = [
        (evt.EVT_C_STORE, recorder.on_store),
        (evt.EVT_DATA_RECV, recorder.on_data),
        (evt.EVT_CONN_OPEN, recorder.on_open),
        (evt.EVT_ESTABLISHED, recorder.on_established),
        (evt.EVT_RELEASED, recorder.on_released),
        *more,
    ]
    server = ae.make_server(("127.0.0.1", 0), evt_handlers=handlers)
    recorder.port = server.server_address[1]
    # AE.start_server looks only every half second whether it is to end.
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,))
    thread.start()
    try:
        yield recorder
    finally:
        for association in server.active_associations:
            association.abort()
        with contextlib.suppress(ValueError):  # it is on no list of the AE's
            server.shutdown()
        thread.join()
