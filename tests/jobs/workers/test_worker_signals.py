"""Jobs in worker processes that are killed, stopped, or run out of disk while they work."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress

import numpy as np
import pytest
from worker_jobs import (
    children,
    digests,
    is_running,
    long_job,
    made_whole,
    slow,
    start,
    supervise,
    wait_for_shards,
)

from fastmrigan.errors import DiskFull, UsageError
from fastmrigan.interrupt import StopSignal
from fastmrigan.jobs import receipts
from fastmrigan.jobs.plan import Content
from fastmrigan.jobs.run import pin, run
from fastmrigan.jobs.supervisor import Supervisor
from fastmrigan.runtime.engine_file import read_model


def test_a_worker_that_is_killed_is_replaced(sampled):
    spec = sampled("out", 16 * 60)
    job = start("slow", 0.02, *long_job(spec))
    wait_for_shards(spec.output.out, 4, job)
    for number, worker in enumerate(children(job.pid)):
        wait_for_shards(spec.output.out, 8 + 8 * number, job)
        os.kill(worker, signal.SIGKILL)
    _, stderr = job.communicate(timeout=60)
    assert job.returncode == 0, stderr
    assert stderr.count(" ended (SIGKILL; is the machine out of memory?)") == 2
    assert digests(spec.output.out) == made_whole(sampled, 16 * 60)


def test_no_worker_outlives_a_killed_supervisor(sampled):
    spec = sampled("out", 16 * 60)
    job = start("slow", 0.02, *long_job(spec))
    wait_for_shards(spec.output.out, 4, job)
    workers = children(job.pid)
    assert len(workers) == 2
    job.kill()
    job.communicate(timeout=60)
    deadline = time.monotonic() + 2
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    supervise(spec, 2)
    assert digests(spec.output.out) == made_whole(sampled, 16 * 60)


@pytest.mark.parametrize(
    ("number", "everybody"),  # a terminal's Ctrl-C goes to all
    [
        (signal.SIGINT, True),
        (signal.SIGTERM, False),
        slow(signal.SIGINT, False),
        slow(signal.SIGTERM, True),
    ],
)
def test_a_signal_stops_cleanly_and_the_job_resumes(sampled, number, everybody):
    spec = sampled("out", 16 * 60)
    out = spec.output.out
    job = start("slow", 0.02, *long_job(spec))
    wait_for_shards(out, 4, job)
    workers = children(job.pid)
    with pytest.raises(UsageError, match="another job is writing"):
        supervise(spec, 1)
    for pid in [job.pid, *(workers if everybody else [])]:
        os.kill(pid, number)
    _, stderr = job.communicate(timeout=60)
    assert job.returncode == 130, stderr
    assert not any(map(is_running, workers))
    made = 16 * len(list(out.glob("shard-*.tar")))
    assert f"stopped with {made:,} of 960 slices made; the same" in stderr.splitlines()[-1]
    assert not list(out.rglob("*.tmp"))
    supervise(spec, 2)
    assert digests(out) == made_whole(sampled, 16 * 60)


@pytest.mark.parametrize("signals", [slow(1), 2])  # at the second one workers are killed at once
def test_a_stop_between_a_receipt_and_its_shard_leaves_neither(sampled, signals):
    spec = sampled("out", 16 * 60)
    out = spec.output.out
    job = start("stuck", 6, *long_job(spec))
    wait_for_shards(out, 8, job)
    while not (out / "receipts" / "shard-000006.tar.json").exists():
        assert job.poll() is None
        time.sleep(0.001)
    for _ in range(signals):
        job.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, stderr = job.communicate(timeout=60)
    assert job.returncode == 130, stderr
    made = {path.name for path in out.glob("shard-*")}
    assert len(made) >= 8
    assert "shard-000006.tar" not in made
    assert {path.stem for path in (out / "receipts").iterdir()} == made
    supervise(spec, 2)
    assert digests(out) == made_whole(sampled, 16 * 60)


def test_what_was_begun_without_its_being_heard_is_cleared_up(sampled):
    """As where the second Ctrl-C comes before that message is read."""
    spec = sampled("out", 32)
    out, work = spec.output.out, spec.work(read_model(spec.engine.model))
    shard = work.plan(spec.output)[1]
    receipt = receipts.path_of(out, "shard-000001.tar")
    half = out / "shard-000001.tar.0123.tmp"
    out.mkdir()
    led = Supervisor(spec, work, 1, (0, 32), {}, StopSignal())
    with suppress(KeyboardInterrupt), led:
        pin(out, work.task, led.first_report().pinned)
        led.workers[0].waiting.append(shard)
        half.write_bytes(b"half")
        content = Content.whole(shard, np.zeros((16, 4, 4), np.uint8))
        receipts.write(out, "shard-000001.tar", {}, content)
        assert receipt.exists()
        raise KeyboardInterrupt
    assert not half.exists()
    assert not receipt.exists()


def test_where_clearing_up_fails_the_first_error_is_told(sampled):
    spec = sampled("out", 16 * 8)
    spec.output.out.mkdir()
    (spec.output.out / "receipts").write_text("")
    with pytest.raises(UsageError, match=r"receipts: cannot write: File exists; 0 of 128 slices"):
        supervise(spec, 2)


@pytest.mark.slow
def test_a_worker_that_hangs_holds_nobody_up(sampled):
    spec = sampled("out", 16 * 200)
    job = start("slow", 0.02, *long_job(spec))
    wait_for_shards(spec.output.out, 4, job)
    workers = children(job.pid)
    os.kill(workers[0], signal.SIGSTOP)
    job.send_signal(signal.SIGINT)
    _, stderr = job.communicate(timeout=15)
    assert job.returncode == 130, stderr
    assert not any(map(is_running, workers))
    assert not list(spec.output.out.glob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, slow(signal.SIGTERM)])
def test_a_signal_before_any_engine_is_open(sampled, number):
    spec = sampled("out", 16 * 60)
    job = start("none", "", *long_job(spec))
    while len(children(job.pid)) < 2:
        assert job.poll() is None
        time.sleep(0.001)
    job.send_signal(number)
    _, stderr = job.communicate(timeout=60)
    assert job.returncode == 130
    assert [line for line in stderr.splitlines() if "stopped with" not in line] in ([], [*STARTED])
    supervise(spec, 2)


STARTED = ("synth: starting at 0 of 960 slices",)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_disk_that_is_really_full(sampled, tmp_path):
    """Shards of 16 slices take 25 kB; the disk has 500."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        whole, spec = sampled("whole", 16 * 40), sampled("disk/out", 16 * 40)
        with pytest.raises(DiskFull, match="no space left"):
            supervise(spec, 2)
        assert not list(spec.output.out.rglob("*.tmp"))
        assert len(list(spec.output.out.glob("shard-*"))) > 2
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        supervise(spec, 2)
        run(whole.open())
        assert digests(spec.output.out) == digests(whole.output.out)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
