"""The decode pool: order, refusals, deaths of every kind, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pool_tasks
import pytest

from fastmrigan.errors import UsageError
from fastmrigan.imaging import pool as room
from fastmrigan.imaging.pool import DecodePool
from fastmrigan.imaging.walker import Refused


def outcomes(*tasks: tuple[Any, ...], **options: Any) -> list[Any]:
    """What a pool makes of tasks named 0, 1, …"""
    with DecodePool(pool_tasks.task, **({"workers": 2} | options)) as pool:
        return list(pool.run((str(i), task) for i, task in enumerate(tasks)))


def is_running(pid: int) -> bool:
    """False for zombies too."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def test_results_in_order_from_several_workers() -> None:
    waits = [("sleep", 0.05 * (i % 4)) for i in range(12)]
    assert outcomes(*waits, workers=3) == [seconds for _, seconds in waits]


def test_thousands_of_small_tasks_share_their_workers() -> None:
    pids = outcomes(*[("pid",)] * 3000)
    assert 1 <= len(set(pids)) <= 2
    assert os.getpid() not in pids


def test_no_tasks_start_no_process() -> None:
    with DecodePool(pool_tasks.task) as pool:
        assert list(pool.run([])) == []
        assert pool._workers == []


def test_several_runs_use_the_same_workers() -> None:
    with DecodePool(pool_tasks.task, workers=1) as pool:
        first = list(pool.run([("a", ("pid",))]))
        assert list(pool.run([("a", ("pid",))])) == first


@pytest.mark.parametrize("rows", [0, 1, 100, 10_000], ids=lambda rows: f"{rows * 4} kB")
def test_arrays_come_back_writable_and_aligned(rows: int) -> None:
    (got,) = outcomes(("array", rows))
    np.testing.assert_array_equal(got, np.full((rows, 1000), rows, np.float32))
    assert got.flags.aligned
    got += 1  # a view of what came over the socket, ours alone


