"""Jobs in worker processes: how the tests in tests/jobs/workers start them and look at them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import job_files
import pytest

from fastmrigan.jobs import log, supervisor
from fastmrigan.jobs.run import JobResult
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.spec import Engine, JobSpec
from fastmrigan.runtime.engine_file import read_model

WORKER = Path(__file__).with_name("job_worker.py")


INPUTS = 37


def slow(*values: object):
    return pytest.param(*values, marks=pytest.mark.slow)


def command_of(kind: str, argument: object) -> tuple[str, ...]:
    return (sys.executable, "-P", str(WORKER), kind, str(argument))


def with_threads(engine: Engine, batch: int, threads: int | None = 1) -> Engine:
    return Engine(engine.model, engine.backend, engine.precision, threads, batch)


def supervise(spec: JobSpec, workers: int) -> JobResult:
    return supervisor.supervise(spec, spec.work(read_model(spec.engine.model)), workers)


def digests(out: Path) -> dict[str, str]:
    """sha256 of every shard and receipt, and of what pins them."""
    assert (out / "run.json").is_file()
    return job_files.digests(out, "receipts/*", "run.json")


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
    deadline = time.monotonic() + 300
    while len(list(out.glob("shard-*.tar"))) < count:
        assert process.poll() is None, "the job ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.001)
