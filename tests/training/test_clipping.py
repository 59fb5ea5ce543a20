"""Gradients of the generators, clipped by their norm together: against the norm written out."""

import math

import pytest
import torch
from small_systems import slices, small

from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.systems import Batch, Clock, system_of


def gradients(name, *overrides):
    """Of each optimiser's first step, as that has them: one vector."""
    recipe = small(name, *overrides)
    source, target = slices(2, 6, recipe.size), slices(2, 5, recipe.size)
    data = TrainingData(target, {}, None if recipe.task == "sample" else source)
    system = system_of(recipe)(recipe, data, torch.device("cpu"), Ranks())
    seen = {}

    def watch(optimiser, *_):
        (key,) = [key for key, each in system.optimisers.items() if each is optimiser]
        parts = [
            p.grad.flatten()
            for group in optimiser.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        seen.setdefault(key, torch.cat(parts).double())

    for optimiser in system.optimisers.values():
        optimiser.register_step_pre_hook(watch)
    torch.manual_seed(3)
    system.step(Batch(target, None if recipe.task == "sample" else source), Clock(0, 0.0, 6))
    return seen


@pytest.mark.parametrize("name", ["tumour-progan", "t2-tumour-cyclegan", "pix2pix-attention-unet"])
def test_the_generators_gradients_alone_are_scaled_down_to_the_norm(name):
    free = gradients(name)
    norm = math.sqrt(sum(x**2 for x in free["g"].tolist()))
    clipped = gradients(name, f"optimiser.generator_clip={norm / 4}")
    torch.testing.assert_close(clipped["g"], free["g"] / 4, rtol=1e-4, atol=1e-8)
    assert clipped["g"].norm() == pytest.approx(norm / 4, rel=1e-4)
    wide = gradients(name, f"optimiser.generator_clip={norm * 1.01}")
    assert torch.equal(wide["g"], free["g"])  # it never scales up
    assert torch.equal(wide["d"], free["d"])
    if name == "tumour-progan":  # whose discriminator's step is the first: nothing else differs
        assert torch.equal(clipped["d"], free["d"])