def test_several_arrays_in_one_result() -> None:
    got, number = outcomes(("two", 200_001), ("number", 3))
    np.testing.assert_array_equal(got["a"], np.arange(5.0))
    np.testing.assert_array_equal(got["b"], np.arange(200_001, dtype=np.uint8))
    assert number == 3


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (("spin",), "takes more than 0.3 s to decode"),
        (("sleep", 60.0), r"was not decoded within [1-9]\d* s on the clock"),
        (("stop",), r"was not decoded within [1-9]\d* s on the clock"),
        (("memory",), "needs more than 256 MiB of memory to decode"),
        (("fill", 1 << 29), "needs more than 256 MiB of memory to decode"),
        (("segfault",), r"its decoder crashed \(SIGSEGV\)"),
        (("exit",), r"its decoder ended the process \(exit status 7\)"),
        (("unpicklable",), "its decoder ended the process"),
        (("nonsense",), "its decoder returned nonsense"),
        (("bug",), r"cannot be decoded \(ZeroDivisionError: of three lines\)"),
        (("reject",), "no name of its own"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_bad_task_is_refused_and_the_rest_goes_on(
    task: tuple[Any, ...], reason: str, monkeypatch
) -> None:
    monkeypatch.setattr(room, "WALL", 5.0)  # the test need not last as long as patience does
    rest = [("number", i) for i in range(6)]
    seconds = 0.3 if " s " in reason else 2.0
    got = outcomes(*rest[:3], task, *rest[3:], seconds=seconds, memory=1 << 28)
    refused = got.pop(3)
    assert got == [0, 1, 2, 3, 4, 5]
    assert isinstance(refused, Refused)
    assert refused.name == "3"
    assert re.match(reason, refused.reason), refused.reason


def test_time_that_others_had_the_core_is_no_fault_of_a_file(monkeypatch) -> None:
    """Two seconds on the clock, of which the task could not run in 1.8; its limit is one."""
    monkeypatch.setattr(room, "WALL", 5.0)
    began = time.monotonic()
    monkeypatch.setattr(room, "waited_for_a_core", lambda _: 0.9 * (time.monotonic() - began))
    assert outcomes(("sleep", 2.0), ("number", 1), seconds=0.2) == [2.0, 1]
    monkeypatch.setattr(room, "waited_for_a_core", lambda _: 0.0)
    late, _ = outcomes(("sleep", 20.0), ("number", 1), seconds=0.2)
    assert re.match(r"was not decoded within [1-9]\d* s on the clock", late.reason)


def test_an_import_is_no_fault_of_a_file() -> None:
    came = outcomes(("import", 0.1), ("import", 60.0), ("number", 3), workers=1, seconds=0.5)
    assert (came[0], came[2]) == (0.1, 3)
    assert came[1].reason == "takes more than 0.5 s to decode"  # the clock goes on after it


def test_waiting_for_a_core_is_seen() -> None:
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this system does not tell")
    core = str(min(os.sched_getaffinity(0)))
    busy = ["taskset", "-c", core, sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(busy) as one, subprocess.Popen(busy) as other:
        time.sleep(1.5)
        waited = room.waited_for_a_core(one.pid) + room.waited_for_a_core(other.pid)
        one.kill()
        other.kill()
    assert waited > 0.4  # two on one core, half of the time each
    assert room.waited_for_a_core(one.pid) == 0.0  # it is gone


@pytest.mark.parametrize(
    ("kind", "value", "came"),
    [("keep", 1 << 28, int), ("memory", 0, Refused), ("starve", 0, Refused)],
)
def test_a_worker_that_ended_while_nobody_listened_is_heard(kind, value, came) -> None:
    """One that has grown, or ran out of memory, ends once it has answered; the answer counts."""

    def tasks() -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield "first", ("number", 1)
        yield "worn", (kind, value)
        time.sleep(1.0)  # the worker is gone when it is to be given more
        yield "last", ("number", 2)

    with DecodePool(pool_tasks.task, workers=1, memory=1 << 29) as pool:
        first, worn, last = pool.run(tasks())
    assert (first, last) == (1, 2)
    assert isinstance(worn, came)
    assert "exit status" not in str(worn)


def test_every_task_bad_in_one_batch() -> None:
    """Small tasks go out in batches; a death in one must be blamed on nobody else in it."""
    tasks = [("number", i) for i in range(200)]
    for i in (50, 51, 90, 199):
        tasks[i] = ("segfault",)
    got = outcomes(*tasks, workers=1)
    assert [i for i, one in enumerate(got) if isinstance(one, Refused)] == [50, 51, 90, 199]
    assert [one.name for one in got if isinstance(one, Refused)] == ["50", "51", "90", "199"]
    assert [one for one in got if not isinstance(one, Refused)] == [
        i for i in range(200) if i not in (50, 51, 90, 199)
    ]


def test_a_refusal_of_the_function_keeps_its_name() -> None:
    (refused,) = outcomes(("refuse",))
    assert (refused.name, refused.reason) == ("its own\nname", "its own reason")
    assert str(refused) == r"its own\nname: its own reason"


def test_an_absent_package_ends_the_run() -> None:
    with pytest.raises(UsageError, match=r"pip install 'fastmrigan\[dicom\]'"):
        outcomes(("number", 1), ("absent",), ("number", 2))


def test_workers_are_replaced_when_memory_ran_out_or_is_not_given_back() -> None:
    for kind in ("memory", "starve"):
        before, _, after = outcomes(("pid",), (kind,), ("pid",), workers=1)
        assert before != after
    kept = outcomes(*[("keep", 50 << 20)] * 4, workers=1, memory=1 << 28)  # 200 of 256 MiB
    assert len(set(kept)) == 2


def test_time_and_memory_are_counted_a_task() -> None:
    """Four times 0.2 s and 100 MiB are more than one task may take, and no task takes so much."""
    tasks = [("fill", 100 << 20)] * 4
    assert outcomes(*tasks, workers=1, seconds=1.0, memory=150 << 20) == [1.0] * 4


def test_seconds_by_task() -> None:
    slow, quick = ("spin", 0.1), ("spin", 0.4)
    with DecodePool(pool_tasks.task, workers=1, seconds=lambda kind, value: value) as pool:
        got = [str(one) for one in pool.run([("a", slow), ("b", quick)])]
    assert got == [
        "a: takes more than 0.1 s to decode",
        "b: takes more than 0.4 s to decode",
    ]


def test_one_thread_and_no_talk(capfd: pytest.CaptureFixture[str]) -> None:
    assert outcomes(("threads",), ("print", 5)) == [["1", "1", "1"], 5]
    assert capfd.readouterr() == ("", "")


def test_tasks_are_taken_as_they_are_needed() -> None:
    taken = []

    def tasks() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for i in range(10_000):
            taken.append(i)
            yield str(i), ("number", i)

    with DecodePool(pool_tasks.task, workers=1) as pool:
        run = pool.run(tasks())
        assert next(run) == 0
        assert len(taken) <= room.WINDOW + 2 * room.BATCH + 2


def test_results_that_nobody_asks_for_do_not_pile_up() -> None:
    taken = []

    def tasks() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for i in range(40):
            taken.append(i)
            yield str(i), ("sleep", 0.3) if i == 0 else ("array", 5_000)  # 20 MB each

    with DecodePool(pool_tasks.task, workers=2, memory=100 << 20) as pool:
        run = pool.run(tasks())
        next(run)
        assert len(taken) < 20
        assert sum(1 for _ in run) == 39


def test_one_large_result_leaves_work_for_all() -> None:
    tasks = [("large", ("array", 5_000)), *((str(i), ("pid", 0.1)) for i in range(60))]  # 20 MB
    with DecodePool(pool_tasks.task, workers=2, memory=50 << 20) as pool:
        pids = [result for result in pool.run(tasks) if isinstance(result, int)]
    assert len(pids) == 60
    assert len(set(pids[30:])) == 2


def test_a_run_left_early_leaves_a_pool_that_works() -> None:
    with DecodePool(pool_tasks.task, workers=2) as pool:
        for result in pool.run((str(i), ("sleep", 0.01)) for i in range(100)):
            assert result == 0.01
            break
        assert list(pool.run([("a", ("number", 4))])) == [4]


def test_no_process_outlives_the_pool() -> None:
    with DecodePool(pool_tasks.task, workers=2) as pool:
        pids = set(pool.run((str(i), ("pid",)) for i in range(8)))
        assert all(map(is_running, pids))
    assert not any(map(is_running, pids))


PARENT = """
import sys
sys.path[:0] = {paths!r}
import pool_tasks
from fastmrigan.imaging.pool import DecodePool
with DecodePool(pool_tasks.task, workers=2, seconds=100.0) as pool:
    tasks = [("a", ("pid",)), ("b", ("sleep", 0.2)), ("c", ("pid",))]
    tasks += [("d", ("{kind}", 60.0))] * 4
    for result in pool.run(tasks):
        print(result, flush=True)
"""


@pytest.mark.parametrize(
    ("kind", "end"), [("sleep", signal.SIGINT), ("spin", signal.SIGKILL)], ids=["ctrl-c", "kill"]
)
def test_ended_from_outside_it_leaves_no_orphan(kind: str, end: signal.Signals) -> None:
    script = PARENT.format(paths=[str(Path(pool_tasks.__file__).parent)], kind=kind)
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(line) for line in (parent.stdout.readline() for _ in range(3)) if "." not in line]
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    pids += [int(child) for child in children]
    time.sleep(0.2)
    parent.send_signal(end)
    parent.wait(300)
    parent.stdout.close()
    patience = time.monotonic() + 2
    while any(map(is_running, pids)) and time.monotonic() < patience:
        time.sleep(0.05)
    left = [pid for pid in pids if is_running(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_a_worker_that_does_not_start_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(room, "MODULE", "fastmrigan.imaging.no_such_module")
    with pytest.raises(UsageError, match=r"did not start: .*no_such_module"):
        outcomes(("number", 1))


def test_functions_that_no_worker_can_import() -> None:
    with pytest.raises(ValueError, match="expected a function at the top of a module"):
        DecodePool(lambda: None)


def test_a_folder_with_modules_in_it_is_not_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('a module of the current folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert outcomes(("number", 1)) == [1]
