"""Jobs in worker processes: the same bytes whatever their number, and whatever becomes of them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from PIL import Image

from fastmrigan.cli import main
from fastmrigan.errors import DiskFull, InputRejected, MissingDependency, ModelRefused, UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import log, process, quarantine, receipts, supervisor
from fastmrigan.jobs.messages import Failed
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.run import JobResult, run
from fastmrigan.jobs.search import Search
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.spec import Engine, JobSpec, Sampled, Translated
from fastmrigan.jobs.verify import verify
from fastmrigan.runtime.engine_file import read_model
from fastmrigan.runtime.machine import usable_cores

WORKER = Path(__file__).parents[1] / "support" / "job_worker.py"
INPUTS = 37


def slow(*values: object):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """No test waits for its workers without end."""

    def late(*_: object) -> None:
        raise TimeoutError("the job has come to no end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def fault(monkeypatch) -> Callable[..., None]:
    """fault(KIND, ARGUMENT) gives every worker that fault; `job_worker.py` lists them."""

    def have(kind: str, argument: object = "") -> None:
        monkeypatch.setattr(process, "COMMAND", command_of(kind, argument))

    return have


def command_of(kind: str, argument: object) -> tuple[str, ...]:
    return (sys.executable, "-P", str(WORKER), kind, str(argument))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A prepared dataset of 37 slices of noise."""
    folder = tmp_path_factory.mktemp("data")
    dice = np.random.default_rng(0)
    (folder / "png").mkdir()
    for number in range(INPUTS):
        x = dice.integers(0, 256, (tiny.SIZE, tiny.SIZE), dtype=np.uint8)
        Image.fromarray(x).save(folder / "png" / f"{number:02}.png")
    prepare(folder / "png", folder / "set", PrepareOptions(size=tiny.SIZE, contrast="t1", label=""))
    return folder / "set"


@pytest.fixture
def translated(write_model, data, tmp_path) -> Callable[..., JobSpec]:
    """translated(OUT) makes negatives, in 5 shards of 8 slices, two calls each."""
    document = tiny.metadata(task="translate", latent_size=None, source_contrast="t1")
    engine = Engine(write_model(document, tiny.tiny_graph("translate"), "n.onnx"), "auto", "fp32")

    def spec(out: str, inputs: Path = data, format: str = "shard") -> JobSpec:
        output = Output(tmp_path / out, format, 8)
        return JobSpec(with_threads(engine, batch=4), Translated(inputs), output)

    return spec


@pytest.fixture
def sampled(write_model, tmp_path) -> Callable[..., JobSpec]:
    """sampled(OUT, COUNT) makes shards of 16 slices, two calls each."""
    engine = with_threads(Engine(write_model(), "auto", "fp32"), batch=8)

    def spec(out: str, count: int = 100) -> JobSpec:
        return JobSpec(engine, Sampled(count, 7), Output(tmp_path / out, "shard", 16))

    return spec


def with_threads(engine: Engine, batch: int, threads: int | None = 1) -> Engine:
    return Engine(engine.model, engine.backend, engine.precision, threads, batch)


def supervise(spec: JobSpec, workers: int) -> JobResult:
    return supervisor.supervise(spec, spec.work(read_model(spec.engine.model)), workers)


def digests(out: Path) -> dict[str, str]:
    """sha256 of every shard and receipt, and of what pins them."""
    files = [*out.glob("s*-0*"), *out.glob("receipts/*"), out / "run.json"]
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }


def events(out: Path, *kinds: str) -> list[dict[str, object]]:
    """What the log tells of these kinds."""
    return [line for line in log.read(out / log.NAME)[0] if line["event"] in kinds]


def indices(out: Path) -> list[int]:
    return [index for index, _ in read_slices(out)]


