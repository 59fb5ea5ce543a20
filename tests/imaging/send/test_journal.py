"""The journal and the crew without a peer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from send_files import (
    QUICK,
)

from fastmrigan.errors import UsageError
from fastmrigan.imaging.send import Peer
from fastmrigan.imaging.send.crew import Crew
from fastmrigan.imaging.send.journal import Journal
from fastmrigan.imaging.send.source import Item

ITEM = Item("a\nb.dcm", Path("x"), 0, 0, "1.2", "1.2.3", "1.2.840.10008.1.2", True)


def test_journal_survives_a_torn_line(tmp_path: Path) -> None:
    with Journal(tmp_path, "A@h:1") as journal:
        assert ITEM not in journal
        journal.add(ITEM, 0xB000)
    with journal.path.open("ab") as file:
        file.write(b'{"to": "A@h:1", "na')
    with Journal(tmp_path, "A@h:1") as journal:
        assert ITEM in journal
        assert dataclasses.replace(ITEM, sop_instance="1.2.4") not in journal  # the name's new file
        with pytest.raises(UsageError, match="another `fastmrigan send` is at work"):
            Journal(tmp_path, "A@h:1").__enter__()
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert lines == [{"to": "A@h:1", "name": "a\nb.dcm", "sop_instance": "1.2.3", "status": "B000"}]
    with Journal(tmp_path, "B@h:1") as journal:  # another peer has nothing yet
        assert ITEM not in journal


def test_journal_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "sent.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(UsageError, match=r"sent\.jsonl: line 1 is no record of `fastmrigan send`"):
        Journal(tmp_path, "A@h:1").__enter__()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="name another folder with --state"):
        Journal(tmp_path / "file", "A@h:1").__enter__()


def test_more_contexts_than_an_association_carries(tmp_path: Path) -> None:
    items = [dataclasses.replace(ITEM, sop_class=f"1.2.{number}") for number in range(129)]
    peer = Peer.parse("X@localhost:104")
    assert len(Crew(items[1:], peer, QUICK, 1).contexts) == 128
    with pytest.raises(UsageError, match="need 129 presentation contexts"):
        Crew(items, peer, QUICK, 1)
