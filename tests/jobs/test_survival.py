"""What else befalls a job: a clock that jumps, a folder that is taken away, notes that are torn,
another job's settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_model as tiny
from job_process import JobProcess, command_of, contents, finished, half_made

from fastmrigan.errors import UsageError
from fastmrigan.jobs import job
from fastmrigan.jobs.ours import settings_of
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.spec import Engine, JobSpec, Sampled
from fastmrigan.jobs.verify import verify
from fastmrigan.runtime import load
from fastmrigan.runtime.backends.base import MODES, BackendOptions

CLOCK = Path(__file__).parents[1] / "support" / "clock.py"
COUNT, SIZE = 80, 8
YEARS = 365.25 * 86_400  # seconds


def synth(model: Path, out: Path, *more: object) -> list[str]:
    plan = ("--count", COUNT, "--shard-size", SIZE, "--seed", 7, "--batch", 8)
    return command_of("synth", model, "--out", out, *plan, *more)


@pytest.fixture
def make(write_model) -> Callable[[Path], int]:
    """make(out) runs the job into a folder, in this process; gives how many slices it made."""
    generator = load(write_model(), batch=8)
    return lambda out: synthesise(generator, JobOptions(out, COUNT, 7, shard_size=SIZE)).made


@pytest.mark.slow
@pytest.mark.parametrize("format", ["shard", "npz", "png", "dicom", "dicom-files"])
def test_a_clock_that_is_wrong_and_jumps(write_model, tmp_path, format):
    """Neither bytes nor what is left to do depend on the time of day, or on files' times."""
    model, out, whole = write_model(), tmp_path / "out", tmp_path / "whole"
    with JobProcess(synth(model, whole, "--format", format), whole) as right:
        assert right.wait() == 0, right.said()
    for offset, lost in ((-40 * YEARS, range(2, 5)), (30 * YEARS, [])):
        command = synth(model, out, "--format", format)
        command = [
            command[0],
            "-P",
            str(CLOCK),
            str(offset),
            *command[command.index("fastmrigan") + 1 :],
        ]
        with JobProcess(command, out) as wrong:
            assert wrong.wait() == 0, wrong.said()
        assert contents(out) == contents(whole)
        for name in [finished(out)[number] for number in lost]:
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()


TAKEN = "was removed, moved or replaced while this job ran"


@pytest.mark.parametrize("how", ["removed", "moved", "emptied", "replaced by another job's"])
@pytest.mark.parametrize("format", ["shard", "png"])
def test_a_folder_that_is_taken_away(write_model, tmp_path, monkeypatch, how, format):
    """Nothing is written there any more, be there nothing, an empty folder or another job's."""
    model = write_model()
    out, aside = tmp_path / "out", tmp_path / "aside"
    other = JobOptions(out, COUNT, 8, format, SIZE)  # of another seed
    there = {}
    real = job.commit

    def commit(folder, fmt, content, origin):
        result = real(folder, fmt, content, origin)
        if content.shard.number == 3 and origin.seed == 7:
            out.rename(aside)
            if how != "moved":
                shutil.rmtree(aside)
            if how == "emptied":
                out.mkdir()
            elif how == "replaced by another job's":
                synthesise(load(model, batch=8), other)
                there.update(contents(out))
        return result

    monkeypatch.setattr(job, "commit", commit)
    with pytest.raises(UsageError, match=TAKEN) as ended:
        synthesise(load(model, batch=8), JobOptions(out, COUNT, 7, format, SIZE))
    assert "\n" not in str(ended.value)
    if how == "replaced by another job's":
        assert contents(out) == there
        assert [index for index, _ in read_slices(out)] == list(range(COUNT))
    else:
        assert out.exists() == (how == "emptied")
        assert not list(out.glob("shard-*"))
        assert not list(out.glob("receipts/*"))
    if how == "moved":
        assert len(finished(aside)) == 4
        assert not half_made(aside)
        aside.rename(out)  # back again
        synthesise(load(model, batch=8), JobOptions(out, COUNT, 7, format, SIZE))
        assert verify(out).whole


