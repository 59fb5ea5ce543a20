"""Measures that need the training run: its untrained generator and its discriminator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastmrigan.metrics.bootstrap import wilson
from fastmrigan.metrics.frechet import frechet_distance
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.training.checkpoint import (
    LoadedDiscriminator,
    load_discriminator,
    load_untrained_generator,
)

Float32 = npt.NDArray[np.float32]


def untrained_slices(run: Path, count: int, seed: int) -> Float32:
    """Slices [count, H, W] of the generator with the weights the run began with."""
    loaded = load_untrained_generator(run)
    latents = np.random.default_rng(seed).standard_normal(
        (count, loaded.recipe.generator.latent), dtype=np.float32
    )  # [count, latent]
    with torch.inference_mode():
        parts = [loaded.module(chunk) for chunk in torch.split(torch.from_numpy(latents), 64)]
    return torch.cat(parts)[:, 0].numpy()


def untrained_measures(real: Float32, untrained: Float32, distance: float) -> list[Measure]:
    """What is left of the untrained generator's fd-random; real [N, d], untrained [M, d]."""
    before = frechet_distance(real, untrained)
    return [
        Measure(
            "fd_random_untrained",
            "fd-random, untrained generator",
            before,
            "context",
            "The distance of slices from the same generator before its first training step: "
            "the far end of the scale.",
            over=f"{len(untrained):,} untrained slices, against {len(real):,} real ones",
        ),
        Measure(
            "fd_random_over_untrained",
            "fd-random over untrained",
            distance / before,
            "lower",
            "How much of the untrained generator's distance is left.",
            share=True,
        ),
    ]


def discriminator_measures(run: Path, real: SliceSet, made: SliceSet, seed: int) -> list[Measure]:
    """What the run's own discriminator calls right of training, held-out and synthetic slices."""
    loaded = load_discriminator(run)
    groups = {
        "train": (real.train, True, "training slices called real"),
        "test": (real.test, True, "held-out slices called real"),
        "synthetic": (made.slices, False, "synthetic slices called fake"),
    }
    measures = []
    for key, (slices, is_real, name) in groups.items():
        if len(slices) < 2:  # batch norm needs company
            continue
        right = int(((discriminator_logits(loaded, slices, seed) > 0) == is_real).sum())
        measures.append(
            Measure(
                f"discriminator_{key}",
                f"discriminator: {name}",
                right / len(slices),
                "context",
                (
                    "By the run's own discriminator. It has seen the training slices: a large gap "
                    "to the held-out ones means that it learned them by heart."
                    if is_real
                    else "By the run's own discriminator. Near 100 % it still tells them apart "
                    "with ease; near 50 % it cannot."
                )
                + " It is that of one step: the share may swing by tens of points from step to "
                "step, which the interval does not count.",
                share=True,
                interval=wilson(right, len(slices)),
                section="run",
                over=f"{len(slices):,} {key} slices",
            )
        )
    return measures


def discriminator_logits(loaded: LoadedDiscriminator, slices: Float32, seed: int) -> Float32:
    """Logits [N] of slices [N, H, W] in a random order, above 0 for real.

    As in training, a batch holds one kind of slice and batch norm takes the batch's own
    statistics: its running ones mix real and synthetic batches and would judge neither.
    """
    for layer in loaded.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
    order = np.random.default_rng(seed).permutation(len(slices))
    count = -(-len(slices) // loaded.recipe.batch)
    with torch.inference_mode():
        parts = [
            loaded.module(torch.from_numpy(slices[rows]).unsqueeze(1)).flatten()
            for rows in np.array_split(order, count)  # no batch is a small rest
        ]
    return torch.cat(parts).numpy()
