"""quarantine.jsonl: which inputs a job gave up, and how the one to blame is found."""

from __future__ import annotations

import threading

import pytest

from fastmrigan.errors import UsageError
from fastmrigan.jobs import quarantine
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.search import Search


def test_quarantine_that_is_not_ours_is_named(tmp_path):
    assert quarantine.read(tmp_path) == {}
    quarantine.add(tmp_path, 5, "ab", "one")
    quarantine.add(tmp_path, 3, "cd", "two")
    assert quarantine.read(tmp_path) == {5: "one", 3: "two"}
    for text in ("no json", '{"index": 1}', "[]", '{"index": "x", "reason": ""}'):
        (tmp_path / quarantine.NAME).write_text(text)
        with pytest.raises(UsageError, match=r"quarantine\.jsonl: not a job's list of inputs"):
            quarantine.read(tmp_path)


def test_inputs_that_jobs_name_at_the_same_moment_are_all_named(tmp_path):
    """Threads, since what races are system calls; jobs of other shards are other processes."""
    start = threading.Barrier(16)

    def name(index: int) -> None:
        start.wait()
        quarantine.add(tmp_path, index, "ab", str(index))

    threads = [threading.Thread(target=name, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert quarantine.read(tmp_path) == {index: str(index) for index in range(16)}


def test_an_input_is_named_in_no_folder_that_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError):
        quarantine.add(tmp_path / "gone", 5, "ab", "one")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    ("count", "size", "poisoned", "deaths"),
    [
        (8, 4, [9], 2),  # a call, then an input
        (8, 4, [8, 11, 15], 5),  # two calls, three inputs
        (5, 4, [12], 1),  # alone in its call
        (4, 4, [10], 1),  # of a single call, its inputs at once
        (1, 4, [8], 1),
        (8, 4, [], 0),
    ],
)
def test_a_search_finds_each_input_and_nothing_else(count, size, poisoned, deaths):
    search, found, died = Search(Shard(1, 8, count), size), [], 0
    first = search.next_try({})
    assert set(first.skipped) == set(range(8, 8 + first.piece.count))  # all black
    search.survived()
    tried = []
    while search.pieces:
        order = search.next_try(dict.fromkeys(found, "known"))
        piece = order.piece
        inputs = set(range(piece.first, piece.first + piece.count))
        if inputs & set(poisoned):
            died += 1
            index = search.died()
            assert (index is None) == (piece.count > 1)
            found += [] if index is None else [index]
        else:
            tried += inputs
            search.survived()
    assert (found, died) == (poisoned, deaths)
    assert sorted(tried) == [i for i in range(8, 8 + count) if i not in poisoned]
