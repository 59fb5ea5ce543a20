"""What a peer has stored so far: a line an instance, so that a second run sends only the rest."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from fastmrigan.errors import UsageError
from fastmrigan.files import write_whole
from fastmrigan.imaging.send.source import Item
from fastmrigan.imaging.walker import Refused

JOURNAL = "sent.jsonl"  # {"to", "name", "sop_instance", "status"} a line
REJECTS = "rejects.jsonl"


def write_rejects(path: Path, refused: Sequence[Refused]) -> None:
    """{"name", "reason"} a line for each file that was not sent; no file where all were."""
    if refused:
        lines = [json.dumps({"name": r.name, "reason": r.reason}) + "\n" for r in refused]
        write_whole(path, "".join(lines).encode())
    else:
        path.unlink(missing_ok=True)  # of an earlier run


class Journal:
    """The journal in `folder` for one peer, held by one process at a time; a context manager.

    An instance counts as sent where the same name and SOP Instance UID went to the same peer. A
    line cut short by a crash is dropped: its instance is sent again, which a peer takes as the same
    one.
    """

    def __init__(self, folder: Path, to: str) -> None:
        self.folder, self.path, self.to = folder, folder / JOURNAL, to
        self.sent: set[tuple[str, str]] = set()

    def __enter__(self) -> Journal:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self.path.open("a+b")
        except OSError as error:
            raise UsageError(
                f"{self.folder}: cannot keep a record of what was sent there ({error.strerror}); "
                "name another folder with --state"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UsageError(
                f"{self.folder}: another `fastmrigan send` is at work with it; wait for it to end"
            ) from error
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            self._file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                if entry["to"] == self.to:
                    self.sent.add((entry["name"], entry["sop_instance"]))
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{self.path}: line {number} is no record of `fastmrigan send`; remove the "
                    "file to send everything again"
                ) from error

    def __contains__(self, item: Item) -> bool:
        return (item.name, item.sop_instance) in self.sent

    def add(self, item: Item, status: int) -> None:
        """Notes an instance that the peer has stored, with the status it gave."""
        entry = {
            "to": self.to,
            "name": item.name,
            "sop_instance": item.sop_instance,
            "status": f"{status:04X}",
        }
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        self.sent.add((item.name, item.sop_instance))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        with self._file:
            os.fsync(self._file.fileno())
