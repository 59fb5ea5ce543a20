"""What two processes of one run do, for tests/training/test_distributed.py to look at.

python -m torch.distributed.run --standalone --nproc-per-node 2 two_ranks.py OUT

Writes what each rank found: OUT/cyclegan.pt, one step of a CycleGAN, and OUT/<recipe>.pt, three
steps of others.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from small_systems import slices, small
from torch import Tensor

from fastmrigan.training.augmenting import Batches
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks, ranks_of_this_run
from fastmrigan.training.systems import Batch, Clock, System, system_of

# Nothing here depends on the other slices of a batch, or is drawn by each rank for itself.
CYCLEGAN = ["pool=0", "generator.dropout=0.0", "augmentation.resize=1.12"]
CYCLEGAN += ["augmentation.horizontal_flip=true", "augmentation.diffaugment=[translation, colour]"]
OTHERS = {
    "pix2pix-attention-unet": ["augmentation.horizontal_flip=true"],
    "tumour-progan": ["losses.critic_steps=2"],
    "style-transfer-gan": [],
}


def data_of(recipe: Any) -> TrainingData:
    size = recipe.size
    if recipe.task == "sample":
        return TrainingData(slices(8, 1, size), {})
    return TrainingData(slices(8, 1, size), {}, slices(8, 2, size), recipe.system == "pix2pix")


def taken(recipe: Any, ranks: Ranks, steps: int) -> tuple[System, list[dict[str, Any]], Batch]:
    """A system after `steps` steps; its losses, and the last batch."""
    data = data_of(recipe)
    system = system_of(recipe)(recipe, data, torch.device("cpu"), ranks)
    batches = Batches(data, recipe, recipe.seed, ranks, torch.device("cpu"))
    losses = []
    for step in range(steps):
        batch = batches.of_step(step)
        clock = Clock(step, step * recipe.batch * ranks.world / data.count, 6)
        losses.append({k: float(v) for k, v in system.step(batch, clock).items()})
    return system, losses, batch


def weights(system: System) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": parameter.detach().clone()
        for name, network in system.networks.items()
        for key, parameter in network.named_parameters()
    }


def gradients(system: System) -> dict[str, Tensor]:
    """Of the step just taken; inert parameters have none."""
    return {
        f"{name}.{key}": parameter.grad.clone()
        for name, network in system.networks.items()
        for key, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def main(out: Path) -> None:
    with ranks_of_this_run("cpu") as ranks:
        system, losses, batch = taken(small("t2-tumour-cyclegan", *CYCLEGAN), ranks, 1)
        found = {"weights": weights(system), "gradients": gradients(system), "losses": losses}
        found |= {"target": batch.target, "source": batch.source}
        every = ranks.gather(found)
        if ranks.first:
            torch.save(every, out / "cyclegan.pt")
        for name, settings in OTHERS.items():
            system, losses, _ = taken(small(name, *settings), ranks, 3)
            every = ranks.gather({"weights": weights(system), "losses": losses})
            if ranks.first:
                torch.save(every, out / f"{name}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
