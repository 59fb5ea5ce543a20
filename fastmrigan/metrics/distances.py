"""Every distance between the two sets of an evaluation, in every space of features there is."""

from __future__ import annotations

from fastmrigan.metrics import run_measures, spaces
from fastmrigan.metrics.evaluation_inputs import Inputs
from fastmrigan.metrics.extraction import FeatureNetwork, radiomic_network, random_network
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.paired import Float32
from fastmrigan.metrics.sources import untranslated_measures
from fastmrigan.metrics.spaces import Space

UNTRAINED = 2000  # slices drawn from the untrained generator, at most
ENOUGH = 2048  # below this many slices on a side the report warns


def distances(inputs: Inputs, chosen: set[str], sources: Float32 | None = None) -> list[Measure]:
    """Frechet and kernel distances in every space, and the manifold measures in the best one.

    sources: the slices [M, H, W] that were translated, whose own distance stands beside.
    """
    seed = inputs.asked.seed
    found: list[Measure] = []
    if chosen & {"frechet", "kid", "manifold"}:
        known = feature_spaces(inputs)
        for space in known:
            if "frechet" in chosen:
                taken = spaces.frechet_measures(space, seed)
                found += taken
                if space.key == "fd_random":
                    found += untrained(inputs, space, taken[0].value)
                    if sources is not None:
                        features = random_network()(sources, label="untranslated, fd-random")
                        distance, floor = taken[0].value, taken[1].value
                        found += untranslated_measures(space.real, features, distance, floor)
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


def sample_warnings(inputs: Inputs, chosen: set[str]) -> list[str]:
    """Whether the samples are too small for the Frechet distances among the measures `chosen`."""
    real, made = len(inputs.real.slices), len(inputs.made.slices)
    small = [f"{n:,} {kind}" for n, kind in ((real, "real"), (made, "synthetic")) if n < ENOUGH]
    if not small or not chosen & {"frechet", "radiomics"}:
        return []
    return [
        f"Small sample: {' and '.join(small)} slices. A Frechet distance grows as samples shrink; "
        f"below {ENOUGH:,} slices on each side compare it with the floor of the same real set "
        "only, and with nothing measured at another sample size."
    ]
