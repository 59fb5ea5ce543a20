"""Parts of a job: several writers of one folder, each of its own shards."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from PIL import Image

from fastmrigan import files
from fastmrigan.errors import UsageError
from fastmrigan.files import write_new
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import run as running
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.job import Job
from fastmrigan.jobs.locks import only_writer
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Content, Origin, Shard, shard_range
from fastmrigan.jobs.run import Share, clear_up, clear_up_ours, pin, run
from fastmrigan.jobs.sampling import JobOptions, sampling
from fastmrigan.jobs.shards import commit, read_slices
from fastmrigan.runtime import load

ARRAY = Path(__file__).parents[2] / "examples" / "slurm" / "array.sh"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of every shard and every receipt."""
    found = [p for p in folder.rglob("*") if p.is_file() and "shard-" in str(p)]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("0:10", range(10)),
        (":", range(10)),
        ("2:5", range(2, 5)),
        (":3", range(3)),
        ("7:", range(7, 10)),
        ("009:10", range(9, 10)),
    ],
)
def test_places_of_a_plan(text, places):
    assert shard_range(text, 10) == places


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("3:3", "is empty, since B is left out"),
        ("5:3", "is empty"),
        ("10:", "is empty; the plan has 10 shards, 0:10"),
        ("8:11", "ends beyond the plan; the plan has 10 shards, 0:10"),
        ("11:12", "ends beyond the plan"),
        ("-3:", "expected A:B, of whole numbers"),
        ("3", "expected A:B"),
        ("", "expected A:B"),
        ("1:2:3", "expected A:B"),
        ("a:b", "expected A:B"),
        ("٣:٤", "expected A:B"),  # digits, but nobody's
    ],
)
def test_what_is_no_part_of_a_plan(text, reason):
    with pytest.raises(UsageError, match=f"^--shard-range {re.escape(text)}: {reason}"):
        shard_range(text, 10)


@pytest.mark.parametrize(
    ("part", "held"),
    [
        (range(0, 2), None),
        (range(5, 9), None),
        (range(4, 5), "2:5"),
        (range(0, 3), "2:5"),
        (range(3, 4), "2:5"),
        (range(0, 9), "2:5"),
        (range(2, 5), "2:5"),
    ],
)
def test_writers_go_on_together_where_their_shards_differ(tmp_path, part, held):
    with only_writer(tmp_path, range(2, 5)):
        if held is None:
            with only_writer(tmp_path, part):
                return
        with (
            pytest.raises(UsageError, match=f"another job is writing shards {held} there"),
            only_writer(tmp_path, part),
        ):
            pass
    with only_writer(tmp_path, part):  # once the first has ended
        pass


