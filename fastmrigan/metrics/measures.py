"""The measures of an evaluation: each one number with what it means and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastmrigan.errors import UsageError
from fastmrigan.metrics.classifier import train_tumour_classifier
from fastmrigan.metrics.frechet import HALVES, frechet_distance, split_half_floor
from fastmrigan.metrics.neighbours import nearest_real
from fastmrigan.metrics.similarity import ssim
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.training.checkpoint import (
    LoadedDiscriminator,
    load_discriminator,
    load_untrained_generator,
)

PAIRS = 500  # random pairs behind the diversity figure

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measure:
    """One number of the report."""

    key: str  # stable name in report.json
    name: str
    value: float
    better: Literal["lower", "higher", "near reference", "context"]
    meaning: str
    reference: float | None = None  # the value that real slices themselves give, where there is one
    share: bool = False  # a share of slices, shown in per cent


def frechet_measures(real: Float32, made: Float32, seed: int) -> list[Measure]:
    """fd-random, its split-half floor and their ratio, from features [N, d] and [M, d]."""
    distance = frechet_distance(real, made)
    floor = split_half_floor(real, seed)
    measures = [
        Measure(
            "fd_random",
            "fd-random",
            distance,
            "lower",
            "Frechet distance between all real and all synthetic slices on fixed random "
            "convolutional features. It is not FID and does not compare with FID.",
            floor,
        ),
        Measure(
            "fd_random_floor",
            "fd-random floor, real against real",
            floor,
            "context",
            f"The same distance between two random halves of the real slices, mean of {HALVES} "
            "halvings. Halves are smaller than the whole, so this overstates the lowest value "
            "reachable; slices of one head fall into both halves, which understates it.",
        ),
    ]
    if floor > 0:
        measures.append(
            Measure(
                "fd_random_over_floor",
                "fd-random over floor",
                distance / floor,
                "lower",
                "1 means as close to the real slices as their own halves are to each other.",
                1.0,
            )
        )
    return measures


def untrained_slices(run: Path, count: int, seed: int) -> Float32:
    """Slices [count, H, W] of the generator with the weights the run began with."""
    loaded = load_untrained_generator(run)
    latents = np.random.default_rng(seed).standard_normal(
        (count, loaded.recipe.generator.latent), dtype=np.float32
    )  # [count, latent]
    with torch.inference_mode():
        parts = [loaded.module(chunk) for chunk in torch.from_numpy(latents).split(64)]
    return torch.cat(parts)[:, 0].numpy()


def untrained_measures(real: Float32, untrained: Float32, distance: float) -> list[Measure]:
    before = frechet_distance(real, untrained)
    return [
        Measure(
            "fd_random_untrained",
            "fd-random, untrained generator",
            before,
            "context",
            "The distance of slices from the same generator before its first training step: "
            "the far end of the scale.",
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


def diversity(real: Float32, made: Float32, seed: int) -> Measure:
    draws = np.random.default_rng(seed)
    means = []
    for slices in (real, made):
        first = draws.integers(0, len(slices), PAIRS)
        second = (first + draws.integers(1, len(slices), PAIRS)) % len(slices)  # never itself
        means.append(float(np.mean(ssim(slices[first], slices[second], data_range=2.0))))
    return Measure(
        "pair_ssim",
        "likeness of synthetic slices to each other",
        means[1],
        "near reference",
        f"Mean SSIM of {PAIRS} random pairs of synthetic slices; the reference is the same among "
        "real slices. Far above it, the generator repeats itself; far below, it makes noise.",
        means[0],
    )


def copying(real: SliceSet, made: SliceSet) -> Measure:
    """Median correlation with the nearest training slice, beside that of held-out slices."""
    reference = None
    if len(real.test):
        reference = float(np.median(nearest_real(real.test, real.train).correlation))
    return Measure(
        "nearest_training_correlation",
        "likeness to the nearest training slice",
        float(np.median(nearest_real(made.slices, real.train).correlation)),
        "near reference",
        "Median over synthetic slices of the pixel correlation at 32x32 with the most similar "
        "training slice; the reference is the same for held-out real slices. Far above it, "
        "training slices are being copied.",
        reference,
    )


def classifier_measures(
    labelled: SliceSet, tumour: npt.NDArray[np.bool_], made: SliceSet, seed: int
) -> list[Measure]:
    train, test = ~labelled.held_out, labelled.held_out
    if not test.any():
        raise UsageError(f"{labelled.path}: no test slices to judge the classifier on")
    network = train_tumour_classifier(labelled.slices[train], tumour[train], seed=seed)
    score = network.held_out(labelled.slices[test], tumour[test])
    called = float((network.predict_tumour(made.slices) >= 0.5).mean())
    return [
        Measure(
            "called_tumour",
            "synthetic slices called tumour",
            called,
            "near reference",
            "By a small classifier trained on labelled slices; the reference is the share of "
            "held-out real tumour slices that it calls tumour. For a generator of tumour slices, "
            "and only where fd-random is low: shapeless slices may be called tumour too.",
            score.sensitivity,
            share=True,
        ),
        Measure(
            "classifier_accuracy",
            "the classifier's own accuracy",
            score.accuracy,
            "context",
            f"On {score.tumour} tumour and {score.normal} normal held-out slices (sensitivity "
            f"{100 * score.sensitivity:.0f} %, specificity {100 * score.specificity:.0f} %). "
            "Near 50 % the figure above says nothing.",
            share=True,
        ),
    ]


def discriminator_measures(run: Path, real: SliceSet, made: SliceSet, seed: int) -> list[Measure]:
    loaded = load_discriminator(run)
    groups = {
        "train": (real.train, True, "training slices called real"),
        "test": (real.test, True, "held-out real slices called real"),
        "synthetic": (made.slices, False, "synthetic slices called fake"),
    }
    return [
        Measure(
            f"discriminator_{key}",
            f"discriminator: {name}",
            float(((discriminator_logits(loaded, slices, seed) > 0) == is_real).mean()),
            "context",
            "By the run's own discriminator. It has seen the training slices: a large gap to the "
            "held-out ones means that it learned them by heart."
            if is_real
            else "By the run's own discriminator. Near 100 % it still tells them apart with ease; "
            "near 50 % it cannot.",
            share=True,
        )
        for key, (slices, is_real, name) in groups.items()
        if len(slices) > 1  # batch norm needs company
    ]


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
