"""Bulk jobs: complete, reproducible, resumable, one at a time."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from job_files import digests

from fastmrigan.errors import DiskFull, UsageError
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.jobs import job
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.jobs.shards import read_slices
from fastmrigan.runtime import load
from fastmrigan.runtime.latents import normal_latents

FAULT = Path(__file__).parents[1] / "support" / "fault.py"


def arguments(model: Path, out: Path, count: int, *more: object) -> list[str]:
    fixed = ["synth", model, "--out", out, "--count", count, "--seed", 7, "--shard-size", 16]
    return [str(a) for a in (*fixed, "--batch", 8, *more)]


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("format", ["shard", "npz", "png"])
def test_every_slice_is_there_once_and_right(write_model, tmp_path, format, mode):
    generator = load(write_model(), precision="fp32", batch=8, mode=mode)
    result = synthesise(generator, JobOptions(tmp_path / "out", 37, 7, format, 16))
    assert (result.slices, result.made) == (37, 37)
    read = dict(read_slices(tmp_path / "out"))
    assert list(read) == list(range(37))
    flat = np.tanh(normal_latents(7, 0, 37, tiny.LATENT) @ tiny.weights())
    expected = to_uint8(flat.reshape(37, 16, 16))
    off = np.abs(np.stack(list(read.values())).astype(int) - expected.astype(int))
    assert off.max() <= 1  # the engine's tanh may differ by an ulp across a rounding edge
    assert (off > 0).mean() < 1e-3


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("batch", [8, None])
def test_a_resumed_job_makes_what_is_missing_and_nothing_else(write_model, tmp_path, batch, mode):
    generator = load(write_model(), batch=batch, mode=mode)
    options = JobOptions(tmp_path / "out", 100, 7, shard_size=16)
    synthesise(generator, options)
    before = digests(options.out)
    (options.out / "shard-000002.tar").unlink()
    (options.out / "shard-000004.tar.tmp").write_bytes(b"half a shard")
    result = synthesise(generator, options)
    assert (result.slices, result.made) == (100, 16)
    assert digests(options.out) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 8}, "seed is 7 there and 8 here"),
        ({"count": 50}, "count is 48 there and 50 here"),
        ({"shard_size": 8}, "shard_size is 16 there and 8 here"),
        ({"format": "npz"}, "format is 'shard' there and 'npz' here"),
        ({"dtype": "uint16"}, "dtype is 'uint8' there and 'uint16' here"),
    ],
)
def test_another_plan_in_the_same_folder_is_refused(write_model, tmp_path, change, named):
    generator = load(write_model(), batch=8)
    settings = {"count": 48, "seed": 7, "format": "shard", "shard_size": 16}
    synthesise(generator, JobOptions(tmp_path / "out", **settings))
    with pytest.raises(UsageError, match=rf"run.json: {named}"):
        synthesise(generator, JobOptions(tmp_path / "out", **(settings | change)))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch": 4}, "batch is 8 there and 4 here"),
        ({"batch": None}, r"batch is 8 there and \[1, 4, 8, 16, 32\] here"),
        ({"threads": 1}, "threads is"),
        ({"backend": "onnxruntime"}, "backend is 'openvino' there and 'onnxruntime' here"),
    ],
)
def test_another_engine_in_the_same_folder_is_refused(write_model, tmp_path, settings, named):
    model, options = write_model(), JobOptions(tmp_path / "out", 8, 7)
    synthesise(load(model, batch=8, threads=2), options)
    with pytest.raises(UsageError, match=named):
        synthesise(load(model, **({"batch": 8, "threads": 2} | settings)), options)


def test_shards_without_their_run_are_not_touched(write_model, tmp_path):
    (tmp_path / "shard-000000.tar").write_bytes(b"somebody else's")
    with pytest.raises(UsageError, match=r"holds shards but no run\.json"):
        synthesise(load(write_model()), JobOptions(tmp_path, 8))


def test_run_json_pins_what_the_bytes_depend_on(write_model, tmp_path):
    generator = load(write_model(), batch=8)
    synthesise(generator, JobOptions(tmp_path / "out", 8, 7))
    pinned = json.loads((tmp_path / "out" / "run.json").read_text())
    assert set(pinned) == {
        *("layout", "model_sha256", "seed", "count", "shard_size", "format", "dtype", "batch"),
        *("backend", "version", "device", "precision", "instruction_set"),
        *("mode", "streams", "threads", "pinning", "nodes"),
    }
    assert pinned["model_sha256"] == generator.model.sha256


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_full_disk_keeps_what_is_done_and_resumes(write_model, tmp_path, monkeypatch, mode):
    generator = load(write_model(), batch=8, mode=mode)
    whole, options = (JobOptions(tmp_path / n, 100, 7, shard_size=16) for n in ("whole", "out"))
    synthesise(generator, whole)
    real = job.commit

    def full_at_three(folder, fmt, content, origin):
        if content.shard.number == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(folder, fmt, content, origin)

    monkeypatch.setattr(job, "commit", full_at_three)
    with pytest.raises(DiskFull, match=r"no space left; 48 of 100 slices are safe"):
        synthesise(generator, options)
    monkeypatch.setattr(job, "commit", real)
    synthesise(generator, options)
    assert digests(options.out) == digests(whole.out)


def wait_for_shards(out: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while len(list(out.glob("shard-*.tar"))) < count:
        assert process.poll() is None, "the job ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_job_resumes(write_model, tmp_path, fastmrigan, number):
    model, count = write_model(), 60_000
    out = tmp_path / "out"
    command = arguments(model, out, count)
    process = start([sys.executable, "-m", "fastmrigan", *command])
    wait_for_shards(out, 2, process)
    second = fastmrigan(*command)
    assert second.returncode == 2
    assert "another job is writing shards 0:3750 there" in second.stderr
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    last = stderr.decode().strip().splitlines()[-1]
    assert "of 60,000 slices made; the same command goes on from there" in last
    made = 16 * len(list(out.glob("shard-*.tar")))
    assert f"stopped with {made:,} of" in last
    assert not list(out.glob("*.tmp"))


POINTS = ["before-fsync", "before-rename", "before-folder-fsync", "after-folder-fsync"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["shard", "npz", "png"])
@pytest.mark.parametrize("point", POINTS)
def test_death_at_each_point_of_a_write(write_model, tmp_path, fastmrigan, point, format):
    model = write_model()
    whole, out = tmp_path / "whole", tmp_path / "out"
    fastmrigan(*arguments(model, whole, 100, "--format", format))
    command = arguments(model, out, 100, "--format", format)
    killed = subprocess.run([sys.executable, FAULT, point, "3", *command], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = [p for p in out.glob("shard-*") if not p.name.endswith(".tmp")]
    assert len(finished) == (2 if point in ("before-fsync", "before-rename") else 3)
    resumed = fastmrigan(*command)
    assert resumed.returncode == 0, resumed.stderr
    assert digests(out) == digests(whole)
