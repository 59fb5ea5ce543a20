"""A job as plain values, which another process or machine can open for itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import Marks, PreparedDataset, marks
from fastmrigan.jobs.gate import Gate, GateOptions
from fastmrigan.jobs.job import Job, Work
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import shard_range
from fastmrigan.jobs.sampling import JobOptions, sampling
from fastmrigan.jobs.translation import translation
from fastmrigan.runtime.engine_file import EngineFile, read_model
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.model_file import ModelFile


@dataclass(frozen=True)
class Engine:
    """A model and what runs it; `runtime.load` says what the values mean."""

    model: Path
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    batch: int | None = 64
    mode: str = "throughput"

    def open(self, model: ModelFile | EngineFile) -> Generator:
        return Generator(
            model,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
            batch=self.batch,
            mode=self.mode,
        )


@dataclass(frozen=True)
class Sampled:
    """Slices 0 .. count - 1 of a seed."""

    count: int
    seed: int = 0


@dataclass(frozen=True)
class Translated:
    """The slices of a selection of a prepared dataset; or every slice of a folder of images, which
    is prepared first (`inputs.py`)."""

    inputs: Path
    split: str = "all"
    label: str | None = None
    allow_burned_in: str = "no"  # of a folder of DICOM, as `prepare` takes it
    # Of the set's files, taken before its bytes were found to be those of its fingerprint: a
    # process that sees the same files need not read them through again
    read: Marks | None = None


@dataclass(frozen=True)
class JobSpec:
    """A job that nobody has opened yet."""

    engine: Engine
    inputs: Sampled | Translated
    output: Output
    gate: GateOptions | None = None
    shard_range: str | None = None  # "A:B": the places of the plan to make; None: all of them

    def part(self, work: Work) -> range | None:
        """The places of the plan to make, where not all. Raises UsageError."""
        if self.shard_range is None:
            return None
        return shard_range(self.shard_range, len(work.plan(self.output)))

    def work(self, model: ModelFile | EngineFile) -> Work:
        """What the job makes; reads the inputs' index, and opens no engine. Raises as
        `synthesise` and `translate` do."""
        work = self._work(model)
        if self.gate is None:
            return work
        self.gate.check(model.metadata, self.output)
        return replace(work, warnings=(*work.warnings, *self.gate.warnings(model.metadata)))

    def _work(self, model: ModelFile | EngineFile) -> Work:
        output = self.output
        if isinstance(self.inputs, Sampled):
            settings = (output.format, output.shard_size, output.dtype)
            options = JobOptions(output.out, self.inputs.count, self.inputs.seed, *settings)
            return sampling(model, options)
        of = self.inputs
        seen = marks(of.inputs)  # first: a file that is changed from here on has others
        dataset = PreparedDataset.open(of.inputs)
        read = of.read == seen
        work = translation(model, dataset, output, split=of.split, label=of.label, read=read)
        return replace(work, read=seen)

    def read_through(self, work: Work) -> JobSpec:
        """The job as other processes are to open it, once this one has its `work`: they do not read
        through again what was read for that, unless it has changed since."""
        if not isinstance(self.inputs, Translated):
            return self
        return replace(self, inputs=replace(self.inputs, read=work.read))

    def check_unchanged(self, work: Work) -> None:
        """Raises UsageError where the inputs' files were changed since `work` was planned of them:
        what they are named by, their fingerprint, would not be theirs any more."""
        if isinstance(self.inputs, Translated) and marks(self.inputs.inputs) != work.read:
            raise UsageError(
                f"{self.inputs.inputs}: was changed since the job was planned; run the same command"
            )

    def open(self) -> Job:
        """The job with its engine, compiled."""
        model = read_model(self.engine.model)
        work = self.work(model)
        generator = self.engine.open(model)
        return Job(work, self.output, generator, gate=self.open_gate(model, shown=False))

    def open_gate(self, model: ModelFile | EngineFile, *, shown: bool = True) -> Gate | None:
        """The quality gate with its reference read; None where none is asked for."""
        if self.gate is None:
            return None
        return self.gate.open(model.metadata, self.output, shown=shown)
