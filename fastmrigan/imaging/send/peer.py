"""A DICOM peer as the user names it, how long to wait for it, and what it answers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastmrigan.errors import UsageError
from fastmrigan.imaging.walker import printable

CALLING = "FASTMRIGAN"
SMALLEST_PDU = 1024  # below, a file is cut into thousands of pieces

# PS3.5 section 6.2: AE titles are printable ASCII without backslash; outer spaces say nothing.
TITLE = re.compile(r"[ -\[\]-~]{1,16}")
ADDRESS = re.compile(r"(?P<title>.*)@(?P<host>\[[^\]]+\]|[^@:\[\]]+):(?P<port>[0-9]{1,5})")


class PeerError(UsageError):
    """A peer that cannot be reached, does not want us, or went away."""


@dataclass(frozen=True)
class Peer:
    """Where to, and under which name of our own."""

    title: str  # AE title of the peer
    host: str
    port: int
    calling: str = CALLING  # AE title we go by

    @classmethod
    def parse(cls, text: str, calling: str = CALLING) -> Peer:
        """From AET@HOST:PORT; an IPv6 address stands in brackets. Raises UsageError."""
        match = ADDRESS.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise UsageError(
                f"--to {printable(text)}: expected AET@HOST:PORT, as in ORTHANC@localhost:4242"
            )
        for option, title in (("--to", match["title"]), ("--from", calling)):
            if not TITLE.fullmatch(title) or not title.strip():
                raise UsageError(
                    f"{option} {printable(title)!r}: an AE title has 1 to 16 characters of "
                    "printable ASCII, no backslash"
                )
        host = match["host"].strip("[]")
        return cls(match["title"].strip(), host, int(match["port"]), calling.strip())

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.title}@{host}:{self.port}"


@dataclass(frozen=True)
class Limits:
    """How long to wait, and how much to send at once."""

    timeout: float = 30.0  # seconds: a connection, an association, an answer while no data moves
    max_pdu: int = 1 << 18  # bytes of the longest PDU we send; 0: as long as the peer takes

    def check(self) -> None:
        """Raises UsageError."""
        if not 0 < self.timeout < 1e6:
            raise UsageError(f"--timeout {self.timeout:g}: give seconds above 0")
        if self.max_pdu != 0 and self.max_pdu < SMALLEST_PDU:
            raise UsageError(f"--max-pdu {self.max_pdu}: give {SMALLEST_PDU} bytes or more, or 0")


@dataclass(frozen=True)
class Answer:
    """What a peer said to one request."""

    status: int  # PS3.4 section B.2.3
    comment: str = ""  # the peer's own words

    @property
    def stored(self) -> bool:
        """True where the peer keeps the instance, with or without a warning."""
        from pynetdicom.status import code_to_category

        return code_to_category(self.status) in ("Success", "Warning")

    def __str__(self) -> str:
        from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

        _, meaning = STORAGE_SERVICE_CLASS_STATUS.get(self.status, ("", ""))
        words = [f"status 0x{self.status:04X}", meaning, printable(self.comment)]
        return ", ".join(word for word in words if word)
