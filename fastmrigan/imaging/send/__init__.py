"""DICOM files to a peer over C-STORE: each once, resumable at any moment.

Files are found and their heads read (`source`), a C-ECHO tells whether the peer is there (`peer`),
then several associations, a thread each, take the files in turn (`crew`). What the peer has stored
is written down (`journal`) and never sent to it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.imaging.send.association import EchoRefused, echo
from fastmrigan.imaging.send.crew import Crew, Outcome
from fastmrigan.imaging.send.journal import REJECTS, Journal, write_rejects
from fastmrigan.imaging.send.peer import Answer, Limits, Peer, PeerError
from fastmrigan.imaging.send.source import Found, Item, files, look
from fastmrigan.imaging.walker import Refused
from fastmrigan.progress import Progress

__all__ = ["Limits", "Peer", "PeerError", "SendOptions", "SendResult", "echo", "send"]

UNMARKED = (
    "does not say that it is synthetic (SyntheticData) or de-identified (PatientIdentityRemoved); "
    "de-identify it first, or send it all the same with --allow-identified"
)


@dataclass(frozen=True)
class SendOptions:
    """How to send."""

    limits: Limits = field(default_factory=Limits)
    associations: int = 4  # at once, where the peer takes as many
    state: Path | None = None  # folder of sent.jsonl and rejects.jsonl; None: SOURCE.send beside it
    allow_identified: bool = False  # send files that are marked neither synthetic nor de-identified

    def check(self) -> None:
        """Raises UsageError."""
        self.limits.check()
        if not 1 <= self.associations <= 64:
            raise UsageError(f"--associations {self.associations}: give 1 to 64")


@dataclass
class SendResult:
    """What became of the files."""

    state: Path
    sent: int = 0  # stored by the peer now
    earlier: int = 0  # stored in runs before
    bytes: int = 0  # of the data sets sent now
    seconds: float = 0.0  # of sending alone
    associations: int = 0  # that carried files
    unmarked: int = 0  # sent now though marked neither synthetic nor de-identified
    echo_seconds: float | None = None  # None: the peer takes no C-ECHO
    warnings: Counter[str] = field(default_factory=Counter)  # stored with a warning, by its text
    refused: list[Refused] = field(default_factory=list)  # by us or by the peer
    ignored: Counter[str] = field(default_factory=Counter)  # by kind: not DICOM

    @property
    def rejects(self) -> Path:
        return self.state / REJECTS

    def count(self, item: Item, answer: Answer) -> None:
        """Counts one file that the peer has stored."""
        self.sent += 1
        self.bytes += item.size
        self.unmarked += not item.marked
        if answer.status:
            self.warnings[str(answer)] += 1


def send(source: Path, peer: Peer, options: SendOptions) -> SendResult:
    """Sends every DICOM file of `source` that `peer` has not stored in an earlier run.

    source: a folder, one DICOM file, or one shard-*.tar. Raises UsageError (nothing to send, bad
    options), PeerError (unreachable, association refused, gone away: what was stored is kept),
    Interrupted (Ctrl-C or SIGTERM, after the files in hand) and MissingDependency.
    """
    options.check()
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    state = options.state or beside(source)
    try:
        echo_seconds = echo(peer, options.limits)
    except EchoRefused:
        echo_seconds = None
    found = survey(source)
    result = SendResult(state, echo_seconds=echo_seconds)
    result.refused, result.ignored = found.refused, found.ignored
    with Journal(state, str(peer)) as journal:
        left = [item for item in found.items if item not in journal]
        result.earlier = len(found.items) - len(left)
        if not options.allow_identified:
            result.refused += [Refused(item.name, UNMARKED) for item in left if not item.marked]
            left = [item for item in left if item.marked]
        try:
            if left:
                _send(left, peer, options, journal, result)
        finally:
            write_rejects(result.rejects, result.refused)
    return result


def beside(source: Path) -> Path:
    """Where the record of what was sent is kept unless told otherwise. Raises UsageError."""
    whole = source.resolve()
    if not whole.name:  # the root of a file system
        raise UsageError(
            f"{source}: nothing can stand beside it to keep a record of what was sent; name a "
            "folder for that with --state"
        )
    return whole.with_name(whole.name + ".send")


def _send(
    items: Sequence[Item], peer: Peer, options: SendOptions, journal: Journal, result: SendResult
) -> None:
    crew = Crew(items, peer, options.limits, options.associations)
    total = result.earlier + len(items)
    with Progress("send", total, "files", start=result.earlier) as progress:

        def note(news: Outcome) -> None:
            if news.answer is not None and news.answer.stored:
                journal.add(news.item, news.answer.status)
                result.count(news.item, news.answer)
            else:
                result.refused.append(Refused(news.item.name, news.reason))
            progress.advance()

        crew.run(note)
        result.seconds, result.associations = progress.seconds, crew.carried


def survey(source: Path) -> Found:
    """What `source` holds. Raises UsageError where there is no DICOM file at all."""
    found = Found()
    paths = files(source, found)
    with Progress("read headers", len(paths), "files") as progress:
        for name, path in paths:
            look(name, path, found)
            progress.advance()
    if not found.items and not found.refused:
        where = "in this folder" if source.is_dir() else "here"
        raise UsageError(f"{source}: no DICOM files {where}, nor shards of them (shard-*.tar)")
    return found
