"""Who hands shards to actors, and what becomes of them when actors die; without Ray."""

from __future__ import annotations

import errno
import json
import pickle
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_ray import ActorDiedError, FakeRay, RayError, Task

from fastmrigan.errors import Interrupted, MissingDependency, ModelRefused, UsageError
from fastmrigan.interrupt import StopSignal
from fastmrigan.jobs import crew as room
from fastmrigan.jobs import history, log
from fastmrigan.jobs.cluster import RayOptions, absolute
from fastmrigan.jobs.crew import AHEAD, DEATHS, Crew, Opened, needs
from fastmrigan.jobs.inquest import Casualty, Inquest
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Plan, Shard, Sources
from fastmrigan.jobs.spec import Engine, JobSpec, Sampled, Translated
from fastmrigan.jobs.watch import ShardDone, Watch
from fastmrigan.runtime.engine_file import read_model

SPEC = JobSpec(Engine(Path("tiny.onnx"), threads=1), Sampled(100), Output(Path("out")))
PINNED = {
    "backend": "openvino",
    "version": "2026",
    "precision": "fp32",
    "device": "CPU",
    "threads": 1,
    "batch": 2,
}
SIGNAL = StopSignal()
NOTHING = Inquest(SPEC.output, None, {})


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(room, "JOIN_SECONDS", 0)
    monkeypatch.setattr(room, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(room, "NODE_SECONDS", 0)


def opened(task: Task) -> Opened:
    return Opened(f"node-{task.actor}", f"id-{task.actor % 2}", PINNED)


def done(task: Task) -> ShardDone:
    return ShardDone(task.argument, task.skipped, {}, {})


def well(task: Task) -> Opened | ShardDone | str:
    if task.method == "survive":
        return "it did"
    return opened(task) if task.method == "open" else done(task)


class Told:
    """What a crew tells its `Watch`."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.made: list[int] = []
        self.left_out: dict[int, str] = {}
        self.sizes: list[int] = []
        self.events: list[dict[str, object]] = []
        self.then = then

    def shard_done(self, one: ShardDone) -> None:
        self.made.append(one.shard.number)
        self.left_out |= one.left_out
        self.then()

    def staffed(self, workers: int) -> None:
        self.sizes.append(workers)

    def event(self, event: str, **facts: object) -> None:
        self.events.append({"event": event, **facts})


def make(
    ray: FakeRay,
    count: int,
    actors: int | None = None,
    told: Told | None = None,
    inquest: Inquest | None = None,
) -> tuple[list[int], list[str]]:
    """Shards of two slices: those that were made, in order, and what was said."""
    told, said = told or Told(), list[str]()
    inquest = inquest or Inquest(SPEC.output, None, {})
    with Crew(ray, SPEC, actors, Path("token"), said.append, inquest) as crew:
        assert crew.open(SIGNAL) == PINNED
        crew.make(list(Plan(2 * count, 2)), SIGNAL, told)
    assert len(ray.killed) >= len(ray.made)
    return told.made, said


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
        if task.actor == 1 and task.method == "make_shard" and task.argument.number > 8:
            raise RayError("its node has died")
        if task.actor == 2 and not replaced:
            return None  # no room for it
        return well(task)

    ray, told = FakeRay(answer), Told()
    made, said = make(ray, 20, told=told)
    assert sorted(made) == list(range(20))
    assert len(ray.made) == 3
    assert "ray: lost the engine on node node-1; 2 shards go to others" in said
    (death,) = [event for event in told.events if event["event"] == "death"]
    assert (death["worker"], death["node"], death["how"]) == (1, "node-1", "its node has died")
    assert len(death["shards"]) == 2
    assert min(death["shards"]) > 8
    restarts = [event for event in told.events if event["event"] == "restart"]
    assert restarts == [{"event": "restart", "worker": 2, "node": "node-2"}] * replaced
    by = Counter(task.actor for task in ray.told if task.method == "make_shard")
    assert (by[2] > 0) == replaced


def sources(count: int) -> Sources:
    return Sources("", range(count), [f"source-{index}" for index in range(count)])


def deadly(*poisoned: int) -> Callable[[Task], object]:
    """Actors die of these inputs, where they are not left out."""

    def answer(task: Task) -> object:
        if isinstance(task.argument, Shard):
            inputs = range(task.argument.first, task.argument.first + task.argument.count)
            if set(poisoned) & (set(inputs) - set(task.skipped)):
                raise ActorDiedError("SIGSEGV")
        return well(task)

    return answer


@pytest.mark.parametrize("poisoned", [[11], [10, 11], [0, 39]])
def test_an_input_that_actors_die_of_is_quarantined(tmp_path, poisoned):
    ray, told, output = FakeRay(deadly(*poisoned)), Told(), Output(tmp_path)
    inquest = Inquest(output, sources(40), {})
    made, said = make(ray, 20, told=told, inquest=inquest)
    assert sorted(made) == list(range(20))
    reason = "ends the process that works on it (as a Ray actor)"
    assert told.left_out == inquest.skipped == dict.fromkeys(poisoned, reason)
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(lines, key=lambda line: line["index"]) == [
        {"index": index, "source": f"source-{index}", "reason": reason} for index in poisoned
    ]
    events = [event for event in told.events if event["event"] == "quarantine"]
    assert sorted(event["index"] for event in events) == poisoned
    assert f"ray: input {poisoned[0]} is quarantined: it {reason}" in said


@pytest.mark.parametrize(
    "blame", ["sampled", "black slices", "no single input"], ids=lambda name: name.replace(" ", "-")
)
def test_a_shard_that_actors_die_of_ends_the_job(tmp_path, blame):
    def answer(task: Task) -> object:
        of_five = task.method != "open" and task.argument.first // 2 == 5
        if of_five and (task.method == "make_shard" or blame == "black slices"):
            raise ActorDiedError("SIGSEGV")
        return well(task)

    inquest = Inquest(Output(tmp_path), None if blame == "sampled" else sources(40), {})
    told = r"slices 10 to 11 end every worker that makes them \(as a Ray actor\): "
    with pytest.raises(Casualty, match=told) as raised:
        make(FakeRay(answer), 20, inquest=inquest)
    assert inquest.skipped == {}
    refusal = raised.value.refusal(Output(tmp_path), 40, 6)
    assert isinstance(refusal, ModelRefused)
    assert "; 6 of 40 slices are safe, and the same command goes on" in str(refusal)


@pytest.mark.parametrize("method", ["make_shard", "survive"])
@pytest.mark.parametrize("known", ["by then", "soon", "never"])  # that it is the node
def test_nothing_is_blamed_for_the_death_of_its_node(tmp_path, monkeypatch, method, known):
    dead: dict[int, Shard] = {}  # by actor, which has a node of its own

    def answer(task: Task) -> object:
        if task.method == "open":
            return Opened("", f"id-{task.actor}", PINNED)
        of_ten = task.argument in (Shard(5, 10, 2), Shard(5, 10, 1)) and 10 not in task.skipped
        if task.method == method and of_ten and len(dead) < DEATHS - 1:
            dead.setdefault(task.actor, task.argument)
        if task.actor in dead:
            if known == "never":
                raise RayError("is unavailable")
            if known == "by then":
                ray.gone.add(task.actor)
            raise ActorDiedError("its node has died")
        return deadly(11)(task) if searched else well(task)

    ray, searched = FakeRay(answer, cpus=(1,) * 12), method == "survive"
    monkeypatch.setattr(room.time, "sleep", lambda _: ray.gone.update(dead))
    inquest = Inquest(Output(tmp_path), sources(40) if searched else None, {})
    made, _ = make(ray, 20, 2, inquest=inquest)
    assert sorted(made) == list(range(20))
    assert set(dead.values()) == {Shard(5, 10, 1 if searched else 2)}
    assert len(dead) == DEATHS - 1
    assert list(inquest.skipped) == ([11] if searched else [])


def test_a_shard_that_nodes_die_of_ends_the_job():
    def answer(task: Task) -> object:
        if task.method == "make_shard" and task.argument.number == 5:
            raise RayError("its node has died")
        return well(task)

    told = rf"slices 10 to 11 .* \({DEATHS} times; the last time its node has died\)"
    with pytest.raises(Casualty, match=told):
        make(FakeRay(answer), 20)


def test_workers_are_those_whose_engines_are_open():
    opening = []

    def answer(task: Task) -> object:
        if task.method == "open" and task.actor == 2:
            opening.append(task)
            return well(task) if len(opening) > 20 else None
        if task.method == "make_shard" and task.actor == 1 and task.argument.number > 8:
            raise RayError("lost")
        return None if task.method == "open" and task.actor > 2 else well(task)

    ray, told = FakeRay(answer), Told()
    with Crew(ray, SPEC, 3, Path("token"), print, Inquest(SPEC.output, None, {})) as crew:
        crew.open(SIGNAL)
        while crew.size < 2:
            list(crew._done())
        assert len(crew.members) == 3
        crew.make(list(Plan(60, 2)), SIGNAL, told)
    assert told.sizes == [1, 2]  # one is lost, another opens late


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
        told, before = Told(), log.now()
        made, _ = make(ray, 6, told=told)
        assert made == list(range(6))
        first = told.events[0]  # kept until there was a log
        assert first.items() >= {"event": "death", "node": None, "shards": []}.items()
        assert before <= first["at"] <= log.now()
        kinds = [event["event"] for event in told.events if event["event"] != "workers"]
        assert set(kinds) == {"death"}  # none that was to replace one opened its engine
    else:
        with pytest.raises(ModelRefused, match=r"before they had opened it.*out of memory"):
            make(ray, 6)
    assert len(ray.made) <= 2 + 2 * DEATHS  # replacing them has an end; one that opens begins anew


def test_engines_that_differ_are_refused():
    def answer(task: Task) -> object:
        if task.actor == 1 and task.method == "open":
            return Opened("other", "id-1", PINNED | {"instruction_set": "avx2"})
        return well(task)

    with pytest.raises(UsageError, match=r"node other: instruction_set is 'avx2' there and None"):
        make(FakeRay(answer), 50)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), UsageError("no"), ZeroDivisionError()]
)
def test_what_an_actor_raises_comes_here(error):
    def answer(task: Task) -> object:
        if task.method == "make_shard" and task.argument.number == 3:
            raise error
        return well(task)

    with pytest.raises(type(error)) as raised:
        make(FakeRay(answer), 9)
    assert raised.value is error


def test_a_stopped_job_counts_what_was_in_hand():
    signal = StopSignal()
    ray = FakeRay(well)

    def stop() -> None:
        signal.stopped = len(told.made) >= 4

    told = Told(stop)
    with Crew(ray, SPEC, 1, Path("token"), print, Inquest(SPEC.output, None, {})) as crew:
        crew.open(signal)
        crew.make(list(Plan(40, 2)), signal, told)
    assert told.made == [0, 1, 2, 3, 4]  # the one that was waiting there
    assert [task.method for task in ray.told].count("stop") == 1


def test_stopped_before_an_engine_is_open(monkeypatch):
    signal = StopSignal()
    signal.stopped = True
    with (
        Crew(FakeRay(lambda task: None), SPEC, None, Path("token"), print, NOTHING) as crew,
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


def test_status_and_log_tell_how_many_workers_there_are(write_model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text('{"count": 4}')
    spec = JobSpec(Engine(write_model()), Sampled(4), Output(out))
    with Watch(spec.work(read_model(spec.engine.model)), spec.output, 0, workers=2) as watch:
        watch.staffed(1)
    assert json.loads((out / "status.json").read_text())["workers"] == 1  # at the end
    (run,) = history.read(out).runs
    assert run.workers == 2  # at most


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
