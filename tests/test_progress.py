"""Progress: what stands behind the counts."""

from __future__ import annotations

import pytest

from fastmrigan import progress
from fastmrigan.progress import Progress


@pytest.mark.parametrize(
    ("start", "made", "given", "tail"),
    [
        (0, 0, None, "0.0 slices/s, time left unknown"),  # not 0:00
        (50, 0, None, "0.0 slices/s, time left unknown"),
        (0, 20, None, "2.0 slices/s, 0:40 left"),
        (50, 20, None, "2.0 slices/s, 0:15 left"),
        (0, 100, None, "10.0 slices/s, 0:00 left"),
        (100, 0, None, "0.0 slices/s, 0:00 left"),  # there is nothing to do
        (0, 0, 90.0, "0.0 slices/s, 1:30 left"),
    ],
)
def test_the_time_left(monkeypatch, capsys, start, made, given, tail):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Progress("synth", 100, "slices", start=start, every_seconds=10) as shown:
        now += 10
        shown.advance(made, "a note", given)
    line = capsys.readouterr().err.splitlines()[1]
    assert line == f"synth: {start + made}/100 slices ({start + made} %), {tail}, a note"


@pytest.mark.parametrize(
    ("count", "words", "told"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (2000, ("file",), "2,000 files"),
        (1, ("pair of slices", "pairs of slices"), "1 pair of slices"),
        (2, ("pair of slices", "pairs of slices"), "2 pairs of slices"),
    ],
)
def test_one_is_not_told_as_several(count, words, told):
    assert progress.counted(count, *words) == told


@pytest.mark.parametrize(
    ("total", "start", "lines"),
    [
        (2, 0, ["starting at 0 of 2 files", "1/2 files (50 %), 0.1 files/s, 0:10 left", "1 file"]),
        (1, 0, ["starting at 0 of 1 file", "1/1 file (100 %), 0.1 files/s, 0:00 left", "1 file"]),
        (None, 5, ["starting at 5 files", "6 files, 0.1 files/s, time left unknown", "1 file"]),
    ],
)
def test_the_lines_of_a_log(monkeypatch, capsys, total, start, lines):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Progress("prepare", total, "files", start=start, every_seconds=10) as shown:
        now += 10
        shown.advance()
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(lines)
    lines[-1] += " in 0:10 (0.1 files/s)"
    assert told == [f"prepare: {line}" for line in lines]


def test_nothing_is_told_of_nothing_to_do(capsys):
    with Progress("prepare", 0, "files") as shown:
        shown.say("a line of its own")
    assert capsys.readouterr().err == "a line of its own\n"
