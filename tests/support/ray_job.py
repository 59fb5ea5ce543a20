"""A job on a Ray cluster whose actors have a fault.

    python ray_job.py ADDRESS MODEL SET OUT INDICES

Translates a prepared dataset; any engine call with one of these inputs of it ends the actor. Actors
refuse to read the dataset through again.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastmrigan.errors import InputRejected
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.quantise import to_float
from fastmrigan.jobs import cluster
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.spec import Engine, JobSpec, Translated
from fastmrigan.runtime.engine_file import read_model


def refuse(dataset: PreparedDataset) -> None:
    raise InputRejected(f"{dataset.path}: is read through again")


@dataclass(frozen=True)
class Faulty(Engine):
    """Travels to the actors as it stands here, since this is nobody's module there."""

    poison: tuple[Path, tuple[int, ...]] = (Path(), ())

    def __setstate__(self, state):  # in an actor
        vars(self).update(state)
        PreparedDataset.check_fingerprint = refuse

    def open(self, model):
        generator = super().open(model)
        folder, indices = self.poison
        bad = to_float(np.load(folder / "slices.npy")[list(indices)])
        check = generator._check_source

        def check_or_die(slices):
            if any(np.array_equal(x, y) for x in slices for y in bad):
                os.kill(os.getpid(), signal.SIGKILL)
            check(slices)

        generator._check_source = check_or_die
        return generator


address, *paths, given = sys.argv[1:]
model, data, out = map(Path, paths)
indices = tuple(int(index) for index in given.split(","))
engine = Faulty(model, "auto", "fp32", 1, 4, poison=(data, indices))
spec = JobSpec(engine, Translated(data), Output(out, "shard", 8))
work = spec.work(read_model(model))
result = cluster.run_on_ray(spec, work, cluster.RayOptions(address), print)
print(result.slices, result.quarantined)
