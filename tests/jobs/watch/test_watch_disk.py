"""What is said of the disk while a job runs."""

from __future__ import annotations

import subprocess

import pytest

from fastmrigan.jobs import disk, watch
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.jobs.status import Status, note
from fastmrigan.runtime import load


@pytest.mark.parametrize("format", ["shard", "npz", "png"])
def test_what_shards_take_is_what_du_says(write_model, tmp_path, format):
    out = tmp_path / "out"
    synthesise(load(write_model(), batch=8), JobOptions(out, 40, 7, format, 16))
    measured = disk.Measured()
    assert measured.needed(100) is None
    assert measured.needed(0) == 0
    paths = sorted(out.glob("shard-*"))
    for path, count in zip(paths, (16, 16, 8), strict=True):
        measured.add(out, path.name, count)
    command = ["du", "--block-size=1", "--summarize", "--total", *paths, out / "receipts"]
    total = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken = int(total.splitlines()[-1].split()[0])
    taken -= 512 * (out / "receipts").stat().st_blocks  # the folder itself
    assert measured.needed(40) == taken


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_600, "1 MB"),
        (12_345_678_901, "12.3 GB"),
        (5e15, "5e+03 TB"),
    ],
)
def test_bytes_in_three_figures(bytes_, text):
    assert disk.told(bytes_) == text


def test_a_disk_that_will_not_do_is_told(write_model, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "EVERY", 0.001)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 50_000)
    options = JobOptions(tmp_path / "out", 6400, 7, shard_size=16)
    notes = []
    real = watch.Progress.advance

    def advance(self, amount=1, note=None, seconds_left=None):
        if note is not None:
            notes.append(note)
        real(self, amount, note, seconds_left)

    monkeypatch.setattr(watch.Progress, "advance", advance)
    synthesise(load(write_model(), batch=8), options)
    assert any("50 kB of disk left, NOT ENOUGH for the rest (" in text for text in notes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "engine 93 % busy, 12.3 GB of disk left"),
        ({"limit": None}, "12.3 GB of disk left"),
        ({"disk_left": None, "disk_suffices": None}, "engine 93 % busy"),
        (
            {"disk_suffices": False},
            "engine 93 % busy, 12.3 GB of disk left, NOT ENOUGH for the rest (20 GB)",
        ),
    ],
)
def test_the_note_behind_the_progress(change, text):
    facts = dict.fromkeys(Status.__dataclass_fields__, 0)
    facts |= {"busy": {"engine": 0.9312, "write": 0.5}, "limit": "engine"}
    facts |= {"disk_left": 12_345_678_901, "disk_needed": 20e9, "disk_suffices": True}
    assert note(Status(**(facts | change))) == text
