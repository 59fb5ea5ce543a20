"""Who hands shards to actors, and what becomes of them when actors die; without Ray."""

from __future__ import annotations

import errno
import pickle
import sys
from collections import Counter, deque
from pathlib import Path

import pytest
from fake_ray import FakeRay, RayError, Task

from fastmrigan.errors import Interrupted, MissingDependency, ModelRefused, UsageError
from fastmrigan.interrupt import StopSignal
from fastmrigan.jobs import crew as room
from fastmrigan.jobs.cluster import RayOptions, absolute
from fastmrigan.jobs.crew import AHEAD, DEATHS, Crew, Opened, needs
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.spec import Engine, JobSpec, Sampled, Translated
from fastmrigan.jobs.watch import ShardDone

SPEC = JobSpec(Engine(Path("tiny.onnx"), threads=1), Sampled(100), Output(Path("out")))
PINNED = {
    "backend": "openvino",
    "version": "2026",
    "precision": "fp32",
    "device": "CPU",
    "threads": 1,
}
SIGNAL = StopSignal()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(room, "JOIN_SECONDS", 0)
    monkeypatch.setattr(room, "GRACE_SECONDS", 0.05)


def opened(task: Task) -> Opened:
    return Opened(f"node-{task.actor}", PINNED)


def done(task: Task) -> ShardDone:
    return ShardDone(Shard(task.argument, 0, 1), {}, {}, {})


def well(task: Task) -> Opened | ShardDone:
    return opened(task) if task.method == "open" else done(task)


def make(ray: FakeRay, places: int, actors: int | None = None) -> tuple[list[int], list[str]]:
    """Places that were made, in order, and what was said."""
    made: list[int] = []
    said: list[str] = []
    with Crew(ray, SPEC, actors, Path("token"), said.append) as crew:
        assert crew.open(SIGNAL) == PINNED
        crew.make(deque(range(places)), SIGNAL, lambda one: made.append(one.shard.number))
    assert len(ray.killed) >= len(ray.made)
    return made, said


def test_every_shard_is_made_once_by_actors_that_have_few_in_hand():
    ray = FakeRay(well)
    most = Counter()

    def answer(task: Task) -> Opened | ShardDone:
        given = Counter(each.actor for each in ray.told if each.method == "make_shard")
        for actor, count in given.items():
            most[actor] = max(most[actor], count - finished[actor])
        return well(task)

    finished: Counter[int] = Counter()
    get = ray.get

    def count(task: Task) -> object:
        finished[task.actor] += task.method == "make_shard"
        return get(task)

    ray.answer, ray.get = answer, count
    made, said = make(ray, 20)
    assert sorted(made) == list(range(20))
    assert max(most.values()) == AHEAD
    assert said[0] == "ray 2.50.0: 2 engines of 1 CPUs each, on 2 nodes that have them"
    assert said[1] == "ray: openvino 2026 in fp32 on CPU, threads 1, is open on node node-0"
    assert {settings["num_cpus"] for settings in ray.made} == {1}
    assert {settings["max_restarts"] for settings in ray.made} == {0}


@pytest.mark.parametrize("replaced", [True, False])
def test_what_a_lost_actor_had_in_hand_goes_to_others(replaced):
    def answer(task: Task) -> object:
        if task.actor == 1 and task.method == "make_shard" and task.argument > 8:
            raise RayError("its node has died")
        if task.actor == 2 and not replaced:
            return None  # no room for it
        return well(task)

    ray = FakeRay(answer)
    made, said = make(ray, 20)
    assert sorted(made) == list(range(20))
    assert len(ray.made) == 3
    assert "ray: lost the engine on node node-1; 2 shards go to others" in said
    by = Counter(task.actor for task in ray.told if task.method == "make_shard")
    assert (by[2] > 0) == replaced


def test_a_shard_that_actors_die_of_ends_the_job():
    def answer(task: Task) -> object:
        if task.method == "make_shard" and task.argument == 5:
            raise RayError("SIGSEGV")
        return well(task)

    with pytest.raises(
        ModelRefused,
        match=rf"tiny\.onnx: {DEATHS} processes died of the shard at 5 .*SIGSEGV.*-range 5:6",
    ):
        make(FakeRay(answer), 20)


@pytest.mark.parametrize("well_ones", [0, 1])
def test_actors_that_die_before_their_engine_is_open(well_ones):
    def answer(task: Task) -> object:
        if task.method == "open" and task.actor >= well_ones:
            raise RayError("out of memory")
        return None if task.actor == 0 and task.method == "open" and not died() else well(task)

    def died() -> bool:
        return len(ray.made) > 3

    ray = FakeRay(answer)
    if well_ones:
        made, _ = make(ray, 6)
        assert made == list(range(6))
    else:
        with pytest.raises(ModelRefused, match=r"before they had opened it.*out of memory"):
            make(ray, 6)
    assert len(ray.made) <= 2 + 2 * DEATHS  # replacing them has an end; one that opens begins anew


