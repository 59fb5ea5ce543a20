"""Where the slices of a job go, and as what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmrigan.errors import UsageError
from fastmrigan.imaging.quantise import to_uint8, to_uint16
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.plan import Slices

QUANTISERS: dict[str, Callable[[Any], Slices]] = {"uint8": to_uint8, "uint16": to_uint16}


@dataclass(frozen=True)
class Output:
    """Where the slices of a job go, and as what."""

    out: Path
    format: str = "shard"  # one of shards.FORMATS
    shard_size: int = 256  # slices a shard; of nifti, a shard is a series
    dtype: str | None = None  # uint8 or uint16; None takes what the format is made for

    def check(self) -> None:
        """Raises UsageError on a value that cannot be meant, MissingDependency."""
        if self.shard_size < 1:
            raise UsageError(f"--shard-size {self.shard_size}: expected at least 1")
        for name, chosen, known in (
            ("format", self.format, list(FORMATS)),
            ("dtype", self.dtype or "uint8", list(QUANTISERS)),
        ):
            if chosen not in known:
                raise UsageError(f"--{name} {chosen}: unknown; choose one of {', '.join(known)}")
        fmt = FORMATS[self.format]
        if self.depth not in fmt.dtypes:
            raise UsageError(
                f"--dtype {self.depth}: --format {self.format} has 16 bits; take uint16, or leave "
                "--dtype out"
            )
        fmt.check()

    @property
    def depth(self) -> str:
        """uint8 or uint16: of the stored pixels."""
        return self.dtype or FORMATS[self.format].dtypes[0]
