"""The bulk job that samples: slice i depends on the model, the seed and i."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.jobs.gate import GateOptions
from fastmrigan.jobs.job import Job, Work
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Origin
from fastmrigan.jobs.run import JobResult, run
from fastmrigan.runtime.engine_file import EngineFile
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.model_file import ModelFile


@dataclass(frozen=True)
class JobOptions:
    """What a job that samples makes, and where."""

    out: Path
    count: int
    seed: int = 0
    format: str = "shard"  # one of shards.FORMATS
    shard_size: int = 256  # slices a shard; of nifti, a shard is a series
    dtype: str | None = None  # uint8 or uint16; None takes what the format is made for

    @property
    def output(self) -> Output:
        return Output(self.out, self.format, self.shard_size, self.dtype)

    def check(self) -> None:
        """Raises UsageError on a value that cannot be meant."""
        if self.count < 1:
            raise UsageError(f"--count {self.count}: expected at least 1")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"--seed {self.seed}: expected a whole number from 0 to 2^64 - 1")
        if self.format == "nifti":
            raise UsageError(
                "--format nifti: sampled slices each show a head of their own and make no "
                "volume; take dicom, shard, png or npz"
            )
        self.output.check()


def sampling(model: ModelFile | EngineFile, options: JobOptions) -> Work:
    """What a job that samples makes. Raises UsageError for a model that translates."""
    options.check()
    if model.metadata.task != "sample":
        raise UsageError(
            f"{model.path}: translates slices and cannot sample them; use `fastmrigan translate`"
        )
    return Work(
        command="synth",
        task="sample",
        count=options.count,
        batches=lambda generator, shards, skipped: generator.sample_ranges(
            ((shard.first, shard.count) for shard in shards), options.seed
        ),
        origin=Origin(
            options.seed,
            model.sha256,
            recipe=model.metadata.recipe,
            contrast=model.metadata.target_contrast or "unknown",
        ),
        pins={"seed": options.seed},
    )


def synthesise(
    generator: Generator, options: JobOptions, gate: GateOptions | None = None
) -> JobResult:
    """Samples every slice of the job that is not in its folder yet.

    gate: which slices are left out or flagged; None keeps all, unseen.
    Raises UsageError (wrong options, a model that translates, a folder that belongs to another
    job, a second writer), DiskFull, or Interrupted on Ctrl-C and SIGTERM with every finished shard
    kept.
    """
    work = sampling(generator.model, options)
    opened = None if gate is None else gate.open(generator.model.metadata, options.output)
    return run(Job(work, options.output, generator, gate=opened))
