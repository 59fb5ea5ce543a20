"""Jobs in worker processes: how many there are, on what, and which inputs and folders they take."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import tiny_model as tiny
from worker_jobs import INPUTS, slow, supervise, with_threads

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import process, supervisor
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.spec import Engine, JobSpec, Sampled
from fastmrigan.runtime.engine_file import read_model
from fastmrigan.runtime.machine import usable_cores


@pytest.mark.parametrize("workers", [2, slow(1), slow(64)])
def test_the_cores_are_shared_out(write_model, tmp_path, workers):
    engine = Engine(write_model(), "auto", "fp32", None, 8)
    spec = JobSpec(engine, Sampled(16), Output(tmp_path / "out"))
    supervise(spec, workers)
    pinned = json.loads((tmp_path / "out" / "run.json").read_text())
    assert pinned["threads"] == max(1, usable_cores() // workers)


def test_an_engine_on_the_gpu_takes_no_threads(tmp_path):
    spec = JobSpec(Engine(tmp_path / "tiny.engine"), Sampled(16), Output(tmp_path / "out"))
    assert supervisor.of_each(spec, 2) == spec


def test_no_more_workers_start_than_there_are_shards(sampled):
    spec, told = sampled("out", 20), []
    work = spec.work(read_model(spec.engine.model))
    supervisor.supervise(spec, work, 8, lambda ready, workers: told.append((ready, workers)))
    ((ready, workers),) = told
    assert workers == 2
    assert ready.pinned == json.loads((spec.output.out / "run.json").read_text())


@pytest.mark.parametrize("workers", [0, -1, 257])
def test_a_number_that_cannot_be_meant_is_refused(sampled, workers):
    with pytest.raises(UsageError, match=f"--workers {workers}: expected 1 to 256"):
        supervise(sampled("out"), workers)


def test_another_job_in_the_same_folder_is_refused(sampled):
    spec = sampled("out", 32)
    supervise(spec, 1)
    other = JobSpec(with_threads(spec.engine, 8, threads=2), spec.inputs, spec.output)
    with pytest.raises(UsageError, match=r"run\.json: .* is .* there and .* here"):
        supervise(other, 2)


def test_a_worker_that_differs_is_refused(sampled, fault):
    fault("isa", "baseline")
    spec = sampled("out", 4096)
    told = r"worker \d would make other bytes: its instruction_set is '.+', the first one's '.+'; "
    with pytest.raises(UsageError, match=told):
        supervise(spec, 2)


def test_a_dataset_is_read_through_once(translated, fault):
    spec = translated("out")
    fault("unread")
    assert supervise(spec, 1).made == INPUTS


def test_what_has_changed_since_is_read_through_again(translated, data, tmp_path):
    slices = shutil.copytree(data, tmp_path / "set") / "slices.npy"
    spec = translated("out", tmp_path / "set")
    work = spec.work(read_model(spec.engine.model))
    known = spec.read_through(work)

    def harm() -> None:
        time.sleep(0.05)  # as far apart as a file system tells times apart
        with slices.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            (last,) = file.read()
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))

    spec.check_unchanged(work)
    harm()  # after its bytes were found to be those of its fingerprint, before the job starts
    changed = "its bytes are not those of its fingerprint"
    with pytest.raises(InputRejected, match=changed):
        supervisor.supervise(spec, work, 1)
    with pytest.raises(InputRejected, match=changed):
        known.open()
    with pytest.raises(UsageError, match="set: was changed since the job was planned; run the"):
        spec.check_unchanged(work)
    harm()
    assert len(known.open().plan) == 5  # whole again
    assert supervisor.supervise(spec, work, 1).made == INPUTS


def test_a_set_that_was_prepared_anew_since_is_refused(translated, data, tmp_path):
    """Whole in itself, and another one than the job was planned for."""
    shutil.copytree(data, tmp_path / "set")
    spec = translated("out", tmp_path / "set")
    work = spec.work(read_model(spec.engine.model))
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((data.parent / "png").iterdir())[:20]:
        shutil.copy(path, few)
    shutil.rmtree(tmp_path / "set")
    prepare(few, tmp_path / "set", PrepareOptions(size=tiny.SIZE, contrast="t1", label=""))
    with pytest.raises(UsageError, match=r"out: dataset was '\w+' when .* changed; run the same"):
        supervisor.supervise(spec, work, 1)
    assert not (spec.output.out / "run.json").exists()


def test_devices_are_shared_out(monkeypatch, tmp_path, sampled):
    monkeypatch.setattr(process, "visible_devices", lambda: ["0", "3"])
    for backend, model, expected in [
        ("tensorrt", "m.engine", ["0", "3"]),
        ("auto", "m.engine", ["0", "3"]),
        ("onnxruntime-cuda", "m.onnx", ["0", "3"]),
        ("auto", "m.onnx", []),
        ("openvino", "m.onnx", []),
    ]:
        assert process.devices_for(Engine(Path(model), backend)) == expected
    told = (
        "import os, sys; from multiprocessing.connection import Connection; "
        "Connection(int(sys.argv[1])).send(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    )
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", told))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    for device in ("3", "GPU-8932f937"):
        worker = process.Worker(0, sampled("out"), device)
        assert worker.channel.recv() == device
        assert worker.end(10) == 0


def test_no_device_without_a_driver():
    from fastmrigan.runtime.cuda_driver import first_device, visible_devices

    assert (visible_devices() == []) == (first_device() is None)
