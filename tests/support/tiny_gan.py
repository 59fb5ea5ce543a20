"""The smallest DCGAN that trains, slices to feed it, and a checkpoint's leaves to compare."""

import math
from collections.abc import Callable

import numpy as np
import torch

from fastmrigan.training.data import TrainingData
from fastmrigan.training.recipe import Recipe
from fastmrigan.training.recipe_file import load_recipe

TINY = [
    "size=16",
    "generator.latent=8",
    "generator.width=4",
    "discriminator.width=4",
    "batch=4",
    "epochs=null",
    "plot_epochs=[]",
    "sample_count=4",
    "log_every=1",
]


def tiny(*overrides: str) -> Recipe:
    return load_recipe("tumour-dcgan64", [*TINY, *overrides])


def tiny_data(count: int = 10) -> TrainingData:
    slices = np.random.default_rng(1).uniform(-1, 1, (count, 1, 16, 16)).astype(np.float32)
    info = {"fingerprint": "f" * 64, "label": None, "training_slices": count}
    return TrainingData(torch.from_numpy(slices), info)


def flat(value, prefix=""):
    """Every leaf of a checkpoint by its dotted name."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{prefix}.{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, e in enumerate(value) for k, v in flat(e, f"{prefix}.{i}").items()}
    return {prefix: value}


def different(a, b) -> list[str]:
    """Names of the leaves that differ in any bit, or stand on one side alone."""
    a, b = flat(a), flat(b)
    same = {
        name
        for name in a.keys() & b.keys()
        if (torch.equal(a[name], b[name]) if torch.is_tensor(a[name]) else a[name] == b[name])
    }
    return sorted((a.keys() | b.keys()) - same)


def not_a_number(honest: Callable[..., torch.Tensor], calls: Callable[[int], bool]):
    """`honest`, but NaN in the calls (counted from 1) that `calls` names."""

    def faulty(*arguments, **options):
        faulty.calls += 1
        return honest(*arguments, **options) * (math.nan if calls(faulty.calls) else 1.0)

    faulty.calls = 0
    return faulty
