"""What may not come of it where a job cannot tell of itself: slices are not affected."""

from __future__ import annotations

import errno
import shutil
import time
from pathlib import Path

import pytest
from job_files import digests, pinned, status_of

from fastmrigan.errors import DiskFull
from fastmrigan.imaging.walker import walk
from fastmrigan.jobs import job, watch
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.sampling import JobOptions, sampling, synthesise
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.watch import ShardDone, Watch
from fastmrigan.runtime import load

TOLD = ("status.json", "log.jsonl", "job.html", "contact_sheet.png")


@pytest.fixture
def blocked(tmp_path) -> Path:
    """A folder in which none of the files can be written."""
    out = tmp_path / "blocked"
    for name in TOLD:
        (out / name / "in the way").mkdir(parents=True)
    return out


def test_what_cannot_be_told_changes_nothing_and_is_said_once(
    write_model, tmp_path, blocked, capsys, monkeypatch
):
    monkeypatch.setattr(watch, "EVERY", 0.01)
    generator = load(write_model(), batch=8)
    told = JobOptions(tmp_path / "told", 3200, 7, shard_size=16)
    synthesise(generator, told)
    assert all((told.out / name).is_file() for name in TOLD)
    assert "warning" not in capsys.readouterr().err
    result = synthesise(generator, JobOptions(blocked, 3200, 7, shard_size=16))
    assert (result.slices, result.made) == (3200, 3200)
    assert digests(blocked, "receipts/*") == digests(told.out, "receipts/*")
    assert len(digests(blocked, "receipts/*")) == 400
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1
    assert "log.jsonl: cannot be written: Is a directory; the slices are not affected" in said[0]


def test_what_cannot_be_told_does_not_hide_the_error(write_model, blocked, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(job, "commit", full)
    with pytest.raises(DiskFull, match="0 of 32 slices are safe"):
        synthesise(load(write_model(), batch=8), JobOptions(blocked, 32, shard_size=16))


def test_a_mistake_in_the_report_does_not_fail_the_job(write_model, tmp_path, monkeypatch, capsys):
    def wrong(*_):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(watch.report, "write", wrong)
    options = JobOptions(tmp_path / "out", 16, shard_size=16)
    assert synthesise(load(write_model(), batch=8), options).made == 16
    assert "job.html: ZeroDivisionError('of ours'); the slices" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["shard", "npz", "png"])
def test_no_reader_takes_the_files_for_slices(write_model, tmp_path, format):
    out = tmp_path / "out"
    synthesise(load(write_model(), batch=8), JobOptions(out, 32, 7, format, 16))
    assert all((out / name).is_file() for name in TOLD)
    assert [index for index, _ in read_slices(out)] == list(range(32))
    found = walk(out)
    assert all(name.startswith("shard-") for name, _ in [*found.files, *found.archives])


def removed(out: Path) -> None:
    shutil.rmtree(out)


def emptied(out: Path) -> None:
    shutil.rmtree(out)
    out.mkdir()


def moved(out: Path) -> None:
    out.rename(out.with_name("elsewhere"))


def replaced(out: Path) -> None:
    emptied(out)
    (out / "run.json").write_text('{"count": 64, "seed": 8}')
    (out / "status.json").write_text("of another job")


@pytest.mark.parametrize("taken", [removed, emptied, moved, replaced])
@pytest.mark.parametrize("part", ["", "0-4"])
def test_nothing_is_told_in_a_folder_that_is_not_ours(
    write_model, tmp_path, monkeypatch, capsys, taken, part
):
    monkeypatch.setattr(watch, "EVERY", 3600)  # the test says when
    generator, out = load(write_model(), batch=8), tmp_path / "out"
    out.mkdir()
    work = sampling(generator.model, JobOptions(out, 64, shard_size=16))
    with Watch(work, Output(pinned(out), shard_size=16), 0, part=part) as watching:
        watching.shard_done(ShardDone(Shard(0, 0, 16), {}, {}, {"engine": 1.0}))
        watching._write_status("running")
        taken(out)
        before = {path.name: path.read_bytes() for path in out.glob("*")}
        watching.shard_done(ShardDone(Shard(1, 16, 16), {}, {}, {"engine": 2.0}))
        watching._write_status("running")
    assert {path.name: path.read_bytes() for path in out.glob("*")} == before
    assert out.exists() == (taken in (emptied, replaced))
    said = capsys.readouterr().err
    assert said.count("was removed, moved or replaced while this job ran") == 1
    assert "warning: " in said
    assert "job.html" not in said


def test_a_folder_that_comes_back_is_told_in_again(write_model, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "EVERY", 0.001)
    generator, out = load(write_model(), batch=8), tmp_path / "out"
    out.mkdir()
    work = sampling(generator.model, JobOptions(out, 16, shard_size=16))
    with Watch(work, Output(pinned(out), shard_size=16), 0) as watching:
        moved(out)
        time.sleep(0.05)
        (tmp_path / "elsewhere").rename(out)
        watching.shard_done(ShardDone(Shard(0, 0, 16), {}, {}, {"engine": 1.0}))
    assert status_of(out)["state"] == "finished"
    assert (out / "job.html").exists()
