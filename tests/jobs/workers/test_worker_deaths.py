"""Workers that die: others take their place, and an input that ends them is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from worker_jobs import INPUTS, digests, events, indices, slow, supervise

from fastmrigan.cli import main
from fastmrigan.errors import ModelRefused
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import quarantine, receipts
from fastmrigan.jobs.run import run
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.verify import verify


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
