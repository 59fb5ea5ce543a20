"""What several processes tell as one job."""

from __future__ import annotations

import json

from job_files import pinned, status_of

from fastmrigan.jobs import log
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.sampling import JobOptions, sampling
from fastmrigan.jobs.watch import ShardDone, Watch
from fastmrigan.runtime import load


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
