"""What is told of jobs that make a part of one plan each: every part of its own, and the whole."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
from job_page import rows_of, text_of

from fastmrigan.jobs import formats, history, locks, report
from fastmrigan.jobs.history import UNKNOWN, Run, part_of, timeline, unfinished
from fastmrigan.jobs.job import Job
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.report import page
from fastmrigan.jobs.report_figures import rates
from fastmrigan.jobs.run import run
from fastmrigan.jobs.sampling import JobOptions, sampling
from fastmrigan.runtime import load


def written(out: Path, part: str, *runs: tuple[str, int, list[int], str | None]) -> None:
    """A log of a part: (state or UNKNOWN, minute it began, its shards of 16, error) of each run,
    10 s a shard. Its shards are in the folder."""
    lines = []
    for state, minute, numbers, message in runs:
        at = f"2026-03-01T02:{minute:02}:00.000Z"
        lines.append({"event": "start", "at": at, "elapsed": 0.0, "workers": 1, "recipe": "tiny"})
        for place, number in enumerate(numbers, 1):
            facts = {"number": number, "first": 16 * number, "count": 16, "seconds": 10.0}
            facts |= {"left_out": 0, "flagged": 0, "busy": {"engine": 9.0}}
            lines.append({"event": "shard", "at": at, "elapsed": 10.0 * place} | facts)
            (out / f"shard-{number:06}.tar").touch()
        elapsed = 10.0 * len(numbers)
        if message is not None:
            event = "stopped" if state == "stopped" else "error"
            lines.append({"event": event, "at": at, "elapsed": elapsed, "message": message})
        if state != UNKNOWN:
            lines.append({"event": "end", "at": at, "elapsed": elapsed, "state": state})
    name = f"log-{part}.jsonl" if part else "log.jsonl"
    (out / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def planned(out: Path, shards: int) -> None:
    (out / "run.json").write_text(json.dumps({"count": 16 * shards, "shard_size": 16}))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("log.jsonl", None),
        ("log-0-4.jsonl", range(0, 4)),
        ("log-12-16.jsonl", range(12, 16)),
        ("log-old.jsonl", None),
    ],
)
def test_the_part_of_a_log(name, part):
    assert part_of(name) == part


def test_a_range_that_failed_is_told_though_a_later_one_finished(tmp_path):
    planned(tmp_path, 8)
    written(tmp_path, "0-2", ("failed", 0, [0], "no space left"))
    written(tmp_path, "2-4", (UNKNOWN, 1, [2], None))
    written(tmp_path, "4-6", (UNKNOWN, 2, [4], None))
    written(tmp_path, "6-8", ("stopped", 3, [], "a signal"), ("finished", 4, [6, 7], None))
    html = page(tmp_path)
    told = text_of(html)
    assert "The last run of shards 0:2 failed: no space left." in told
    assert "Runs that were killed, or are still running: of shards 2:4, 4:6." in told
    assert "a signal." not in told  # that run was made up for, and is told with the events alone
    assert "was stopped" not in told
    assert "stopped: a signal" in told
    assert [(row[2], row[7]) for row in rows_of(html, "Runs")] == [
        ("failed", "0:2"),
        (UNKNOWN, "2:4"),
        (UNKNOWN, "4:6"),
        ("stopped", "6:8"),
        ("finished", "6:8"),
    ]


@pytest.mark.parametrize(
    ("runs", "left"),
    [
        ([], []),
        ([(None, "failed")], [0]),
        ([(None, "failed"), (None, "finished")], []),
        ([((0, 4), "failed"), ((4, 8), "finished")], [0]),
        ([((0, 4), "failed"), ((0, 4), UNKNOWN)], [1]),
        ([((0, 4), "failed"), ((0, 8), "finished")], []),
        ([((0, 4), "failed"), ((1, 8), "finished")], [0]),
        ([((0, 4), "failed"), (None, "finished")], []),
        ([(None, "failed"), ((0, 4), "finished")], [0]),
        ([((0, 4), "finished"), ((0, 4), "stopped")], [1]),
        ([(None, UNKNOWN), ((0, 4), "failed"), ((4, 8), "stopped")], [0, 1, 2]),
    ],
)
def test_runs_that_nobody_has_made_up_for(runs, left):
    made = []
    for part, state in runs:
        end = None if state == UNKNOWN else {"state": state}
        made.append(Run({"at": ""}, end=end, part=None if part is None else range(*part)))
    assert [next(i for i, r in enumerate(made) if r is each) for each in unfinished(made)] == left


def test_where_all_is_there_only_the_last_run_can_be_a_problem(tmp_path):
    planned(tmp_path, 4)
    written(tmp_path, "", (UNKNOWN, 0, [0], None))
    written(tmp_path, "0-2", ("finished", 1, [1], None))
    written(tmp_path, "2-4", ("finished", 2, [2, 3], None))
    told = text_of(page(tmp_path))
    assert "64 slices there, of 64 planned" in told
    assert "The last run" not in told
    (tmp_path / "shard-000003.tar").unlink()
    assert "The last run was killed, or is still running." in text_of(page(tmp_path))


def test_of_two_that_end_together_the_later_page_stays(tmp_path, monkeypatch):
    composing, go_on, pages = Event(), Event(), iter(["first", "second"])

    def page(_: Path) -> str:
        text = next(pages)
        if text == "first":
            composing.set()
            assert go_on.wait(300)
        return text

    monkeypatch.setattr(report, "page", page)
    first, second = (Thread(target=report.write, args=(tmp_path,)) for _ in range(2))
    first.start()
    assert composing.wait(300)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    go_on.set()
    first.join(300)
    second.join(300)
    assert (tmp_path / report.NAME).read_text() == "second"


def test_who_holds_on_for_good_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "TURN_SECONDS", 0.2)
    monkeypatch.setattr(report, "page", lambda _: "whole")
    with locks.alone(tmp_path, locks.TOLD):
        began = time.monotonic()
        report.write(tmp_path)
    assert 0.2 <= time.monotonic() - began < 5
    assert (tmp_path / report.NAME).read_text() == "whole"


# (second it began, or None; seconds it took) of each run
SIDE_BY_SIDE = [(100.0, 10.0), (100.0, 10.0), (104.0, 10.0)]


@pytest.mark.parametrize(
    ("runs", "starts", "whole"),
    [
        ([], [], 0.0),
        ([(100.0, 10.0)], [0.0], 10.0),
        ([(100.0, 10.0), (500.0, 5.0)], [0.0, 10.0], 15.0),  # what lies between is left out
        (SIDE_BY_SIDE, [0.0, 0.0, 4.0], 14.0),
        ([*SIDE_BY_SIDE, (900.0, 6.0), (903.0, 1.0)], [0.0, 0.0, 4.0, 14.0, 17.0], 20.0),
        ([(100.0, 50.0), (110.0, 5.0), (120.0, 5.0)], [0.0, 10.0, 20.0], 50.0),
        ([(None, 10.0), (None, 20.0)], [0.0, 10.0], 30.0),
        ([(100.0, 10.0), (None, 20.0)], [0.0, 10.0], 30.0),
    ],
)
def test_time_that_runs_share_counts_once(runs, starts, whole):
    made = []
    for second, elapsed in runs:
        at = "" if second is None else f"2026-03-01T02:{int(second) // 60:02}:{second % 60:06.3f}Z"
        made.append(Run({"at": at}, elapsed=elapsed))
    found, total = timeline(made)
    assert found == pytest.approx(starts)
    assert total == pytest.approx(whole)


def test_rates_of_runs_side_by_side_add_up(tmp_path):
    """Four ranges of 8 shards that ran at the same time: 16 slices each 10 s in each."""
    planned(tmp_path, 32)
    for first in (0, 8, 16, 24):
        numbers = list(range(first, first + 8))
        written(tmp_path, f"{first}-{first + 8}", ("finished", 0, numbers, None))
    edges, heights = rates(history.read(tmp_path).runs)
    assert (edges[0], edges[-1]) == (0.0, 80.0)
    assert sum(heights * (edges[1:] - edges[:-1])) == pytest.approx(16 * 32)
    told = text_of(page(tmp_path))
    assert f"{16 * 32 / 80:.3g} slices/s, over all runs" in told
    assert "1:20 min of work, engine start left out; time that runs share counts once" in told
    assert "A dashed line" not in told


def job(write_model, out: Path, format: str, left_out: dict[int, str]) -> Job:
    """64 slices in 4 shards."""
    generator = load(write_model(), batch=8)
    work = sampling(generator.model, JobOptions(out, 64, 7, format, 16))
    return Job(work, Output(out, format, 16), generator, left_out)


def test_left_out_slices_of_a_range_are_its_own(write_model, tmp_path):
    out = tmp_path / "out"
    left_out = {3: "blank", 40: "blank", 41: "saturated"}
    own = {range(0, 2): 1, range(2, 3): 2, range(3, 4): 0}
    for _ in range(2):  # the second time nothing is made
        for part, count in own.items():
            run(job(write_model, out, "shard", left_out), part)
            told = json.loads((out / f"status-{part.start}-{part.stop}.json").read_text())
            assert (told["left_out"], told["total"]) == (count, 16 * len(part))
    run(job(write_model, out, "shard", left_out))
    assert json.loads((out / "status.json").read_text())["left_out"] == 3


def test_a_shard_that_is_left_out_whole_is_told(write_model, tmp_path, monkeypatch):
    """As of a volume with a hole: its receipt is all that there is of it."""
    monkeypatch.setitem(formats.FORMATS, "png", replace(formats.FORMATS["png"], entire=True))
    out = tmp_path / "out"
    for _ in range(2):
        run(job(write_model, out, "png", {3: "torn"}))
        assert not (out / "shard-000000").exists()
        told = text_of((out / "job.html").read_text())
        assert "48 slices there, of 64 planned" in told
        assert "16 slices left out" in told
        assert json.loads((out / "status.json").read_text())["left_out"] == 16
        (out / "log.jsonl").unlink()
