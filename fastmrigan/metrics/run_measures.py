"""Measures that need the training run: its untrained generator and its discriminator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastmrigan.errors import ModelRefused
from fastmrigan.metrics.bootstrap import interval, wilson
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
    """What the run's own discriminator makes of training, held-out and synthetic slices."""
    loaded = load_discriminator(run)
    measures = []
    if not is_critic(loaded.recipe):
        measures = shares_called_right(loaded, real, made, seed)
    if len(real.train) and len(real.test):
        measures.append(memory(loaded, real, seed))
    return measures


def is_critic(recipe: Any) -> bool:
    """Whether its discriminator's scores say more or less real, and have no zero to call real."""
    return bool(recipe.system == "progan")


def shares_called_right(
    loaded: LoadedDiscriminator, real: SliceSet, made: SliceSet, seed: int
) -> list[Measure]:
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
                "By the run's own discriminator. "
                + (
                    ""
                    if is_real
                    else "Near 100 % it still tells them apart with ease; near 50 % it cannot. "
                )
                + "It is that of one step: the share may swing by tens of points from step to "
                "step, which the interval does not count.",
                share=True,
                interval=wilson(right, len(slices)),
                section="run",
                over=f"{len(slices):,} {key} slices",
            )
        )
    return measures


def memory(loaded: LoadedDiscriminator, real: SliceSet, seed: int) -> Measure:
    """How often the discriminator finds a slice it was trained on more real than a held-out one.

    The area under the ROC curve of its logits, training against held-out slices, at least one of
    each, which no threshold and no drift of all logits changes. Both lie in the same batches:
    batch norm would take away what a batch has in common.
    """
    logits = discriminator_logits(loaded, real.slices, seed)
    units = np.arange(len(logits)) if real.groups is None else real.groups  # drawn together
    sides = [~real.held_out, real.held_out]
    rows, groups = [logits[side] for side in sides], [units[side] for side in sides]
    spread = all(len(np.unique(of)) > 1 for of in groups)  # else every draw would be the same
    return Measure(
        "discriminator_memory",
        "discriminator: training slices above held-out ones",
        ranked_above(*rows),
        "context",
        "How often the run's own discriminator, or critic, finds a training slice more real than "
        "a real one held out. Near 50 %, or below, there is no sign that it knows them; near 100 % "
        "it knows them by heart, or those held out are of another kind. No threshold takes part: "
        "steadier than the shares.",
        share=True,
        interval=interval(ranked_above, *rows, seed=seed, groups=groups) if spread else None,
        section="run",
        over=f"{len(rows[0]):,} training and {len(rows[1]):,} held-out slices",
    )


def ranked_above(first: Float32, second: Float32) -> float:
    """The share of pairs in which first [N] is above second [M]; a tie is half."""
    from scipy.stats import rankdata  # heavy, and only this needs it

    ranks = rankdata(np.concatenate([first, second]))  # from 1; of ties the mean
    above = ranks[: len(first)].sum() - len(first) * (len(first) + 1) / 2
    return float(above) / (len(first) * len(second))


def discriminator_logits(loaded: LoadedDiscriminator, slices: Float32, seed: int) -> Float32:
    """Logits [N] of slices [N, H, W], above 0 for real, each in a batch of random ones.

    As in training, a batch holds one kind of slice and batch norm takes the batch's own
    statistics: its running ones mix real and synthetic batches and would judge neither. A critic's
    groups of four divide its batches. ModelRefused where a logit is not finite.
    """
    for layer in loaded.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
    order = np.random.default_rng(seed).permutation(len(slices))
    count = -(-len(slices) // loaded.recipe.batch)
    if is_critic(loaded.recipe):  # whole batches, the last filled with slices of the first
        order = np.resize(order, count * loaded.recipe.batch)
    logits = np.empty(len(slices), np.float32)
    with torch.inference_mode():
        for rows in np.array_split(order, count):  # no batch is a small rest
            batch = torch.from_numpy(slices[rows]).unsqueeze(1)
            logits[rows] = loaded.module(batch, **loaded.options).flatten().numpy()
    if not np.isfinite(logits).all():
        raise ModelRefused(
            f"{loaded.path}: its discriminator gives scores that are not finite; train again, with "
            "lower rates, or leave the measure out (--skip discriminator)"
        )
    return logits