@pytest.mark.slow
def test_a_folder_removed_under_a_process(write_model, tmp_path):
    out = tmp_path / "out"
    command = command_of("synth", write_model(), "--out", out, "--count", 200_000, "--batch", 8)
    with JobProcess([*command, "--shard-size", "16"], out) as started:
        started.wait_for(3)
        aside = out.rename(tmp_path / "aside")  # rm -r may find a folder filled while it empties it
        shutil.rmtree(aside)
        assert started.wait() == 2
        assert TAKEN in started.said().splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "unreadable"),
        (b'{\n  "layout": 1,\n  "model_sha', "unreadable"),
        (b"\xff\xfe\x00", "unreadable"),
        (b"[1]", "unreadable"),
        (b"null", "unreadable"),
        (b"{}", "layout is None there and 1 here"),
    ],
)
def test_a_run_json_that_is_torn(make, tmp_path, content, told):
    """Nothing is guessed: which model and seed the shards are of, nobody knows any more."""
    out = tmp_path / "out"
    make(out)
    before = contents(out)
    (out / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match=rf"run\.json: {told}.*; .*take another --out"):
        make(out)
    assert {**contents(out), "run.json": before["run.json"]} == before


def receipts_as_a_file(out: Path) -> None:
    shutil.rmtree(out / "receipts")
    (out / "receipts").write_text("")


def receipt_as_a_folder(out: Path) -> None:
    path = out / "receipts" / "shard-000003.tar.json"
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (receipts_as_a_file, "receipts: cannot write: File exists"),
        (receipt_as_a_folder, r"shard-000003\.tar\.json.*: cannot write: Is a directory"),
    ],
)
def test_receipts_that_cannot_be_written(make, tmp_path, fastmrigan, harm, named):
    out = tmp_path / "out"
    make(out)
    before = contents(out)
    harm(out)
    told = fastmrigan("verify", out)
    assert told.returncode == 6
    assert "shard-000003.tar: has a receipt that cannot be read: " in told.stdout
    (out / "shard-000003.tar").unlink()
    with pytest.raises(UsageError, match=named):
        make(out)
    assert "shard-000003.tar" not in finished(out)
    assert not half_made(out)
    for path in (out / "receipts", out / "receipts" / "shard-000003.tar.json"):
        path.unlink() if path.is_file() else None
    shutil.rmtree(out / "receipts" / "shard-000003.tar.json", ignore_errors=True)
    verify(out, discard=True)
    make(out)
    assert contents(out) == before


@pytest.mark.parametrize("format", ["shard", "png"])
def test_a_receipt_that_is_gone(write_model, tmp_path, format):
    """A shard that is there is left alone; verify says what it lacks, and mends it."""
    options = JobOptions(tmp_path / "out", COUNT, 7, format, SIZE)
    generator = load(write_model(), batch=8)
    synthesise(generator, options)
    before = contents(options.out)
    name = finished(options.out)[3]
    (options.out / "receipts" / f"{name}.json").unlink()
    assert synthesise(generator, options).made == 0
    assert verify(options.out, discard=True).damaged == {name: "has no receipt"}
    assert synthesise(generator, options).made == SIZE
    assert contents(options.out) == before


def write_other_model(write_model) -> Path:
    """The same but for what its metadata call it."""
    return write_model(tiny.metadata(recipe="another"), name="another.onnx")


SETTINGS = {"backend": "openvino", "precision": "fp32", "threads": 1, "batch": 8, "mode": "latency"}


