"""What status.json says of a running job, and the stages that its seconds are of."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from job_files import status_of
from job_page import text_of
from PIL import Image

from fastmrigan.errors import DiskFull
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import job, log, translation, watch
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.jobs.stages import Stages, limiting, shares
from fastmrigan.jobs.status import Status
from fastmrigan.runtime import load


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
