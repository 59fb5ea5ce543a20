"""Jobs in worker processes make the same bytes, whatever their number."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_jobs import INPUTS, digests, slow, supervise

from fastmrigan.errors import DiskFull, ModelRefused, UsageError
from fastmrigan.jobs import supervisor
from fastmrigan.jobs.run import run
from fastmrigan.jobs.spec import JobSpec
from fastmrigan.runtime.engine_file import read_model


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