def children(pid: int) -> list[int]:
    """Processes that `pid` has started, and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    yield
    assert children(os.getpid()) == []


@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        ("sampled", 1),
        ("sampled", 3),
        ("translated", 2),
        slow("sampled", 2),
        slow("translated", 1),
        slow("translated", 3),
    ],
)
def test_any_number_of_workers_makes_the_same_bytes(request, kind, workers):
    make = request.getfixturevalue(kind)
    whole, spec = make("whole"), make("out")
    run(whole.open())
    result = supervise(spec, workers)
    assert result.slices == result.made == (100 if kind == "sampled" else INPUTS)
    assert digests(spec.output.out) == digests(whole.output.out)
    assert not list(spec.output.out.rglob("*.tmp"))


def test_a_resumed_job_makes_what_is_missing_and_nothing_else(sampled):
    spec = sampled("out")
    supervise(spec, 2)
    out = spec.output.out
    before = digests(out)
    (out / "shard-000002.tar").unlink()
    (out / "shard-000004.tar.tmp").write_bytes(b"half a shard")
    result = supervise(spec, 2)
    assert (result.slices, result.made) == (100, 16)
    assert digests(out) == before
    assert supervise(spec, 2).made == 0


@pytest.mark.parametrize("workers", [2, slow(1), slow(64)])
def test_the_cores_are_shared_out(write_model, tmp_path, workers):
    engine = Engine(write_model(), "auto", "fp32", None, 8)
    spec = JobSpec(engine, Sampled(16), Output(tmp_path / "out"))
    supervise(spec, workers)
    pinned = json.loads((tmp_path / "out" / "run.json").read_text())
    assert pinned["threads"] == max(1, usable_cores() // workers)


def test_an_engine_on_the_gpu_takes_no_threads(tmp_path):
    spec = JobSpec(Engine(tmp_path / "tiny.engine"), Sampled(16), Output(tmp_path / "out"))
    assert supervisor.of_each(spec, 2) == spec


def test_no_more_workers_start_than_there_are_shards(sampled):
    spec, told = sampled("out", 20), []
    work = spec.work(read_model(spec.engine.model))
    supervisor.supervise(spec, work, 8, lambda ready, workers: told.append((ready, workers)))
    ((ready, workers),) = told
    assert workers == 2
    assert ready.pinned == json.loads((spec.output.out / "run.json").read_text())


@pytest.mark.parametrize("workers", [0, -1, 257])
def test_a_number_that_cannot_be_meant_is_refused(sampled, workers):
    with pytest.raises(UsageError, match=f"--workers {workers}: expected 1 to 256"):
        supervise(sampled("out"), workers)


def test_another_job_in_the_same_folder_is_refused(sampled):
    spec = sampled("out", 32)
    supervise(spec, 1)
    other = JobSpec(with_threads(spec.engine, 8, threads=2), spec.inputs, spec.output)
    with pytest.raises(UsageError, match=r"run\.json: .* is .* there and .* here"):
        supervise(other, 2)


def test_a_worker_that_differs_is_refused(sampled, fault):
    fault("isa", "baseline")
    spec = sampled("out", 4096)
    told = r"worker \d would make other bytes: its instruction_set is '.+', the first one's '.+'; "
    with pytest.raises(UsageError, match=told):
        supervise(spec, 2)


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_a_worker_that_dies_is_replaced(sampled, fault, tmp_path, workers, capsys):
    whole, spec = sampled("whole"), sampled("out")
    run(whole.open())
    fault("once", tmp_path / "died")
    assert supervise(spec, workers).made == 100
    assert digests(spec.output.out) == digests(whole.output.out)
    assert not list(spec.output.out.rglob("*.tmp"))
    assert " ended (SIGABRT); what it had is made again" in capsys.readouterr().err
    death, restart = events(spec.output.out, "death", "restart")
    assert (death["event"], restart["event"]) == ("death", "restart")
    assert death["how"] == "SIGABRT"
    assert 0 <= death["worker"] == restart["worker"] < workers
    assert death["pid"] != restart["pid"]
    assert death["shards"]
    assert set(death["shards"]) <= set(range(7))
    assert f"death, worker {death['worker']}, " in (spec.output.out / "job.html").read_text()


def test_a_worker_that_dies_before_its_engine_is_open_is_told(sampled, fault, tmp_path):
    fault("unready", tmp_path / "died")
    spec = sampled("out")
    assert supervise(spec, 1).made == 100
    death, restart = events(spec.output.out, "death", "restart")
    assert (death["worker"], death["how"], death["shards"]) == (0, "SIGABRT", [])
    assert (restart["event"], restart["worker"]) == ("restart", 0)


@pytest.mark.parametrize(
    ("poisoned", "workers"),
    [
        ([9], 2),
        slow([8, 11, 15], 1),  # of one shard: two in one call, one in the other
        slow([0, 36], 2),  # first and last; the last shard has a single call
    ],
)
def test_a_poisoned_input_is_quarantined_and_the_rest_is_made(
    translated, data, fault, poisoned, workers
):
    whole, spec = translated("whole"), translated("out")
    out = spec.output.out
    run(whole.open())
    fault("poison", f"{data}:{','.join(map(str, poisoned))}")
    result = supervise(spec, workers)
    assert (result.slices, result.quarantined) == (INPUTS, len(poisoned))
    assert indices(out) == [i for i in range(INPUTS) if i not in poisoned]
    made = dict(read_slices(out))
    assert all(np.array_equal(x, made[i]) for i, x in read_slices(whole.output.out) if i in made)
    reason = "ends the process that works on it (SIGABRT)"
    records = PreparedDataset.open(data).records
    lines = [json.loads(line) for line in (out / quarantine.NAME).read_text().splitlines()]
    assert sorted(lines, key=lambda line: line["index"]) == [
        {"index": i, "source": records[i].source, "reason": reason} for i in poisoned
    ]
    assert receipts.left_out(out) == dict.fromkeys(poisoned, reason)
    told = events(out, "quarantine")
    assert sorted((line["index"], line["why"]) for line in told) == [(i, reason) for i in poisoned]
    deaths = events(out, "death")
    assert {line["how"] for line in deaths} == {"SIGABRT"}
    assert {number for line in deaths for number in line["shards"]} >= {i // 8 for i in poisoned}
    assert len(events(out, "restart")) == len(deaths)
    before = digests(out)
    touched = {f"shard-{i // 8:06}.tar" for i in poisoned}
    assert {name for name in before if name.endswith(".tar")} >= touched
    unlike = {n for n, digest in digests(whole.output.out).items() if before[n] != digest}
    assert unlike == touched | {f"receipts/{name}.json" for name in touched}
    for name in touched:
        (out / name).unlink()
    assert supervise(spec, 1).quarantined == len(poisoned)  # with the same fault
    assert digests(out) == before
    for name in touched:
        (out / name).unlink()
    assert run(spec.open()).quarantined == len(poisoned)  # and in this process
    assert digests(out) == before


def test_a_dataset_is_read_through_once(translated, fault):
    spec = translated("out")
    fault("unread")
    assert supervise(spec, 1).made == INPUTS


def test_what_has_changed_since_is_read_through_again(translated, data, tmp_path):
    slices = shutil.copytree(data, tmp_path / "set") / "slices.npy"
    spec = translated("out", tmp_path / "set")
    work = spec.work(read_model(spec.engine.model))
    known = spec.read_through(work)

    def harm() -> None:
        time.sleep(0.05)  # as far apart as a file system tells times apart
        with slices.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            (last,) = file.read()
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))

    spec.check_unchanged(work)
    harm()  # after its bytes were found to be those of its fingerprint, before the job starts
    changed = "its bytes are not those of its fingerprint"
    with pytest.raises(InputRejected, match=changed):
        supervisor.supervise(spec, work, 1)
    with pytest.raises(InputRejected, match=changed):
        known.open()
    with pytest.raises(UsageError, match="set: was changed since the job was planned; run the"):
        spec.check_unchanged(work)
    harm()
    assert len(known.open().plan) == 5  # whole again
    assert supervisor.supervise(spec, work, 1).made == INPUTS


def test_a_set_that_was_prepared_anew_since_is_refused(translated, data, tmp_path):
    """Whole in itself, and another one than the job was planned for."""
    shutil.copytree(data, tmp_path / "set")
    spec = translated("out", tmp_path / "set")
    work = spec.work(read_model(spec.engine.model))
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((data.parent / "png").iterdir())[:20]:
        shutil.copy(path, few)
    shutil.rmtree(tmp_path / "set")
    prepare(few, tmp_path / "set", PrepareOptions(size=tiny.SIZE, contrast="t1", label=""))
    with pytest.raises(UsageError, match=r"out: dataset was '\w+' when .* changed; run the same"):
        supervisor.supervise(spec, work, 1)
    assert not (spec.output.out / "run.json").exists()


def test_the_command_says_what_was_quarantined(translated, data, fault, monkeypatch, capsys):
    spec = translated("out")
    fault("poison", f"{data}:3")
    out = spec.output.out
    command = ["translate", spec.engine.model, "--inputs", data, "--out", out, "--batch", 4]
    code = run_command(monkeypatch, *command, "--workers", 1)
    stdout, stderr = capsys.readouterr()
    assert code == 3
    assert stdout.splitlines()[0].startswith("1 worker: openvino ")
    assert f"{out}: 37 slices, 37 made now" in stdout
    told = f"1 input quarantined, which ended the processes that worked on them (see {out}/"
    assert told in stderr.splitlines()[-1]
    assert "worker 0 ended (SIGABRT)" in stderr
    assert run_command(monkeypatch, *command, "--workers", 1) == 3  # nothing left to make
    assert told in capsys.readouterr().err


def run_command(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["fastmrigan", *map(str, arguments)])
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this process keeps its own
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.fixture
def volumes(tmp_path) -> Path:
    """A prepared dataset of two series of 5 slices."""
    nibabel = pytest.importorskip("nibabel")
    dice = np.random.default_rng(0)
    (tmp_path / "volumes").mkdir()
    for number in range(2):
        x = dice.integers(1, 4096, (tiny.SIZE, tiny.SIZE, 5)).astype(np.int16)
        image = nibabel.Nifti1Image(x, np.diag([1, 1, 3, 1]))
        image.to_filename(tmp_path / "volumes" / f"{number}.nii.gz")
    options = PrepareOptions(size=tiny.SIZE, contrast="t1", label="")
    prepare(tmp_path / "volumes", tmp_path / "set", options)
    return tmp_path / "set"


@pytest.mark.parametrize("workers", [0, slow(2)])
def test_a_series_with_a_hole_has_no_volume(translated, volumes, fault, workers, capsys):
    spec = translated("out", volumes, "nifti")
    out = spec.output.out
    if workers:
        fault("poison", f"{volumes}:6")
        result = supervise(spec, workers)
    else:  # as that left it
        out.mkdir()
        quarantine.add(out, 6, "somebody", "ends the process that works on it (SIGABRT)")
        result = run(spec.open())
    assert (result.slices, result.quarantined) == (10, 1)
    assert [path.name for path in out.glob("series-*")] == ["series-000001.nii.gz"]
    receipt = receipts.read(receipts.path_of(out, "series-000002.nii.gz"))
    assert receipt.files == {}
    assert sorted(receipt.left_out) == [5, 6, 7, 8, 9]
    assert receipt.left_out[6] == "ends the process that works on it (SIGABRT)"
    assert "a volume has no holes" in receipt.left_out[7]
    assert run(spec.open()).made == 0  # it is not tried again


@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_receipt_of_a_volume_is_discarded(translated, volumes, number):
    """Volume 1 is there; of volume 2, which has a hole, the receipt is all there is."""
    spec = translated("out", volumes, "nifti")
    out = spec.output.out
    out.mkdir()
    quarantine.add(out, 6, "somebody", "ends the process that works on it (SIGABRT)")
    run(spec.open())
    before = digests(out)
    name = f"series-{number:06}.nii.gz"
    path = receipts.path_of(out, name)
    path.write_bytes(path.read_bytes()[:-1])
    found = verify(out)
    assert found.damaged == {name: "has a damaged receipt"}
    assert (found.slices, found.left_out) == ((0, 5) if number == 1 else (5, 0))
    assert path.exists()
    assert verify(out, discard=True).damaged == found.damaged
    assert [each.name for each in (out / "receipts").iterdir()] == [
        f"series-{3 - number:06}.nii.gz.json"
    ]
    run(spec.open())
    assert digests(out) == before
    assert verify(out).whole


def test_a_slice_that_ends_every_worker_ends_a_sampled_job(sampled, fault):
    fault("latents", 40)
    spec = sampled("out")
    told = (
        r"slices 32 to 47 end every worker that makes them \(SIGABRT\): .*; \d\d of 100 slices are "
        "safe, and the same command goes on from there"
    )
    with pytest.raises(ModelRefused, match=told):
        supervise(spec, 2)
    assert not list(spec.output.out.rglob("*.tmp"))


@pytest.mark.slow
def test_where_black_slices_end_workers_no_input_is_to_blame(translated, fault, tmp_path):
    spec = translated("out")
    np.save(tmp_path / "slices.npy", np.zeros((1, tiny.SIZE, tiny.SIZE), np.uint16))
    fault("poison", f"{tmp_path}:0")
    spec.output.out.mkdir()
    quarantine.add(spec.output.out, 12, "somebody", "known")  # which makes a call with black in it
    with pytest.raises(ModelRefused, match="slices 8 to 15 end every worker"):
        supervise(spec, 1)
    assert quarantine.read(spec.output.out) == {12: "known"}


@pytest.mark.parametrize(("number", "workers"), [(0, 1), slow(1, 2)])
def test_a_worker_that_never_starts_ends_the_job(sampled, fault, number, workers):
    fault("start", number)
    told = rf"worker {number} ended 3 times before .* \(SIGABRT\): .*; [0-9,]+ of 40,000 slices"
    with pytest.raises(ModelRefused, match=told):
        supervise(sampled("out", 40_000), workers)


def test_a_full_disk_keeps_what_is_done_and_resumes(sampled, fault):
    whole, spec = sampled("whole"), sampled("out")
    run(whole.open())
    fault("full", 3)
    with pytest.raises(DiskFull, match=r"no space left; (\d+) of 100 slices are safe") as full:
        supervise(spec, 2)
    assert full.value.exit_code == 4
    out = spec.output.out
    there = sum(len(list_of(shard)) for shard in out.glob("shard-*.tar"))
    assert f"; {there} of 100" in str(full.value)
    assert not list(out.rglob("*.tmp"))
    fault("none")
    supervise(spec, 2)
    assert digests(out) == digests(whole.output.out)


def list_of(shard: Path) -> list[str]:
    import tarfile

    with tarfile.open(shard) as tar:
        return [name for name in tar.getnames() if name.endswith(".npy")]


def test_what_a_worker_refuses_comes_back_as_itself(translated, data, fault):
    fault("harmed", f"{data}:20")
    with pytest.raises(ModelRefused) as refused:
        supervise(translated("out"), 2)
    assert str(refused.value) == "no such input"
    assert refused.value.exit_code == 5
    spec = translated("other")
    gone = JobSpec(spec.engine, spec.inputs, spec.output)
    work = gone.work(read_model(gone.engine.model))
    gone.engine.model.unlink()
    with pytest.raises(UsageError, match=r"n\.onnx"):
        supervisor.supervise(gone, work, 1)


def made_whole(sampled: Callable[..., JobSpec], count: int, known: dict = {}) -> dict[str, str]:  # noqa: B006
    """`digests` of an undisturbed job."""
    if count not in known:
        spec = sampled("whole", count)
        supervise(spec, 1)
        known[count] = digests(spec.output.out)
    return known[count]


def start(fault: str, argument: object, *command: object) -> subprocess.Popen[str]:
    """The command line, in a process of its own, with workers that have a fault."""
    code = (
        "import sys; from fastmrigan.jobs import process, supervisor; "
        f"process.COMMAND = {command_of(fault, argument)!r}; supervisor.GRACE_SECONDS = 2.0; "
        f"sys.argv = ['fastmrigan', *{[str(a) for a in command]!r}]; "
        "from fastmrigan.cli import main; main()"
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def long_job(spec: JobSpec) -> list[object]:
    fixed = ["synth", spec.engine.model, "--out", spec.output.out, "--seed", 7, "--shard-size", 16]
    fixed += ["--batch", 8, "--threads", 1, "--precision", "fp32"]
    return [*fixed, "--count", spec.inputs.count, "--workers", 2]


def wait_for_shards(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while len(list(out.glob("shard-*.tar"))) < count:
        assert process.poll() is None, "the job ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.001)


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


def test_devices_are_shared_out(monkeypatch, tmp_path, sampled):
    monkeypatch.setattr(process, "visible_devices", lambda: ["0", "3"])
    for backend, model, expected in [
        ("tensorrt", "m.engine", ["0", "3"]),
        ("auto", "m.engine", ["0", "3"]),
        ("onnxruntime-cuda", "m.onnx", ["0", "3"]),
        ("auto", "m.onnx", []),
        ("openvino", "m.onnx", []),
    ]:
        assert process.devices_for(Engine(Path(model), backend)) == expected
    told = (
        "import os, sys; from multiprocessing.connection import Connection; "
        "Connection(int(sys.argv[1])).send(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    )
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", told))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    for device in ("3", "GPU-8932f937"):
        worker = process.Worker(0, sampled("out"), device)
        assert worker.channel.recv() == device
        assert worker.end(10) == 0


def test_quarantine_that_is_not_ours_is_named(tmp_path):
    assert quarantine.read(tmp_path) == {}
    quarantine.add(tmp_path, 5, "ab", "one")
    quarantine.add(tmp_path, 3, "cd", "two")
    assert quarantine.read(tmp_path) == {5: "one", 3: "two"}
    for text in ("no json", '{"index": 1}', "[]", '{"index": "x", "reason": ""}'):
        (tmp_path / quarantine.NAME).write_text(text)
        with pytest.raises(UsageError, match=r"quarantine\.jsonl: not a job's list of inputs"):
            quarantine.read(tmp_path)


def test_inputs_that_jobs_name_at_the_same_moment_are_all_named(tmp_path):
    """Threads, since what races are system calls; jobs of other shards are other processes."""
    start = threading.Barrier(16)

    def name(index: int) -> None:
        start.wait()
        quarantine.add(tmp_path, index, "ab", str(index))

    threads = [threading.Thread(target=name, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert quarantine.read(tmp_path) == {index: str(index) for index in range(16)}


def test_an_input_is_named_in_no_folder_that_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError):
        quarantine.add(tmp_path / "gone", 5, "ab", "one")
    assert not (tmp_path / "gone").exists()


def test_no_device_without_a_driver():
    from fastmrigan.runtime.cuda_driver import first_device, visible_devices

    assert (visible_devices() == []) == (first_device() is None)


class OddError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Stateful(Exception):
    """What it says is not in its arguments."""

    def __str__(self) -> str:
        return self.text


def stateful() -> Stateful:
    error = Stateful()
    error.text = "remembered"
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (UsageError("told"), UsageError, "told"),
        (MissingDependency("pydicom", "dicom", "reading"), MissingDependency, "pip install"),
        (OSError(28, "No space left", "x"), OSError, r"\[Errno 28\] No space left: 'x'"),
        (FileNotFoundError(2, "No such file", "y"), FileNotFoundError, "'y'"),
        (KeyError("k"), KeyError, "'k'"),
        (OddError("one", "two"), OddError, "one and two"),
        (stateful(), RuntimeError, "Stateful: remembered"),
        (ValueError(lambda: None), RuntimeError, "ValueError: <function"),
        (type("Local", (Exception,), {})("a"), RuntimeError, "Local: a"),
    ],
)
def test_errors_cross_processes(error, kind, text):
    try:
        raise error from ValueError("two\nlines")
    except Exception as raised:
        sent = pickle.dumps(Failed.of(raised))
    again = pickle.loads(sent).error()
    assert type(again) is kind
    assert re.search(text, str(again))
    assert getattr(again, "errno", None) == getattr(error, "errno", None)
    assert getattr(again, "filename", None) == getattr(error, "filename", None)
    assert str(again.__cause__) == "two\nlines"
    assert "In a worker: " in again.__notes__[0]
    assert "test_errors_cross_processes" in again.__notes__[0]


@pytest.mark.parametrize(
    ("count", "size", "poisoned", "deaths"),
    [
        (8, 4, [9], 2),  # a call, then an input
        (8, 4, [8, 11, 15], 5),  # two calls, three inputs
        (5, 4, [12], 1),  # alone in its call
        (4, 4, [10], 1),  # of a single call, its inputs at once
        (1, 4, [8], 1),
        (8, 4, [], 0),
    ],
)
def test_a_search_finds_each_input_and_nothing_else(count, size, poisoned, deaths):
    search, found, died = Search(Shard(1, 8, count), size), [], 0
    first = search.next_try({})
    assert set(first.skipped) == set(range(8, 8 + first.piece.count))  # all black
    search.survived()
    tried = []
    while search.pieces:
        order = search.next_try(dict.fromkeys(found, "known"))
        piece = order.piece
        inputs = set(range(piece.first, piece.first + piece.count))
        if inputs & set(poisoned):
            died += 1
            index = search.died()
            assert (index is None) == (piece.count > 1)
            found += [] if index is None else [index]
        else:
            tried += inputs
            search.survived()
    assert (found, died) == (poisoned, deaths)
    assert sorted(tried) == [i for i in range(8, 8 + count) if i not in poisoned]
