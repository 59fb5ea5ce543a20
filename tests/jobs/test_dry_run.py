"""--dry-run: the plan and the expected end, with nothing written."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny

from fastmrigan.jobs import cluster, ready, supervisor
from fastmrigan.jobs import forecast as room
from fastmrigan.jobs.forecast import at_once, forecast
from fastmrigan.jobs.job import Job
from fastmrigan.jobs.sampling import JobOptions, sampling
from fastmrigan.jobs.spec import Engine
from fastmrigan.runtime import backends, load

FACTOR = 1.6  # between what the engine and who asks it see of one call


def job_of(
    write_model, tmp_path, delay: float, count: int = 4000, format: str = "shard", began=None
) -> Job:
    """A job whose engine takes `delay` seconds for a call of 20 slices, and as much longer as the
    machine is busy: `began` is given the time at each call's beginning, and at the end."""
    began = [] if began is None else began
    generator = load(write_model(), precision="fp32", batch=20)
    options = JobOptions(tmp_path / "out", count, 7, format, 100)

    def batches(generator, shards, skipped):
        try:
            for shard in shards:
                for _ in range(shard.count // 20):
                    began.append(time.perf_counter())
                    time.sleep(delay)
                    yield np.zeros((20, tiny.SIZE, tiny.SIZE), np.float32)
        finally:
            began.append(time.perf_counter())

    work = replace(sampling(generator.model, options), batches=batches)
    return Job(work, options.output, generator)


@pytest.mark.parametrize("delay", [0.01, 0.05])
def test_the_rate_is_that_of_the_engine(write_model, tmp_path, delay):
    began: list[float] = []
    job = job_of(write_model, tmp_path, delay, began=began)
    told = forecast(job, job.plan, seconds=0.5)
    slowest = max(np.diff(began))
    assert 20 / slowest / FACTOR < told.engine <= 20 / delay
    assert 0.5 <= told.measured < 0.5 + 2 * FACTOR * slowest
    assert told.rate == min(told.engine, told.writing)


def test_a_job_of_few_calls_is_measured_by_all_of_them(write_model, tmp_path):
    began: list[float] = []
    job = job_of(write_model, tmp_path, 0.05, count=40, began=began)
    told = forecast(job, job.plan)
    assert 20 / max(np.diff(began)) / FACTOR < told.engine <= 400


def test_a_slow_writer_limits(write_model, tmp_path, monkeypatch):
    job = job_of(write_model, tmp_path, 0.001)
    monkeypatch.setattr(room, "commit", lambda *_: time.sleep(1.0))
    told = forecast(job, job.plan, seconds=0.2)
    assert 100 / FACTOR < told.writing <= 100  # of a shard of 100
    assert told.rate == told.writing


def test_a_forecast_writes_nothing_where_the_slices_go(write_model, tmp_path):
    job = job_of(write_model, tmp_path, 0.001)
    forecast(job, job.plan, seconds=0.1)
    assert not (tmp_path / "out").exists()


def test_the_plan_and_the_end(command, write_model, tmp_path):
    model, out = write_model(), tmp_path / "out"
    arguments = ["synth", model, "--count", 1000, "--seed", 5, "--out", out]
    began = time.time()
    code, stdout, stderr = command(*arguments, "--dry-run")
    ended = time.time()
    assert (code, stderr) == (0, "")
    assert not out.exists()
    lines = stdout.splitlines()
    assert lines[0] == f"plan of {out}:"
    facts = {line[:9].strip(): line[9:].strip() for line in lines[1:]}
    assert facts["model"] == f"{model} (sample, tiny)"
    assert facts["slices"] == "1,000 of 16x16, uint8; 0 done"
    assert facts["seed"] == "5"
    assert facts["shards"] == "4 of 256 as shard; 4 to make"
    assert facts["disk"].startswith("8 files, 2.1 MB; ")
    assert "openvino" in facts["engine"]
    assert re.fullmatch(r"[\d,.]+ slices/s by the engine, [\d,.]+ by the writer.*", facts["rate"])
    end = re.search(r"at (.*), if it began now", facts["end"])
    told = datetime.strptime(end[1], "%Y-%m-%d %H:%M:%S %z").timestamp()
    assert began - 1 <= told <= ended + 60


def test_the_plan_of_a_begun_job_is_of_what_is_missing(command, write_model, tmp_path):
    model, out = write_model(), tmp_path / "out"
    arguments = ["synth", model, "--count", 1000, "--out", out]
    assert command(*arguments)[0] == 0
    code, stdout, _ = command(*arguments, "--dry-run")
    assert code == 0
    assert "1,000 done" in stdout
    assert "0 to make" in stdout
    (out / "shard-000001.tar").unlink()
    (out / "shard-000003.tar.tmp").write_bytes(b"half a shard")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    code, stdout, _ = command(*arguments, "--dry-run")
    assert code == 0
    assert "744 done" in stdout
    assert "1 to make" in stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    code, _, stderr = command(*arguments, "--batch", 8, "--dry-run")
    assert code == 2
    assert "run.json: batch is 64 there and 8 here" in stderr


def test_the_end_is_about_when_the_job_ends(command, write_model, tmp_path):
    """In one of three rounds: what other machines leave of the cores changes by the second."""
    apart, model = [], write_model()
    for number in range(3):
        arguments = ["synth", model, "--count", 30_000, "--out", tmp_path / f"out{number}"]
        _, stdout, _ = command(*arguments, "--dry-run")
        found = re.findall(r"([\d,.]+) (?:slices/s )?by", stdout)
        rate = min(float(x.replace(",", "")) for x in found)
        _, stdout, _ = command(*arguments)
        made = float(re.search(r"30,000 made now, ([\d,]+) slices/s", stdout)[1].replace(",", ""))
        apart.append(max(rate / made, made / rate))
        if apart[-1] < 8:
            break
    assert min(apart) < 8, apart


def test_a_plan_without_room_is_shown_and_refused(command, write_model, tmp_path, monkeypatch):
    from fastmrigan.jobs import budget

    real = budget.room_of
    none = budget.Room(0, 1000, None, 4096)
    monkeypatch.setattr(budget, "room_of", lambda out: replace(none, device=real(out).device))
    arguments = ["synth", write_model(), "--count", 40, "--out", tmp_path / "out", "--dry-run"]
    code, stdout, stderr = command(*arguments)
    assert code == 4
    assert "1.0 KB free" in stdout
    assert "are free there" in stderr
    assert command(*arguments, "--no-budget-check")[0] == 0


@pytest.fixture
def two_cores(monkeypatch) -> None:
    """What supervisors and forecasts share out, whatever the machine has."""
    for module in (supervisor, room):
        monkeypatch.setattr(module, "usable_cores", lambda: 2)


def test_the_plan_is_of_as_many_processes_as_the_job(command, write_model, tmp_path, two_cores):
    """Each with the threads that it has in the job, which are pinned."""
    model, out = write_model(), tmp_path / "out"
    arguments = ["synth", model, "--count", 64, "--shard-size", 16, "--out", out]
    assert command(*arguments, "--workers", 2)[0] == 0
    for number in (1, 3):
        (out / f"shard-{number:06}.tar").unlink()
    code, stdout, stderr = command(*arguments, "--workers", 2, "--dry-run")
    assert (code, stderr) == (0, "")
    assert "2 workers, each openvino" in stdout
    assert ": threads 1," in stdout
    each, writing, all_ = (
        float(x.replace(",", "")) for x in re.findall(r"([\d,.]+) sl", rate(stdout))
    )
    assert all_ == pytest.approx(2 * min(each, writing), rel=0.01)
    code, _, stderr = command(*arguments, "--threads", 2, "--workers", 2, "--dry-run")
    assert code == 2
    told = "run.json: threads is 1 there and 2 here; resume with --threads 1, or take another --out"
    assert told in stderr


def rate(stdout: str) -> str:
    return next(line for line in stdout.splitlines() if line.startswith("  rate "))


def test_a_job_file_is_planned_for_workers_too(command, write_model, tmp_path, two_cores):
    write_model()
    path = tmp_path / "night.toml"
    path.write_text('[[job]]\nmodel = "tiny.onnx"\nout = "out"\ncount = 64\nshard_size = 16\n')
    assert command("run", path, "--workers", 2)[0] == 0
    (tmp_path / "out" / "shard-000001.tar").unlink()
    code, stdout, stderr = command("run", path, "--workers", 2, "--dry-run")
    assert (code, stderr) == (0, "")
    assert "1 worker: openvino" in stdout  # for one shard


@pytest.mark.parametrize(
    ("workers", "threads", "shards", "cores", "engines", "writers"),
    [
        (None, None, 9, 8, 1, 1),
        (1, 8, 9, 8, 1, 1),
        (4, 2, 9, 8, 4, 4),
        (4, 2, 3, 8, 3, 3),  # no more start than there are shards
        (4, 8, 9, 8, 1, 4),  # each has all of them, in turn
        (4, 4, 9, 8, 2, 4),
        (16, 1, 99, 8, 8, 8),
    ],
)
def test_how_many_engines_go_at_once(
    monkeypatch, workers, threads, shards, cores, engines, writers
):
    monkeypatch.setattr(room, "usable_cores", lambda: cores)
    monkeypatch.setattr(room, "devices_for", lambda engine: [])
    assert at_once(Engine(Path("m.onnx"), threads=threads), workers, shards) == (engines, writers)


@pytest.mark.parametrize(("workers", "engines"), [(1, 1), (2, 2), (8, 2)])
def test_engines_of_several_devices(monkeypatch, workers, engines):
    monkeypatch.setattr(room, "usable_cores", lambda: 16)
    monkeypatch.setattr(room, "devices_for", lambda engine: ["0", "1"])
    assert at_once(Engine(Path("m.onnx"), threads=2), workers, 99) == (engines, workers)


def test_a_plan_for_ray_opens_no_engine_here(command, write_model, tmp_path, monkeypatch):
    """As the job's own head opens none: this machine may not have what the nodes have."""
    monkeypatch.setattr(cluster, "_ray", lambda: None)

    def refuse(*_: object) -> None:
        raise AssertionError("an engine was asked for")

    monkeypatch.setattr(Engine, "open", refuse)
    monkeypatch.setattr(ready, "choose", refuse)
    monkeypatch.setattr(backends, "installed", refuse)
    arguments = ["synth", write_model(), "--count", 64, "--out", tmp_path / "out"]
    code, stdout, stderr = command(*arguments, "--runner", "ray", "--dry-run")
    assert (code, stderr) == (0, "")
    assert "1 of 256 as shard; 1 to make" in stdout
    assert "end     not told" in stdout
    assert not (tmp_path / "out").exists()
