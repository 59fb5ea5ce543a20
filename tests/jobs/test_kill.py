"""Jobs that are killed, or told to stop, at any moment: nothing lost, nothing doubled, the same
bytes."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from job_process import JobProcess, command_of, contents, finished, half_made

from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.verify import verify

SHARDS, SIZE = 400, 16  # a job; slices a shard
# What a job is run with, and how often one is killed, by how it runs: fifty times in all. At most
# KILLED_A_JOB of them hit the same job, one resumption after the other.
WAYS = {"one process": ((), 30), "two workers": (("--workers", 2), 20)}
KILLED_A_JOB = 10


def synth(model: Path, out: Path, *more: object) -> list[str]:
    plan = ("--count", SHARDS * SIZE, "--shard-size", SIZE, "--seed", 7, "--batch", 8)
    return command_of("synth", model, "--out", out, *plan, *more)


def undisturbed(model: Path, out: Path, *more: object) -> float:
    """Makes the whole job; gives the seconds until its first shard was there."""
    began = time.monotonic()
    with JobProcess(synth(model, out, *more), out) as job:
        job.wait_for(1)
        first = time.monotonic() - began
        assert job.wait() == 0, job.said()
    return first


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_kill_at_random_moments(write_model, tmp_path, way):
    model, (more, wanted) = write_model(), WAYS[way]
    start = undisturbed(model, tmp_path / "whole", *more)
    expected = contents(tmp_path / "whole")
    assert len(expected) == 2 * SHARDS + 1
    dice = random.Random(0)
    killed = midway = 0
    while killed < wanted:
        out = tmp_path / f"killed-{killed}"
        command = synth(model, out, *more)
        for left in range(min(KILLED_A_JOB, wanted - killed), 0, -1):
            there = len(finished(out))
            with JobProcess(command, out) as job:
                if left in (KILLED_A_JOB, 1):  # anywhere from the process's first instruction on
                    time.sleep(dice.uniform(0, 1.2 * start))
                else:
                    job.wait_for(there + dice.randint(0, (SHARDS - there) // (left + 1)))
                    time.sleep(dice.uniform(0, 0.004))  # anywhere within a shard
                midway += 0 < len(finished(out)) < SHARDS
                if not job.kill(dice):  # a worker: another takes its place, if it had an engine
                    assert job.wait() in (0, 5), job.said()
            killed += 1
            survivors = contents(out) if (out / "run.json").exists() else {}
            assert survivors.items() <= expected.items(), "a finished file is not what it should be"
            if len(finished(out)) == SHARDS:
                break
        with JobProcess(command, out) as job:
            assert job.wait() == 0, job.said()
        assert contents(out) == expected
        assert not half_made(out)
        assert verify(out).whole
        assert [index for index, _ in read_slices(out)] == list(range(SHARDS * SIZE))
    assert midway >= 0.6 * wanted


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_told_to_stop_at_random_moments(write_model, tmp_path, number, way):
    """It ends with 130, or 0 where it was done; every shard in hand is finished or dropped."""
    model, (more, _) = write_model(), WAYS[way]
    undisturbed(model, tmp_path / "whole", *more)
    expected = contents(tmp_path / "whole")
    out = tmp_path / "out"
    command = synth(model, out, *more)
    dice = random.Random(1)
    for left in range(8, 0, -1):
        there = len(finished(out))
        with JobProcess(command, out) as job:
            job.wait_for(there + dice.randint(1, (SHARDS - there) // (left + 1)))
            time.sleep(dice.uniform(0, 0.004))
            for _ in range(dice.choice([1, 1, 2])):  # the second one does not wait for the engine
                job.process.send_signal(number)
                time.sleep(dice.uniform(0, 0.004))
            status = job.wait()
            last = job.said().strip().splitlines()[-1]
        assert status == 130, last
        assert "the same command" in last
        assert not half_made(out)
        assert len(contents(out)) == 2 * len(finished(out)) + 1, "a receipt without its shard"
        assert contents(out).items() <= expected.items()
    with JobProcess(command, out) as job:
        assert job.wait() == 0, job.said()
    assert contents(out) == expected
