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
