"""What each measure needs of the inputs, and what an evaluation leaves out for lack of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.likeness import FEWEST_HELD_OUT
from fastmrigan.metrics import run_measures, spaces
from fastmrigan.metrics.choice import MEASURES, SLOW, named
from fastmrigan.metrics.evaluation_inputs import Inputs
from fastmrigan.metrics.two_sample import FEWEST as FEWEST_TOLD_APART

OF_TRANSLATIONS = ("pairs", "sources")


def left_out(chosen: frozenset[str], inputs: Inputs) -> dict[str, str]:
    """What is not measured, though nobody said so: why. UsageError for what was asked for by name.

    Where nothing was translated, nobody misses the pairs, nor the sources.
    """
    asked = inputs.asked
    unasked = frozenset() if asked.only else SLOW - chosen - named("--skip", asked.skip)
    found = {}
    for name in MEASURES:
        reason = lacking(name, inputs)
        if reason and name in chosen and asked.only:
            raise UsageError(f"--only {name}: {reason}")
        if reason and name in chosen and (name not in OF_TRANSLATIONS or translates(inputs)):
            found[name] = reason
        elif not reason and name in unasked:
            found[name] = f"takes minutes; give --thorough, or --only {name}"
    return found


def translates(inputs: Inputs) -> bool:
    """Whether the synthetic slices are translations, as far as is known."""
    trained = inputs.trained
    task = inputs.made.facts.get("task") if trained is None else trained.recipe.task
    return bool(task == "translate")


def lacking(name: str, inputs: Inputs) -> str:
    """Why a measure cannot be taken of these inputs; empty where it can."""
    real, made = len(inputs.real.slices), len(inputs.made.slices)
    if name == "pairs":
        return inputs.direction.no_pairs
    if name == "sources":
        return inputs.direction.no_sources
    if name == "manifold" and min(real // 2, made) <= spaces.NEIGHBOURS:
        return (
            f"needs {2 * (spaces.NEIGHBOURS + 1)} real and {spaces.NEIGHBOURS + 1} synthetic "
            f"slices, there are {real} and {made}"
        )
    if name == "copies":
        held_out = len(inputs.real.test)
        if held_out < FEWEST_HELD_OUT:
            return (
                f"needs {FEWEST_HELD_OUT} held-out real slices to tell what is usual, there are "
                f"{held_out}; prepare with a larger --test-fraction"
            )
        return "" if len(unseen(inputs)) else "all synthetic slices were made of training slices"
    if name == "two-sample" and min(real, made) < FEWEST_TOLD_APART:
        return f"needs {FEWEST_TOLD_APART} slices a side, there are {real} and {made}"
    if name in ("classifier", "utility"):
        if inputs.labelled is None:
            return "needs slices labelled tumour and normal; give --classifier-data"
        if name == "utility" and inputs.label != "tumour":
            return "needs synthetic tumour slices; say so by --label tumour"
    if name == "discriminator":
        if inputs.trained is None or inputs.trained.recipe.task != "sample":
            return "needs the --run of a GAN that makes slices from latents"
        if not real_is_trained_on(inputs):
            return "needs --real and --label to be what the run was trained on"
        if run_measures.is_critic(inputs.trained.recipe) and not len(inputs.real.test):
            return "of a critic needs held-out real slices; prepare with a larger --test-fraction"
    return ""


def real_is_trained_on(inputs: Inputs) -> bool:
    """Whether --real is the dataset and label of the run, so that its training slices are that."""
    assert inputs.trained is not None
    data = inputs.trained.dataset
    same_data = inputs.real.facts.get("fingerprint") == data.get("fingerprint")
    return same_data and inputs.label == data.get("label")


def unseen(inputs: Inputs) -> npt.NDArray[np.int64]:
    """Synthetic slices that may be held against the training slices, [Q].

    The translation of a training pair is meant to be like its target: it is no copy.
    """
    origins = inputs.direction.pairs
    if origins is None:
        return np.arange(len(inputs.made.slices))
    train = PreparedDataset.open(inputs.asked.real).select("train")
    return np.flatnonzero(~np.isin(origins.index, train))


def over_sets(inputs: Inputs) -> str:
    """Which slices a figure of the whole sets is over."""
    real, made = len(inputs.real.slices), len(inputs.made.slices)
    return f"{over_made(inputs, made)}, against {real:,} real ones"


def over_made(inputs: Inputs, count: int) -> str:
    """Of `count` synthetic slices: how many of them are translations of training pairs."""
    if inputs.direction.pairs is None:
        return f"{count:,} synthetic slices"
    known = len(inputs.made.slices) - len(unseen(inputs))
    if count == len(inputs.made.slices):
        return f"all {count:,} translations, {known:,} of them of training pairs"
    return f"the {count:,} translations of no training pair"
