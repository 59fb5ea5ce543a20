"""Running a job on a Ray cluster: every slice of its plan, once each, whatever node dies.

Who starts the job keeps its folder's lock and opens no engine: he connects to a cluster, or starts
one of this machine, and hands the shards of the plan to a `crew` of actors.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fastmrigan.errors import DiskFull, MissingDependency, UsageError
from fastmrigan.files import TMP
from fastmrigan.interrupt import StopSignal
from fastmrigan.jobs import quarantine
from fastmrigan.jobs.crew import Crew
from fastmrigan.jobs.inquest import Casualty, Inquest
from fastmrigan.jobs.job import Work
from fastmrigan.jobs.locks import only_writer
from fastmrigan.jobs.run import (
    JobResult,
    check_planned,
    clear_up_notes,
    clear_up_ours,
    disk_error,
    interrupted,
    lying_in,
    pin,
    share_of,
    slices_of,
    unfinished,
)
from fastmrigan.jobs.spec import JobSpec
from fastmrigan.jobs.watch import Watch

QUIETLY: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
OBJECT_STORE = 100 * 2**20  # bytes; slices never pass through it

Value = TypeVar("Value")


@dataclass(frozen=True)
class RayOptions:
    """Which cluster runs a job, and with how many processes."""

    address: str | None = None  # None: $RAY_ADDRESS, else a cluster of this machine for this job
    actors: int | None = None  # None: as many as nodes

    def check(self) -> None:
        """Raises UsageError on a value that cannot be meant, MissingDependency."""
        if self.actors is not None and self.actors < 1:
            raise UsageError(f"--ray-actors {self.actors}: expected at least 1")
        _ray()


def run_on_ray(
    spec: JobSpec, work: Work, options: RayOptions, say: Callable[[str], None]
) -> JobResult:
    """Makes every slice of a job that is not in its folder yet.

    work: of `spec`. say: is told who makes them.
    Raises as `run` does; UsageError too where there is no such cluster, and where nodes disagree on
    what the bytes depend on or see another folder; ModelRefused where processes die of it.
    """
    options.check()
    part, spec = spec.part(work), absolute(spec).read_through(work)
    output, plan = spec.output, work.plan(spec.output)
    own = range(len(plan)) if part is None else part
    shards = [plan[place] for place in own]
    total = slices_of(shards)
    with ExitStack() as held:
        held.enter_context(only_writer(output.out, own))
        if part is None:
            clear_up_notes(output.out)  # before there is a token, which is one
        inquest = Inquest(output, work.origin.sources, quarantine.read(output.out))
        token = held.enter_context(_token(output.out))
        ray = held.enter_context(_connected(options.address))
        signal = held.enter_context(StopSignal())
        crew = held.enter_context(Crew(ray, spec, options.actors, token, say, inquest))
        pinned = crew.open(signal)
        check_planned(output.out, work, pinned)
        pin(output.out, work.task, pinned)
        todo = unfinished(output, shards)
        start = total - slices_of(todo)
        name = "" if part is None else f"{part.start}-{part.stop}"
        with Watch(work, output, start, workers=crew.size, total=total, part=name) as watch:
            try:
                crew.make(todo, signal, watch)
            except Casualty as casualty:
                raise casualty.refusal(output, total, watch.done) from None
            except (OSError, DiskFull) as error:
                raise disk_error(error, output, total, watch.done) from error
            finally:
                crew.end()
                clear_up_ours(output, shards, pinned)  # what a node left that died
            if signal.stopped:  # told to the watch too, which records how the job ended
                raise interrupted(output, total, watch.done)
        share = None if part is None else share_of(output, plan, part)
        left_out = lying_in(inquest.skipped, shards)
        return JobResult(watch.done, watch.made, watch.seconds, left_out, share)


def absolute(value: Value) -> Value:
    """The same dataclass, with every path in it as any process of this machine takes it."""
    if isinstance(value, Path):
        return value.absolute()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: absolute(getattr(value, f.name)) for f in fields(value)})
    return value


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingDependency("ray", "cluster", "--runner ray") from error
    return ray


@contextmanager
def _token(out: Path) -> Iterator[Path]:
    """A file by which another machine knows that it sees the same folder."""
    path = out / f".shared.{secrets.token_hex(8)}{TMP}"
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at `address`; without one, to a cluster of this machine, which
    sends no usage statistics and ends with the job."""
    ray = _ray()
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        # Ray puts this process' folder on the path of all others, ahead of what is installed, and
        # in a checkout of the source that holds a package without its native core.
        with chdir("/"):
            if address is None:
                _start(ray)
            else:
                _join(ray, address)
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any) -> None:
    """Starts a cluster of this machine. Raises UsageError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not any(name.startswith("RAY_AUTH_") for name in os.environ):
        # Known to this job alone; Ray would leave one in the home folder
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE, **QUIETLY)
    except RuntimeError as error:
        raise UsageError(
            f"--runner ray: Ray {ray.__version__} starts no cluster of this machine; see its logs, "
            f"or name a cluster with --ray-address ({error})"
        ) from error


def _join(ray: Any, address: str) -> None:
    """Connects to a cluster that runs. Raises UsageError."""
    try:
        _knock(address)  # Ray itself tries for minutes
        ray.init(address, **QUIETLY)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"--ray-address {address}: no cluster of Ray {ray.__version__} answers there; start "
            "one with `ray start --head`, or leave the address out for one of this machine "
            f"({error})"
        ) from error


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT, or ray://HOST:PORT."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