def test_engines_that_differ_are_refused():
    def answer(task: Task) -> object:
        if task.actor == 1 and task.method == "open":
            return Opened("other", PINNED | {"instruction_set": "avx2"})
        return well(task)

    with pytest.raises(UsageError, match=r"node other: instruction_set is 'avx2' there and None"):
        make(FakeRay(answer), 50)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), UsageError("no"), ZeroDivisionError()]
)
def test_what_an_actor_raises_comes_here(error):
    def answer(task: Task) -> object:
        if task.method == "make_shard" and task.argument == 3:
            raise error
        return well(task)

    with pytest.raises(type(error)) as raised:
        make(FakeRay(answer), 9)
    assert raised.value is error


def test_a_stopped_job_counts_what_was_in_hand():
    made: list[int] = []
    signal = StopSignal()
    ray = FakeRay(well)
    with Crew(ray, SPEC, 1, Path("token"), lambda _: None) as crew:
        crew.open(signal)

        def shard_done(one: ShardDone) -> None:
            made.append(one.shard.number)
            signal.stopped = len(made) >= 4

        crew.make(deque(range(20)), signal, shard_done)
    assert made == [0, 1, 2, 3, 4]  # the one that was waiting there
    assert [task.method for task in ray.told].count("stop") == 1


def test_stopped_before_an_engine_is_open(monkeypatch):
    signal = StopSignal()
    signal.stopped = True
    with (
        Crew(FakeRay(lambda task: None), SPEC, None, Path("token"), lambda _: None) as crew,
        pytest.raises(Interrupted, match="stopped before the engines were open"),
    ):
        crew.open(signal)


def test_long_waiting_is_said_once(monkeypatch):
    monkeypatch.setattr(room, "PATIENCE_SECONDS", 0)
    waits = []

    def answer(task: Task) -> object:
        waits.append(task)
        return well(task) if len(waits) > 10 else None

    _, said = make(FakeRay(answer), 3)
    assert said.count("ray: waiting for a node with 1 CPUs to spare") == 1


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, object]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


@pytest.mark.parametrize(
    ("settings", "nodes", "expected"),
    [
        ({}, [node(8), node(4)], (4, 0, 2)),
        ({"threads": 3}, [node(8), node(4)], (3, 0, 2)),
        ({"threads": 6}, [node(8), node(4)], (6, 0, 1)),
        ({"threads": 16}, [node(8), node(4)], "has 16 CPUs"),
        ({}, [node(8), node(2, alive=False)], (8, 0, 1)),
        ({}, [{"Alive": True, "Resources": {"memory": 1.0}}, node(2)], (2, 0, 1)),  # a bare head
        ({}, [], "has 1 CPUs"),
        ({"backend": "tensorrt"}, [node(8), node(4, 2)], (4, 1, 1)),
        ({"backend": "onnxruntime-cuda"}, [node(8)], "has 1 CPUs and a GPU"),
        ({"model": Path("tiny.engine")}, [node(8), node(4, 1)], (4, 1, 1)),
    ],
)
def test_what_an_actor_needs(settings, nodes, expected):
    engine = Engine(**({"model": Path("tiny.onnx")} | settings))
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=f"no node of the cluster {expected}"):
            needs(engine, nodes)
    else:
        assert needs(engine, nodes) == expected


def test_other_processes_take_paths_as_this_one_does(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    inputs = Translated(Path("prepared"), label="t1")
    spec = absolute(
        JobSpec(Engine(Path("m.onnx")), inputs, Output(Path("/out")), shard_range="1:2")
    )
    assert spec.engine == Engine(tmp_path / "m.onnx")
    assert spec.inputs == Translated(tmp_path / "prepared", label="t1")
    assert (spec.output, spec.shard_range) == (Output(Path("/out")), "1:2")


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"--runner ray.*'fastmrigan\[cluster\]'"):
        RayOptions().check()


def test_a_missing_package_is_told_across_processes():
    told = pickle.loads(pickle.dumps(MissingDependency("pydicom", "dicom", "writing DICOM")))
    assert isinstance(told, UsageError)
    assert str(told).startswith("writing DICOM needs the package pydicom")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--runner", "slurm"], "--runner slurm: unknown; choose one of local, ray"),
        (["--ray-address", "a:1"], "--ray-address a:1: is for --runner ray"),
        (["--ray-actors", 2], "--ray-actors 2: is for --runner ray"),
        (["--runner", "ray", "--ray-actors", 0], "--ray-actors 0: expected at least 1"),
    ],
)
def test_options_that_cannot_be_meant(write_model, tmp_path, fastmrigan, options, text):
    done = fastmrigan("synth", write_model(), "--out", tmp_path / "out", "--count", 1, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert not (tmp_path / "out").exists()
