"""What a running job tells of itself: status, log, stages and disk, and what may not come of it."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from job_page import text_of
from PIL import Image

from fastmrigan.errors import DiskFull
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.walker import walk
from fastmrigan.jobs import disk, job, log, translation, watch
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.run import make_all, pin
from fastmrigan.jobs.sampling import JobOptions, sampling, synthesise
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.stages import Stages, limiting, shares
from fastmrigan.jobs.status import Status, note
from fastmrigan.jobs.watch import ShardDone, Watch
from fastmrigan.runtime import load

TOLD = ("status.json", "log.jsonl", "job.html", "contact_sheet.png")


def digests(out: Path) -> dict[str, str]:
    """sha256 of every shard and receipt."""
    files = [*out.glob("shard-*"), *out.glob("shard-*/*"), *out.glob("receipts/*")]
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if p.is_file()
    }


def pinned(out: Path) -> Path:
    """A folder of which a job has taken hold."""
    (out / "run.json").write_text('{"count": 64, "seed": 7}')
    return out


def status_of(out: Path) -> dict[str, object]:
    return json.loads((out / "status.json").read_text())


# Stages


@pytest.mark.parametrize(
    ("counts", "spent", "total"),
    [
        ([(0, {"a": 1.0, "b": 2.0})], {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}),
        ([(0, {"a": 1.0}), (0, {"a": 1.5})], {"a": 0.5}, {"a": 1.5}),
        ([(0, {"a": 1.0}), (1, {"a": 1.5})], {"a": 1.5}, {"a": 2.5}),
        # Worker 0 died, and its place was taken by a process that counts from 0 again
        ([(0, {"a": 9.0, "b": 1.0}), (0, {"a": 2.0, "b": 1.5})], {"a": 2.0, "b": 1.5}, None),
        ([(0, {"a": 1.0}), (0, {"a": 1.0, "gate": 0.5})], {"a": 0.0, "gate": 0.5}, None),
    ],
)
def test_counts_of_several_processes_add_up(counts, spent, total):
    stages = Stages()
    for worker, busy in counts:
        last = stages.add(worker, busy)
    assert last == spent
    if total is not None:
        assert stages.seconds == total


def test_the_stage_of_the_largest_share_limits():
    found = shares({"write": 6.0, "gate": 1.0, "engine": 15.0, "read": 0.0}, 10.0, 2)
    assert list(found.items()) == [("engine", 0.75), ("write", 0.3), ("gate", 0.05)]
    assert limiting(found) == "engine"
    assert limiting(shares({}, 10.0, 2)) is None


def make_data(folder: Path) -> PreparedDataset:
    """24 slices of noise."""
    dice = np.random.default_rng(0)
    (folder / "png").mkdir(parents=True)
    for number in range(24):
        x = dice.integers(0, 256, (tiny.SIZE, tiny.SIZE), dtype=np.uint8)
        Image.fromarray(x).save(folder / "png" / f"{number:02}.png")
    prepare(folder / "png", folder / "set", PrepareOptions(size=tiny.SIZE, test_fraction=0))
    return PreparedDataset.open(folder / "set")


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_reading_inputs_is_no_waiting_for_the_engine(write_model, tmp_path, monkeypatch, mode):
    document = tiny.metadata(task="translate", latent_size=None)
    model = write_model(document, tiny.tiny_graph("translate"), "negative.onnx")
    dataset = make_data(tmp_path)
    real = translation.to_float

    def slow(x):
        time.sleep(0.5)  # longer than a busy machine takes to write a shard
        return real(x)

    monkeypatch.setattr(translation, "to_float", slow)
    out = tmp_path / "out"
    translation.translate(
        load(model, batch=4, mode=mode), dataset, Output(out, shard_size=8)
    )  # 6 batches of 4
    busy: dict[str, float] = {}
    for line in log.read(out / "log.jsonl")[0]:
        for stage, seconds in line.get("busy", {}).items():
            busy[stage] = busy.get(stage, 0.0) + seconds
    assert busy["read"] >= 6 * 0.5
    assert busy["engine"] < 6 * 0.5
    assert status_of(out)["limit"] == "read"


# status.json


def test_status_is_a_whole_document_at_any_moment(write_model, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "EVERY", 0.001)
    generator = load(write_model(), batch=8)
    options = JobOptions(tmp_path / "out", 6400, 7, shard_size=16)
    options.out.mkdir()
    (options.out / ".status.json.1.tmp").write_text("half")  # of a run that was killed
    runner = threading.Thread(target=synthesise, args=(generator, options))
    runner.start()
    path, seen = options.out / "status.json", []
    while runner.is_alive():
        if path.exists():
            seen.append(json.loads(path.read_text()))
    runner.join()
    fields = set(Status.__dataclass_fields__)
    assert all(set(each) == fields for each in seen)
    done = [each["done"] for each in seen]
    assert done == sorted(done)
    assert len({each["updated"] for each in seen}) > 10
    assert {each["state"] for each in seen} >= {"running"}
    middle = next(each for each in seen if 0 < each["done"] < 6400 and each["disk_needed"])
    assert middle["disk_suffices"]
    assert middle["seconds_left"] > 0
    last = status_of(options.out)
    assert (last["state"], last["done"], last["made"], last["total"]) == (
        *("finished", 6400, 6400, 6400),
    )
    assert (last["left_out"], last["flagged"], last["error"]) == (0, 0, None)
    assert (last["seconds_left"], last["disk_needed"], last["disk_suffices"]) == (0, 0, True)
    assert last["limit"] in last["busy"]
    assert not list(options.out.glob(".status*"))


def test_a_stopped_job_says_so(write_model, tmp_path):
    out = tmp_path / "out"
    command = ["synth", write_model(), "--out", out, "--count", 600_000, "--shard-size", 16]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastmrigan", *map(str, command)], stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 300
    while len(list(out.glob("shard-*.tar"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert status_of(out)["state"] == "running"
    assert status_of(out)["pid"] == process.pid
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    last = status_of(out)
    assert last["state"] == "stopped"
    assert last["done"] == last["made"] == 16 * len(list(out.glob("shard-*.tar")))
    assert "the same command goes on from there" in last["error"]
    stopped, end = log.read(out / "log.jsonl")[0][-2:]
    assert (stopped["event"], end["state"]) == ("stopped", "stopped")
    told = text_of((out / "job.html").read_text())
    assert f"The last run was stopped: {last['error']}." in told
    assert f": stopped: {last['error']}" in told  # in the list of events
    assert "error" not in told
    assert not (out / "contact_sheet.png").exists()
    assert "what limits is" in stderr.decode()


def test_the_last_words_of_a_failed_job(write_model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    generator = load(write_model(), batch=8)
    monkeypatch.setattr(job, "commit", full)
    with pytest.raises(DiskFull):
        synthesise(generator, JobOptions(tmp_path / "out", 32, shard_size=16))
    assert status_of(tmp_path / "out")["state"] == "failed"
    error, end = log.read(tmp_path / "out" / "log.jsonl")[0][-2:]
    assert error["event"] == "error"
    assert "no space left; 0 of 32 slices are safe" in error["message"]
    assert (end["event"], end["state"], end["done"]) == ("end", "failed", 0)
    assert "The last run failed: " in (tmp_path / "out" / "job.html").read_text()


# The log


def test_every_shard_is_a_line_of_the_log(write_model, tmp_path):
    generator = load(write_model(), batch=8)
    synthesise(generator, JobOptions(tmp_path / "out", 100, 7, shard_size=16))
    lines, unreadable = log.read(tmp_path / "out" / "log.jsonl")
    assert unreadable == 0
    assert [line["event"] for line in lines] == ["start", *["shard"] * 7, "end"]
    assert [line["number"] for line in lines[1:-1]] == list(range(7))
    assert [line["count"] for line in lines[1:-1]] == [16] * 6 + [4]
    assert [len(line["waits"]) for line in lines[1:-1]] == [2] * 6 + [1]
    assert all(0 < sum(line["waits"]) <= line["seconds"] for line in lines[1:-1])
    assert lines[0]["model_sha256"] == generator.model.sha256
    elapsed = [line["elapsed"] for line in lines]
    assert elapsed == sorted(elapsed)


@pytest.mark.parametrize(
    ("left", "events", "unreadable"),
    [
        (b"", ["end"], 0),
        (b'{"event": "start"}\n', ["start", "end"], 0),
        (b'{"event": "start"}\n{"event": "shard", "at', ["start", "end"], 1),
        (b'{"event": "start"}\n{"event": "shard"}', ["start", "shard", "end"], 0),  # no newline
        (b'{"event": "start"}\n\0\0\0\0\n', ["start", "end"], 1),  # power lost
        (b'[1]\n{"no": "event"}\n{"event": 7}\nnull\n', ["end"], 4),
    ],
)
def test_a_torn_line_costs_no_other(tmp_path, left, events, unreadable):
    path = tmp_path / "log.jsonl"
    path.write_bytes(left)
    file = log.JobLog(path)
    file.write("end", 1.5, state="finished")
    file.close()
    found, torn = log.read(path)
    assert [line["event"] for line in found] == events
    assert torn == unreadable
    assert found[-1]["state"] == "finished"


def test_a_line_that_a_full_disk_cut_short_costs_no_other(tmp_path):
    file = log.JobLog(tmp_path / "log.jsonl")
    real = file._file

    class Full:
        def write(self, data):
            return real.write(data[:20])

    file.write("start", 0)
    file._file = Full()
    file.write("shard", 1, number=0)
    file._file = real
    file.write("end", 2)
    file.close()
    found, torn = log.read(tmp_path / "log.jsonl")
    assert [line["event"] for line in found] == ["start", "end"]
    assert torn == 1


def test_a_shard_is_told_as_soon_as_it_is_on_the_disk(write_model, tmp_path):
    """Not when the engine has made another: of a slow one, that may be minutes away."""
    generator, out = load(write_model(), batch=8), tmp_path / "out"
    out.mkdir()
    options = JobOptions(out, 64, 7, shard_size=16)
    made = job.Job(sampling(generator.model, options), options.output, generator)
    pin(out, "sample", made.pinned)
    real, told, said = made.make, threading.Event(), []

    def slow(*arguments):
        for content in real(*arguments):
            yield content
            assert told.wait(300), f"shard {content.shard.number} is made, and was not told"
            told.clear()

    def tell(done: ShardDone) -> None:
        assert (out / f"shard-{done.shard.number:06}.tar").exists()
        said.append(done.shard.number)
        told.set()

    made.make = slow
    make_all(made, made.plan, tell, lambda: False)
    assert said == [0, 1, 2, 3]


# What cannot be told


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
    assert digests(blocked) == digests(told.out)
    assert len(digests(blocked)) == 400
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


# The disk


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


# Several processes


def test_several_workers_are_one_job(write_model, tmp_path):
    generator = load(write_model(), batch=8)
    work = sampling(generator.model, JobOptions(tmp_path, 64, shard_size=16))
    with Watch(work, Output(pinned(tmp_path), shard_size=16), 0, workers=2) as watching:
        for number, worker, engine in ((0, 0, 1.0), (1, 1, 2.0), (2, 0, 3.0), (3, 1, 2.5)):
            shard = Shard(number, 16 * number, 16)
            busy = {"engine": engine, "write": 0.1}
            watching.shard_done(ShardDone(shard, {}, {}, busy, 0.5, (0.1, 0.2), worker))
    lines = log.read(tmp_path / "log.jsonl")[0][1:-1]
    assert [line["busy"]["engine"] for line in lines] == [1.0, 2.0, 2.0, 0.5]
    assert [line["worker"] for line in lines] == [0, 1, 0, 1]
    assert (status_of(tmp_path)["workers"], status_of(tmp_path)["done"]) == (2, 64)


def test_parts_of_a_job_have_files_of_their_own(write_model, tmp_path):
    generator = load(write_model(), batch=8)
    work = sampling(generator.model, JobOptions(tmp_path, 64, shard_size=16))
    for part, numbers in (("0-2", (0, 1)), ("2-4", (2, 3))):
        output = Output(pinned(tmp_path), shard_size=16)
        with Watch(work, output, 0, total=32, part=part) as watching:
            for number in numbers:
                shard = Shard(number, 16 * number, 16)
                (tmp_path / f"shard-{number:06}.tar").touch()
                watching.shard_done(ShardDone(shard, {}, {}, {"engine": 1.0}))
                watching.event("quarantine", index=16 * number, why="ended two processes")
        found = json.loads((tmp_path / f"status-{part}.json").read_text())
        assert (found["done"], found["total"], found["state"]) == (32, 32, "finished")
    assert not (tmp_path / "status.json").exists()
    page = (tmp_path / "job.html").read_text()
    assert "64 slices sampled" in page
    assert "Inputs that the job gave up: 4" in page
    assert "quarantine, index 48, why ended two processes" in page
