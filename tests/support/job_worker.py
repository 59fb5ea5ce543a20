"""A job's worker with a fault, for `process.COMMAND`.

    python job_worker.py FAULT ARGUMENT SOCKET NUMBER

FAULT is none; poison SET:INDICES (any engine call with one of these inputs of a prepared dataset
ends the process); latents FIRST (so does that of slice FIRST); isa NAME (worker 1 has another
instruction set); full SHARD (no space is left for it); start NUMBER (that worker dies before it is
ready); harmed SET:INDEX (the engine refuses this input); once FILE (the first worker to find no
such file makes it and dies in a shard); unready FILE (likewise, before it is ready);
slow SECONDS (so long does a shard take to be written); stuck SHARD (it never takes its name, after
its receipt is there); unread (reading the dataset through ends the process).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path

fault, argument = sys.argv[1:3]
sys.argv[1:] = sys.argv[3:]
number = int(sys.argv[2])
if fault == "isa" and number == 1:
    os.environ["FASTMRIGAN_ISA"] = argument

import numpy as np  # noqa: E402 - the instruction set is chosen at import

from fastmrigan.errors import ModelRefused  # noqa: E402
from fastmrigan.imaging.dataset import PreparedDataset  # noqa: E402
from fastmrigan.imaging.quantise import to_float  # noqa: E402
from fastmrigan.jobs import job, shards, worker  # noqa: E402
from fastmrigan.runtime import generator  # noqa: E402


def die() -> None:
    os.kill(os.getpid(), signal.SIGABRT)


def inputs(of: str) -> list[np.ndarray]:
    folder, _, indices = of.rpartition(":")
    return list(
        to_float(np.load(Path(folder) / "slices.npy")[[int(i) for i in indices.split(",")]])
    )


if fault == "start" and number == int(argument):
    die()
if fault == "unready" and not Path(argument).exists():
    Path(argument).touch()
    die()
if fault in ("poison", "harmed"):
    bad = inputs(argument)
    real_check = generator.Generator._check_source

    def check(self, slices) -> None:
        if any(np.array_equal(x, y) for x in slices for y in bad):
            if fault == "harmed":
                raise ModelRefused("no such input")
            die()
        real_check(self, slices)

    generator.Generator._check_source = check
if fault == "latents":
    real_latents = generator.normal_latents

    def latents(seed, first, *more):
        if first == int(argument):
            die()
        return real_latents(seed, first, *more)

    generator.normal_latents = latents
if fault == "unread":
    PreparedDataset.check_fingerprint = lambda self: die()
if fault in ("full", "once", "slow"):
    real_commit = job.commit

    def commit(folder, fmt, content, origin) -> None:
        if fault == "full" and content.shard.number == int(argument):
            raise OSError(errno.ENOSPC, "No space left on device")
        if fault == "once" and not Path(argument).exists():
            Path(argument).touch()
            die()
        if fault == "slow":
            time.sleep(float(argument))
        real_commit(folder, fmt, content, origin)

    job.commit = commit
if fault == "stuck":
    real_take_name = shards._take_name

    def take_name(aside: Path, final: Path) -> None:
        if final.name.startswith(f"shard-{int(argument):06}"):
            time.sleep(3600)
        real_take_name(aside, final)

    shards._take_name = take_name

worker.main()
