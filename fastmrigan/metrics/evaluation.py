"""Everything `fastmrigan evaluate` measures, gathered into one plain result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import fastmrigan
from fastmrigan.imaging.dataset import PreparedDataset, read_info
from fastmrigan.metrics import classifier_measures, measures, run_measures
from fastmrigan.metrics.choice import choose, named
from fastmrigan.metrics.distances import distances, sample_warnings
from fastmrigan.metrics.evaluation_inputs import Asked, Inputs, read_inputs, settings, versions
from fastmrigan.metrics.inception import WEIGHTS
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.memorisation import find_copies
from fastmrigan.metrics.nearest import Nearest, by_correlation, of_copies
from fastmrigan.metrics.needs import lacking, left_out, over_made, over_sets, unseen
from fastmrigan.metrics.paired import PairResult, find_pairs, score_pairs
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.metrics.sources import Changes, Sources, change_measures, changes, source_slices

KIND = "fastmrigan-evaluation"
SCHEMA = 2  # of report.json; 1 had neither intervals nor pairs


@dataclass
class Evaluation:
    """Numbers for report.json, and the slices and curves that the page draws."""

    real: SliceSet
    synthetic: SliceSet
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    measures: list[Measure] = field(default_factory=list)
    pairs: PairResult | None = None
    changes: Changes | None = None  # from source slices to their translations
    nearest: Nearest | None = None  # pairs to look at for copies
    curves: list[dict[str, Any]] = field(default_factory=list)  # rows of the run's metrics.jsonl
    warnings: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # what was not measured: why
    over: str = ""  # which slices a figure of the whole sets is over

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
        left_out=left_out(chosen, inputs),
        over=over_sets(inputs),
    )
    able = {name for name in chosen if not lacking(name, inputs)}
    result.warnings = [*inputs.direction.warnings, *sample_warnings(inputs, able)]
    if "pairs" in able:
        result.pairs = pair_result(inputs)
        result.measures += [row.measure for row in result.pairs.rows]
    sources = None  # of which the translations were made
    if able & {"frechet", "sources", "classifier"} and "sources" not in named("--skip", asked.skip):
        sources = source_slices(inputs)
    result.measures += distances(inputs, able, None if sources is None else sources.slices)
    if "sources" in able and sources is not None:
        result.changes = changes(sources, inputs.made.slices)
        result.measures += change_measures(result.changes, asked.seed)
    if not inputs.inception and able & {"frechet", "kid"}:
        result.left_out["FID and KID"] = (
            f"need the published Inception weights; give --inception-weights {WEIGHTS}"
        )
    if able & {"diversity", "classifier"}:  # without variety nothing follows from a share
        add_variety(result, inputs, able, sources)
    simple: dict[str, Callable[[Inputs], list[Measure]]] = {
        "two-sample": two_sample,
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
    result.measures = [m if m.over else replace(m, over=result.over) for m in result.measures]
    result.settings = settings(inputs)  # now that the networks have run and know their drift
    return result


def pair_result(inputs: Inputs) -> PairResult:
    origins = inputs.direction.pairs
    assert origins is not None  # or lacking() had said so
    dataset = PreparedDataset.open(inputs.asked.real)
    return score_pairs(
        find_pairs(dataset, inputs.made.slices, origins, inputs.asked.label), inputs.asked.seed
    )


def add_variety(
    result: Evaluation, inputs: Inputs, able: set[str], sources: Sources | None
) -> None:
    """How like each other the slices are, and what a classifier calls them, beside it."""
    seed = inputs.asked.seed
    likeness = measures.diversity(inputs.real.slices, inputs.made.slices, seed)
    result.warnings += measures.collapse_warnings(likeness)
    if "diversity" in able:
        result.measures.append(likeness)
    if "classifier" in able:
        assert inputs.labelled is not None
        known = sources is not None and trains_on_sources(inputs)
        found = classifier_measures.tumour_measures(
            *inputs.labelled,
            inputs.made,
            seed,
            measures.variety_remark(likeness),
            sources,
            known=known,
        )
        over = over_made(inputs, len(inputs.made.slices))
        result.measures += [m if m.over else replace(m, over=over) for m in found]


def trains_on_sources(inputs: Inputs) -> bool:
    """Whether --classifier-data is the dataset that was translated."""
    origins, data = inputs.direction.origins, inputs.asked.classifier_data
    if origins is None or data is None:
        return False
    return read_info(data).fingerprint == origins.dataset


def two_sample(inputs: Inputs) -> list[Measure]:
    return classifier_measures.two_sample_measures(inputs.real, inputs.made, inputs.asked.seed)


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
    by_pixels = find_copies(made, real.train, real.test)
    result.nearest = of_copies(by_pixels, inputs.made, rows, real, inputs.asked.seed)
    found = measures.copies_measures(by_pixels)
    for key, name, network in (
        ("copies_inception", "Inception features", inputs.inception),
        ("copies_own", "own features", inputs.own),
    ):
        if network is not None:
            seen = partial(network, shown=False)
            copies = find_copies(made, real.train, real.test, features=seen, pixels=by_pixels)
            found += measures.copies_measures(copies, key, name)
    found.append(measures.copying(made, real.train, real.test, inputs.asked.seed))
    over = over_made(inputs, len(rows))
    result.measures += [replace(m, over=over) for m in found]