def test_a_killed_writer_holds_nothing(tmp_path):
    hold = (
        "import sys, time, pathlib; from fastmrigan.jobs.locks import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1]), range(2, 5)):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="shards 2:5"), only_writer(tmp_path, range(4, 6)):
            pass
        holder.kill()
    assert holder.returncode == -signal.SIGKILL
    with only_writer(tmp_path, range(4, 6)):
        pass


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with (
        pytest.raises(UsageError, match=r"has no locks \(No locks available\).*another --out"),
        only_writer(tmp_path, range(3)),
    ):
        pass


@pytest.mark.parametrize("format", ["shard", "npz", "png"])
def test_parts_make_the_whole(write_model, tmp_path, format):
    generator = load(write_model(), batch=8, mode="throughput")
    whole, out = tmp_path / "whole", tmp_path / "out"

    def job(folder: Path) -> Job:
        options = JobOptions(folder, 90, 7, format, 16)  # 6 shards, the last of 10
        return Job(sampling(generator.model, options), options.output, generator)

    run(job(whole))
    told = [run(job(out), part) for part in (range(4, 6), range(0, 1), range(3, 6), range(0, 6))]
    assert [(each.slices, each.made) for each in told] == [(26, 26), (16, 16), (42, 16), (90, 32)]
    assert [each.share.there for each in told] == [2, 3, 4, 6]
    assert told[2].share == Share(range(3, 6), 4, 6)
    assert contents(out) == contents(whole)
    assert run(job(out)).share is None


@pytest.mark.parametrize(("format", "suffix"), [("shard", ".tar"), ("png", "")])
def test_only_leftovers_of_the_own_shards_are_cleared_up(tmp_path, format, suffix):
    (tmp_path / "receipts").mkdir()
    left = []
    for number in range(4):
        left.append(tmp_path / f"shard-{number:06}{suffix}.0123456789abcdef.tmp")
        if suffix:
            left[-1].write_bytes(b"half")
        else:
            left[-1].mkdir()
            (left[-1] / "000000000.png").write_bytes(b"half")
        left.append(tmp_path / "receipts" / f".shard-{number:06}{suffix}.json.0123.tmp")
        left[-1].write_bytes(b"{")
    others = [tmp_path / "shard-mine.tmp", tmp_path / ".status.json.0123.tmp"]
    for other in others:
        other.write_bytes(b"")
    clear_up(Output(tmp_path, format, 16), [Shard(1, 16, 16), Shard(2, 32, 16)])
    assert [path.exists() for path in left] == [True, True, False, False, False, False, True, True]
    assert all(other.exists() for other in others)
    assert len(list(tmp_path.rglob("*.tmp"))) == 6


def test_a_folder_loses_its_name_before_its_files(tmp_path, monkeypatch):
    """Or who still writes there could finish it without them."""
    aside = tmp_path / "shard-000000.0123.tmp"
    aside.mkdir()
    (aside / "000000000.png").write_bytes(b"half")
    gone = []

    def keep(path: Path) -> None:
        assert not aside.exists()
        gone.append(path)

    monkeypatch.setattr(running, "remove", keep)
    clear_up(Output(tmp_path, "png", 16), [Shard(0, 0, 16)])
    assert [each.name for each in gone[0].iterdir()] == ["000000000.png"]
    monkeypatch.undo()
    clear_up(Output(tmp_path, "png", 16), [Shard(0, 0, 16)])  # of a run that died in between
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("theirs", [None, {"seed": 2}])
def test_nothing_is_removed_from_a_folder_that_is_another_jobs_by_now(tmp_path, theirs):
    output, shards = Output(tmp_path), [Shard(0, 0, 16)]
    leftover = tmp_path / "shard-000000.tar.0.tmp"
    leftover.write_bytes(b"half")
    if theirs is not None:
        (tmp_path / "run.json").write_text(json.dumps(theirs))
    clear_up_ours(output, shards, {"seed": 1})
    assert leftover.exists()
    (tmp_path / "run.json").write_text(json.dumps({"seed": 1}))
    clear_up_ours(output, shards, {"seed": 1})
    assert not leftover.exists()


@pytest.mark.parametrize("format", ["shard", "npz", "png"])
def test_a_shard_that_two_make_is_there_once(tmp_path, format):
    shard = Shard(3, 12, 4)
    slices = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4)
    origin = Origin(7, "0" * 64)
    commit(tmp_path, FORMATS[format], Content.whole(shard, slices), origin)
    before = contents(tmp_path)
    assert len(before) == (5 if format == "png" else 2)
    commit(tmp_path, FORMATS[format], Content.whole(shard, slices), origin)
    assert contents(tmp_path) == before


def test_two_makers_of_one_shard_take_different_names(tmp_path, monkeypatch):
    asides = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (asides.append(a), replace(a, b)))
    content = Content.whole(Shard(0, 0, 1), np.zeros((1, 4, 4), np.uint8))
    for _ in range(2):
        commit(tmp_path, FORMATS["shard"], content, Origin(7, "0" * 64))
    assert len(set(asides)) == len(asides) == 4  # a shard and its receipt, twice