@pytest.mark.parametrize(
    ("engine", "inputs", "output", "named", "remedy"),
    [
        (
            *({"model": write_other_model}, {}, {}),
            r"model_sha256 is '\w{64}' there and '\w{64}' here",
            "with the same settings",
        ),
        ({}, {"seed": 8}, {}, "seed is 7 there and 8 here", "with --seed 7"),
        ({}, {"count": 81}, {}, "count is 80 there and 81 here", "with --count 80"),
        ({}, {}, {"shard_size": 16}, "shard_size is 8 there and 16 here", "with --shard-size 8"),
        (
            *({}, {}, {"format": "npz"}),
            "format is 'shard' there and 'npz' here",
            "with --format shard",
        ),
        (
            *({}, {}, {"dtype": "uint16"}),
            "dtype is 'uint8' there and 'uint16' here",
            "with --dtype uint8",
        ),
        (
            *({"backend": "onnxruntime"}, {}, {}),
            "backend is 'openvino' there and 'onnxruntime' here",
            "with --backend openvino",
        ),
        (
            *({"precision": "bf16"}, {}, {}),
            "precision is 'fp32' there and 'bf16' here",
            "with --precision fp32",
        ),
        (
            *({"mode": "throughput"}, {}, {}),
            "mode is 'latency' there and 'throughput' here",
            "with --mode latency",
        ),
        ({"threads": 2}, {}, {}, "threads is 1 there and 2 here", "with --threads 1"),
        ({"batch": 4}, {}, {}, "batch is 8 there and 4 here", "with --batch 8"),
        ({"batch": None}, {}, {}, "batch is 8 there and .* here", "with --batch 8"),
    ],
)
def test_a_job_resumed_as_another_is_refused(
    write_model, tmp_path, engine, inputs, output, named, remedy
):
    from fastmrigan.jobs.run import run

    model, out = write_model(), tmp_path / "out"
    settings = {"model": model, **SETTINGS}
    began = JobSpec(Engine(**settings), Sampled(COUNT, 7), Output(out, shard_size=SIZE))
    run(began.open())
    (out / finished(out)[2]).unlink()  # there is something left to make
    before = contents(out)
    if "model" in engine:
        engine = {"model": engine["model"](write_model)}
    try:
        other = JobSpec(
            Engine(**(settings | engine)),
            Sampled(**({"count": COUNT, "seed": 7} | inputs)),
            Output(**({"out": out, "shard_size": SIZE} | output)),
        ).open()
    except Exception as refused:
        if "bf16" not in str(refused):
            raise
        pytest.skip(f"no other precision here: {refused}")
    with pytest.raises(UsageError, match=rf"run\.json: {named}; resume {remedy}, or take"):
        run(other)
    assert contents(out) == before
    run(began.open())
    assert verify(out).whole


@pytest.mark.parametrize("mode", MODES)
def test_the_threads_to_resume_with_are_cut_into_the_same_streams(mode):
    """Of 9, 4 streams have 2 each, and 8 would be 8 of 1."""
    options = BackendOptions(mode=mode)
    for threads in range(1, 70):
        streams, each = options.shared_out(threads)
        known = {"mode": mode, "streams": streams, "threads": streams * each}
        for key in ("streams", "threads"):
            word, option, asked = settings_of(known, key).split()
            assert (word, option) == ("with", "--threads")
            assert options.shared_out(int(asked)) == (streams, each)


@pytest.mark.parametrize(
    ("known", "key", "told"),
    [
        ({"gate": None}, "gate", "without --gate"),
        ({"gate": "drop"}, "gate", "with --gate drop"),
        ({"batch": [1, 4, 8]}, "batch", "with the same settings"),
        ({"mode": "throughput", "streams": 1, "threads": 4}, "threads", "with the same settings"),
        ({"streams": 0, "threads": 0}, "streams", "with the same settings"),
        ({"version": "2026.1"}, "version", "with the same settings"),
    ],
)
def test_how_to_resume(known, key, told):
    assert settings_of(known, key) == told


@pytest.mark.parametrize("key", ["version", "device", "instruction_set", "nodes", "layout"])
def test_what_cannot_be_chosen_is_held_against_too(make, tmp_path, key):
    """As of a job that began on another machine, or with other versions."""
    out = tmp_path / "out"
    make(out)
    pinned = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**pinned, key: "another"}))
    with pytest.raises(UsageError, match=rf"run\.json: {key} is 'another' there and "):
        make(out)


def test_a_key_of_a_later_version_is_refused(make, tmp_path):
    out = tmp_path / "out"
    make(out)
    pinned = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**pinned, "guidance": 1.5}))
    with pytest.raises(UsageError, match=r"guidance is 1\.5 there and None here"):
        make(out)


@pytest.mark.parametrize("name", ["run.json", "receipts/shard-000002.tar.json"])
def test_what_a_kill_leaves_beside_a_note_is_cleared_up(make, tmp_path, name):
    out = tmp_path / "out"
    make(out)
    path = out / name
    left = path.with_name(f".{path.name}.4711.tmp")
    left.write_text("{")
    make(out)
    assert not left.exists()
