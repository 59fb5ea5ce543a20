"""log.jsonl: a line of every shard, whatever became of the line before."""

from __future__ import annotations

import threading

import pytest

from fastmrigan.jobs import job, log
from fastmrigan.jobs.run import make_all, pin
from fastmrigan.jobs.sampling import JobOptions, sampling, synthesise
from fastmrigan.jobs.watch import ShardDone
from fastmrigan.runtime import load


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
