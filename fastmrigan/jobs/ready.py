"""A job that has been looked at: all that can be known of it before its engine starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.jobs.budget import Need, need_of, room_of
from fastmrigan.jobs.inputs import PreparedInputs, check_images, of_images, prepare_images
from fastmrigan.jobs.job import Work
from fastmrigan.jobs.plan import Shard, read_range
from fastmrigan.jobs.run import agrees, missing, slices_of
from fastmrigan.jobs.spec import JobSpec
from fastmrigan.runtime.backends import check_meant, choose
from fastmrigan.runtime.engine_file import EngineFile, read_model
from fastmrigan.runtime.generator import check_options
from fastmrigan.runtime.model_file import ModelFile


@dataclass(frozen=True)
class Looked:
    """A job of which all has been checked that is quick to check."""

    spec: JobSpec
    model: ModelFile | EngineFile
    work: Work | None  # None where its inputs are to be prepared first


@dataclass(frozen=True)
class Ready:
    """A job whose model is read and whose inputs are prepared."""

    spec: JobSpec
    model: ModelFile | EngineFile
    work: Work
    images: PreparedInputs | None = None  # where its inputs were a folder of images

    @property
    def plan(self) -> list[Shard]:
        """The shards to make: of the whole plan, or of the spec's range of it."""
        whole, part = self.work.plan(self.spec.output), self.spec.part(self.work)
        return list(whole) if part is None else [whole[place] for place in part]

    @property
    def todo(self) -> list[Shard]:
        """The shards that are not on the disk."""
        return missing(self.spec.output, self.plan)

    @property
    def count(self) -> int:
        """Slices to make, those in the folder counted."""
        return slices_of(self.plan)

    @property
    def done(self) -> int:
        """Of these, the slices in the folder."""
        return self.count - slices_of(self.todo)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.work.warnings + (self.images.warnings if self.images else ())

    @cached_property
    def need(self) -> Need:
        """What its missing shards take on the disk, when this is first asked for."""
        output, size = self.spec.output, self.model.metadata.slice_size
        return need_of(self.work, output, size, self.todo, room_of(output.out).block)

    def check_begun(self) -> None:
        """Raises UsageError where another job began in its folder, as far as that is known without
        an engine."""
        output = self.spec.output
        known = {
            "model_sha256": self.model.sha256,
            **self.work.pins,
            "count": self.work.count,
            "shard_size": output.shard_size,
            "format": output.format,
            "dtype": output.depth,
            "mode": self.spec.engine.mode,
            "gate": None if self.spec.gate is None else self.spec.gate.action,
            "gate_reference": None if self.spec.gate is None else self.spec.gate.fingerprint,
        }
        engine = self.spec.engine
        if engine.batch is not None:
            known["batch"] = engine.batch
        for name, asked in (("backend", engine.backend), ("precision", engine.precision)):
            if asked != "auto":
                known[name] = asked
        agrees(output.out, self.work.task, known, partly=True)


def looked_at(spec: JobSpec, *, engine_here: bool = True) -> Looked:
    """Checks all of a job that can be checked before anything is written or an engine starts.

    engine_here: this machine runs the engine; where others do, its package may be theirs alone.
    Raises what `spec.work`, `spec.part` and `check_images` do, UsageError too for a folder that
    cannot be written to, or in which another job began.
    """
    engine = spec.engine
    check_options(threads=engine.threads, batch=engine.batch, mode=engine.mode)
    if spec.shard_range is not None:
        read_range(spec.shard_range)
    spec.output.check()
    check_writable(spec.output.out)
    model = read_model(engine.model)
    if engine_here:
        choose(engine.backend, model)
    else:
        check_meant(engine.backend, model)
    if spec.gate is not None:
        spec.gate.check(model.metadata, spec.output)
    if of_images(spec) is not None:
        check_images(spec, model)
        return Looked(spec, model, None)
    work = spec.work(model)
    spec.part(work)  # refused here, and not once the engine is open
    Ready(spec, model, work).check_begun()
    return Looked(spec, model, work)


def ready(looked: Looked, at: Path | None = None) -> Ready:
    """The job with its work; a folder of images is prepared first, into `at` or OUT/inputs.

    Raises what `spec.work`, `spec.part` and `prepare_images` do, and UsageError where another job
    began in its folder.
    """
    spec, model = looked.spec, looked.model
    if looked.work is not None:
        return Ready(spec, model, looked.work)
    spec, images = prepare_images(spec, model, at)
    made = Ready(spec, model, spec.work(model), images)
    spec.part(made.work)  # now that the plan is known
    made.check_begun()
    return made


def check_writable(out: Path) -> None:
    """Raises UsageError where `out` cannot be a folder to write to."""
    at = out.absolute()
    while not at.exists():
        at = at.parent
    if not at.is_dir():
        raise UsageError(f"{out}: {at} is a file; name a folder elsewhere")
    if not os.access(at, os.W_OK | os.X_OK):
        raise UsageError(f"{out}: cannot write in {at}; name a folder you may write to")
