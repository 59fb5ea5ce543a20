"""Everything `fastmrigan evaluate` measures, gathered into one plain result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import fastmrigan
from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.metrics import classifier_measures, measures, run_measures, spaces
from fastmrigan.metrics.choice import MEASURES, SLOW, choose, named
from fastmrigan.metrics.evaluation_inputs import Asked, Inputs, read_inputs, settings, versions
from fastmrigan.metrics.extraction import FeatureNetwork, radiomic_network, random_network
from fastmrigan.metrics.inception import WEIGHTS
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.memorisation import FEWEST_HELD_OUT, find_copies
from fastmrigan.metrics.nearest import Nearest, by_correlation, of_copies
from fastmrigan.metrics.paired import PairResult, find_pairs, score_pairs
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.metrics.spaces import Space

KIND = "fastmrigan-evaluation"
SCHEMA = 2  # of report.json; 1 had neither intervals nor pairs
UNTRAINED = 2000  # slices drawn from the untrained generator, at most
ENOUGH = 2048  # below this many slices on a side the report warns
FEWEST_TOLD_APART = 8  # slices of a side of the two-sample test


@dataclass
class Evaluation:
    """Numbers for report.json, and the slices and curves that the page draws."""

    real: SliceSet
    synthetic: SliceSet
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    measures: list[Measure] = field(default_factory=list)
    pairs: PairResult | None = None
    nearest: Nearest | None = None  # pairs to look at for copies
    curves: list[dict[str, Any]] = field(default_factory=list)  # rows of the run's metrics.jsonl
    warnings: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # what was not measured: why

    def value(self, key: str) -> float | None:
        return next((m.value for m in self.measures if m.key == key), None)

    def document(self) -> dict[str, Any]:
        """What report.json holds."""
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "notice": fastmrigan.NOTICE,
            "measures": {
                m.key: {k: v for k, v in asdict(m).items() if k != "key"} for m in self.measures
            },
            "pairs": None if self.pairs is None else self.pairs.document(),
            "warnings": self.warnings,
            "not_measured": self.left_out,
            "settings": self.settings,
            "versions": self.versions,
        }


def evaluate(asked: Asked) -> Evaluation:
    """Measures synthetic slices against real ones, and translated ones against their targets.

    A measure that lacks what it needs is left out, with the reason; one asked for by name raises
    UsageError instead. Raises as `choose` and `read_inputs` do.
    """
    chosen = choose(asked.only, asked.skip, thorough=asked.thorough)
    inputs = read_inputs(asked, chosen)
    result = Evaluation(
        inputs.real,
        inputs.made,
        versions=versions(),
        curves=inputs.curves,
        warnings=[*inputs.direction.warnings, *sample_warnings(inputs)],
    )
    result.left_out = left_out(chosen, inputs)
    able = {name for name in chosen if not lacking(name, inputs)}
    if "pairs" in able:
        result.pairs = pair_result(inputs)
        result.measures += [row.measure for row in result.pairs.rows]
    result.measures += distances(inputs, able)
    if not inputs.inception and able & {"frechet", "kid"}:
        result.left_out["FID and KID"] = (
            f"need the published Inception weights; give --inception-weights {WEIGHTS}"
        )
    simple: dict[str, Callable[[Inputs], list[Measure]]] = {
        "diversity": diversity,
        "two-sample": two_sample,
        "classifier": classifier,
        "utility": utility,
        "discriminator": discriminator,
    }
    for name, take in simple.items():
        if name in able:
            result.measures += take(inputs)
    if "copies" in able:
        add_copies(result, inputs)
    elif "copies" in chosen and len(rows := unseen(inputs)):
        result.nearest = by_correlation(inputs.made, rows, inputs.real, asked.seed)
    result.settings = settings(inputs)  # now that the networks have run and know their drift
    return result


def left_out(chosen: frozenset[str], inputs: Inputs) -> dict[str, str]:
    """What is not measured, though nobody said so: why. UsageError for what was asked for by name.

    Where nothing was translated, nobody misses the pairs.
    """
    asked = inputs.asked
    unasked = frozenset() if asked.only else SLOW - chosen - named("--skip", asked.skip)
    found = {}
    for name in MEASURES:
        reason = lacking(name, inputs)
        if reason and name in chosen and asked.only:
            raise UsageError(f"--only {name}: {reason}")
        if reason and name in chosen and (name != "pairs" or translates(inputs)):
            found[name] = reason
        elif not reason and name in unasked:
            found[name] = f"takes minutes; give --thorough, or --only {name}"
    return found


def translates(inputs: Inputs) -> bool:
    """Whether the synthetic slices are translations, as far as is known."""
    trained = inputs.trained
    task = inputs.made.facts.get("task") if trained is None else trained.recipe.task
    return task == "translate"


def lacking(name: str, inputs: Inputs) -> str:
    """Why a measure cannot be taken of these inputs; empty where it can."""
    real, made = len(inputs.real.slices), len(inputs.made.slices)
    if name == "pairs":
        return inputs.direction.no_pairs
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
    if name == "discriminator" and (
        inputs.trained is None or inputs.trained.recipe.system != "gan"
    ):
        return "needs the --run of a GAN that makes slices from latents"
    return ""


def pair_result(inputs: Inputs) -> PairResult:
    origins = inputs.direction.origins
    assert origins is not None  # or lacking() had said so
    dataset = PreparedDataset.open(inputs.asked.real)
    return score_pairs(
        find_pairs(dataset, inputs.made.slices, origins, inputs.asked.label), inputs.asked.seed
    )


def distances(inputs: Inputs, chosen: set[str]) -> list[Measure]:
    """Frechet and kernel distances in every space, and the manifold measures in the best one."""
    seed = inputs.asked.seed
    found: list[Measure] = []
    if chosen & {"frechet", "kid", "manifold"}:
        known = feature_spaces(inputs)
        for space in known:
            if "frechet" in chosen:
                found += spaces.frechet_measures(space, seed)
                if space.key == "fd_random":
                    found += untrained(inputs, space, found[0].value)
            if "kid" in chosen:
                found += spaces.kernel_measures(space, seed)
        if "manifold" in chosen:
            found += spaces.manifold_measures(known[-1], seed)
    if "radiomics" in chosen:
        found += spaces.frechet_measures(
            space_of(
                inputs,
                radiomic_network(),
                ("fd_radiomic", "fd-radiomic", "", ""),
                "radiomic features inside the brain (intensity, co-occurrence, run lengths)",
            ),
            seed,
        )[:2]
    return found


def feature_spaces(inputs: Inputs) -> list[Space]:
    """The spaces that distances are taken in, the most telling one last."""
    found = [
        space_of(
            inputs,
            random_network(),
            ("fd_random", "fd-random", "kd_random", "kd-random"),
            "fixed random convolutional features",
            "It is not FID and does not compare with FID.",
        )
    ]
    if inputs.own is not None:
        assert inputs.asked.features is not None
        name = inputs.asked.features.name
        found.append(
            space_of(
                inputs,
                inputs.own,
                ("fd_own", f"fd, {name}", "kd_own", f"kd, {name}"),
                f"the features of {name}",
                "It is not FID and compares with nothing on other features.",
            )
        )
    if inputs.inception is not None:
        found.append(
            space_of(
                inputs,
                inputs.inception,
                ("fid", "FID", "kid", "KID"),
                "the published Inception features (grey replicated to three channels)",
                small_fid(inputs),
            )
        )
    return found


def space_of(
    inputs: Inputs,
    network: FeatureNetwork,
    names: tuple[str, str, str, str],
    features: str,
    remark: str = "",
) -> Space:
    return Space(
        *names,
        features,
        network(inputs.real.slices, label=f"real slices, {names[1]}"),
        network(inputs.made.slices, label=f"synthetic slices, {names[1]}"),
        inputs.real.groups,
        remark,
    )


def untrained(inputs: Inputs, space: Space, distance: float) -> list[Measure]:
    if inputs.asked.run is None or inputs.trained is None or inputs.trained.recipe.task != "sample":
        return []
    count = min(UNTRAINED, len(inputs.made.slices))
    made = run_measures.untrained_slices(inputs.asked.run, count, inputs.asked.seed)
    features = random_network()(made, label="untrained slices, fd-random")
    return run_measures.untrained_measures(space.real, features, distance)


def small_fid(inputs: Inputs) -> str:
    """The warning that stands beside an FID of few slices."""
    fewest = min(len(inputs.real.slices), len(inputs.made.slices))
    if fewest >= ENOUGH:
        return ""
    return (
        f"Small sample: with {fewest:,} slices on a side (fewer than {ENOUGH:,}) FID is far too "
        "high; hold it against the floor of these real slices alone, and against no published FID."
    )


def diversity(inputs: Inputs) -> list[Measure]:
    return [measures.diversity(inputs.real.slices, inputs.made.slices, inputs.asked.seed)]


def two_sample(inputs: Inputs) -> list[Measure]:
    return classifier_measures.two_sample_measures(inputs.real, inputs.made, inputs.asked.seed)


def classifier(inputs: Inputs) -> list[Measure]:
    assert inputs.labelled is not None
    return classifier_measures.tumour_measures(*inputs.labelled, inputs.made, inputs.asked.seed)


def utility(inputs: Inputs) -> list[Measure]:
    assert inputs.labelled is not None
    return classifier_measures.utility_measures(*inputs.labelled, inputs.made, inputs.asked.seed)


def discriminator(inputs: Inputs) -> list[Measure]:
    assert inputs.asked.run is not None
    return run_measures.discriminator_measures(
        inputs.asked.run, inputs.real, inputs.made, inputs.asked.seed
    )


def add_copies(result: Evaluation, inputs: Inputs) -> None:
    """Copies by pixels, which the page shows, and by the features of a trained network."""
    real, rows = inputs.real, unseen(inputs)
    made = inputs.made.slices[rows]
    copies = find_copies(made, real.train, real.test)
    result.nearest = of_copies(copies, rows, real, inputs.asked.seed)
    result.measures += measures.copies_measures(copies)
    for key, name, network in (
        ("copies_inception", "Inception features", inputs.inception),
        ("copies_own", "own features", inputs.own),
    ):
        if network is not None:
            found = find_copies(made, real.train, real.test, features=network)
            result.measures += measures.copies_measures(found, key, name)
    result.measures.append(measures.copying(made, real.train, real.test, inputs.asked.seed))


def unseen(inputs: Inputs) -> npt.NDArray[np.int64]:
    """Synthetic slices that may be held against the training slices, [Q].

    The translation of a training pair is meant to be like its target: it is no copy.
    """
    origins = inputs.direction.origins
    if origins is None:
        return np.arange(len(inputs.made.slices))
    train = PreparedDataset.open(inputs.asked.real).select("train")
    return np.flatnonzero(~np.isin(origins.index, train))


def sample_warnings(inputs: Inputs) -> list[str]:
    real, made = len(inputs.real.slices), len(inputs.made.slices)
    small = [f"{n:,} {kind}" for n, kind in ((real, "real"), (made, "synthetic")) if n < ENOUGH]
    if not small:
        return []
    return [
        f"Small sample: {' and '.join(small)} slices. A Frechet distance grows as samples shrink; "
        f"below {ENOUGH:,} slices on each side compare it with the floor of the same real set "
        "only, and with nothing measured at another sample size."
    ]