def test_of_many_that_begin_at_once_one_pins_and_all_agree(tmp_path):
    """Threads, since what races are system calls; half of them differ in the seed."""
    for attempt in range(20):
        out, start = tmp_path / str(attempt), threading.Barrier(16)
        out.mkdir()
        refused = []

        def begin(seed: int, out=out, start=start, refused=refused) -> None:
            start.wait()
            try:
                pin(out, "sample", {"seed": seed})
            except UsageError as error:
                refused.append((seed, str(error)))

        threads = [threading.Thread(target=begin, args=(number % 2,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first = json.loads((out / "run.json").read_text())["seed"]
        assert {seed for seed, _ in refused} == {1 - first}
        assert len(refused) == 8
        assert f"seed is {first} there and {1 - first} here" in refused[0][1]
        assert [path.name for path in out.iterdir()] == ["run.json"]


def test_a_new_file_never_takes_the_place_of_another(tmp_path):
    path = tmp_path / "run.json"
    write_new(path, b"first")
    with pytest.raises(FileExistsError):
        write_new(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("refusal", files.NO_LINKS)
def test_a_new_file_without_hard_links(tmp_path, monkeypatch, refusal):
    def link(*_):
        raise OSError(refusal, "no")

    monkeypatch.setattr(os, "link", link)
    write_new(tmp_path / "run.json", b"first")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"first"]


def test_the_commands_take_a_part(write_model, tmp_path, fastmrigan):
    command = ["synth", write_model(), "--out", tmp_path / "out", "--count", 100, "--batch", 8]
    command += ["--shard-size", 16, "--shard-range"]
    done = fastmrigan(*command, "5:")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.search(r"out: 20 slices in shards 5:7, 20 made now, [\d,]+ slices/s; ", last)
    assert last.endswith("of the whole, 2 of 7 shards are there")
    assert "starting at 0 of 20 slices" in done.stderr
    refused = fastmrigan(*command, "5:8")
    assert refused.returncode == 2
    assert "--shard-range 5:8: ends beyond the plan; the plan has 7 shards, 0:7" in refused.stderr
    assert refused.stdout == ""  # before the engine was opened


def test_a_part_of_what_is_translated(write_model, tmp_path, fastmrigan):
    dice = np.random.default_rng(0)
    source = tmp_path / "png" / "normal"
    source.mkdir(parents=True)
    for number in range(6):
        x = dice.integers(0, 256, (tiny.SIZE, tiny.SIZE), dtype=np.uint8)
        Image.fromarray(x).save(source / f"{number}.png")
    prepare(source.parent, tmp_path / "inputs", PrepareOptions(size=tiny.SIZE, contrast="t1"))
    document = tiny.metadata(task="translate", latent_size=None)
    model = write_model(document, tiny.tiny_graph("translate"))
    command = ["translate", model, "--inputs", tmp_path / "inputs", "--shard-size", 2]
    done = fastmrigan(*command, "--out", tmp_path / "out", "--shard-range", "1:2")
    assert done.returncode == 0, done.stderr
    assert "out: 2 slices in shards 1:2, 2 made now" in done.stdout
    assert fastmrigan(*command, "--out", tmp_path / "whole").returncode == 0
    made, whole = contents(tmp_path / "out"), contents(tmp_path / "whole")
    assert (len(made), len(whole)) == (2, 6)
    assert made.items() <= whole.items()


@pytest.mark.parametrize(
    ("count", "tasks", "parts"),
    [(75, 3, ["0:1", "1:3", "3:5"]), (20, 3, [None, "0:1", "1:2"])],
)
def test_the_tasks_of_an_array_make_the_whole_once(
    write_model, tmp_path, fastmrigan, count, tasks, parts
):
    """Started at the same moment, each as sbatch starts it."""
    model = write_model()
    out, whole = tmp_path / "out", tmp_path / "whole"
    scripts = Path(sysconfig.get_path("scripts"))
    assert (scripts / "fastmrigan").exists()
    settings = {"MODEL": model, "OUT": out, "COUNT": count, "SEED": 7, "SHARD_SIZE": 16}
    settings |= {"TASKS": tasks, "SLURM_CPUS_PER_TASK": 1, "SLURM_ARRAY_TASK_COUNT": tasks}
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    environment["PATH"] = f"{scripts}:{os.environ['PATH']}"
    begun = [
        subprocess.Popen(
            ["bash", ARRAY],
            env=environment | {"SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(tasks)
    ]
    told = [task.communicate(timeout=300) for task in begun]
    assert [task.returncode for task in begun] == [0] * tasks, told
    found = [re.search(r"([\d,]+) slices in shards (\d+:\d+), \1 made now", out) for out, _ in told]
    assert [each and each[2] for each in found] == parts
    assert sum(int(each[1]) for each in found if each) == count
    assert len(list(read_slices(out))) == count
    fixed = ["--count", count, "--seed", 7, "--shard-size", 16, "--threads", 1]
    assert fastmrigan("synth", model, "--out", whole, *fixed).returncode == 0
    assert contents(out) == contents(whole)


def test_a_task_beyond_the_array_is_refused():
    settings = {"SLURM_ARRAY_TASK_ID": "16", "SLURM_CPUS_PER_TASK": "1"}
    done = subprocess.run(
        ["bash", ARRAY], env=os.environ | settings, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        "task 16: TASKS is 16; raise it to the size of --array\n",
    )
