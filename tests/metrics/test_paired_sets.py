"""Translated slices against the true targets of a paired set, and which side is the truth."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.mask import brain_mask
from fastmrigan.imaging.prepare import PrepareOptions, prepare
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.metrics import paired, similarity
from fastmrigan.metrics.direction import direction_of
from fastmrigan.metrics.evaluation import evaluate
from fastmrigan.metrics.evaluation_inputs import Asked
from fastmrigan.metrics.paired import find_pairs, intensity_table, score_pairs
from fastmrigan.metrics.report import page
from fastmrigan.metrics.report_pictures import signed
from fastmrigan.metrics.report_tables import pairs_table, terminal_table
from fastmrigan.metrics.slice_sets import read_slice_set
from fastmrigan.metrics.translated import read_origins

SPLITS = ["train"] * 12 + ["guard"] * 2 + ["test"] * 6
PATIENTS = [f"p{i // 2}" for i in range(20)]


def test_a_translating_run_is_held_against_the_targets(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (6, 32, 32), dtype=np.uint8)
    for side, slices in {"source": drawn, "target": 255 - drawn}.items():
        (tmp_path / side).mkdir()
        for number, slice_ in enumerate(slices):
            Image.fromarray(slice_).save(tmp_path / side / f"{number}.png")
    options = PrepareOptions(size=32, pairs=tmp_path / "target", grading="minmax")
    prepare(tmp_path / "source", tmp_path / "data", options)
    sources = read_slice_set(tmp_path / "data")
    targets = read_slice_set(tmp_path / "data", twins=True)
    np.testing.assert_allclose(targets.slices, -sources.slices, atol=0.02)
    assert np.abs(sources.slices).mean() > 0.3
    assert (targets.facts["side"], sources.facts.get("side")) == ("targets of the pairs", None)


@pytest.fixture(scope="module")
def heads(make):
    """Sources, their targets (darker in the middle greys, textured) and a translation of them."""
    source = make.discs(20, 0, tumour=True)
    draws = np.random.default_rng(1)
    texture = draws.normal(0, 0.1, source.shape) * (source > -0.5)
    target = (source**3 + texture).clip(-1, 1).astype(np.float32)
    made = (target + draws.normal(0, 0.03, target.shape)).clip(-1, 1).astype(np.float32)
    return source, target, made


@pytest.fixture
def world_of_pairs(tmp_path, make, heads):
    """The dataset, and its translation in an order of its own."""
    source, target, made = heads
    data = make.pairs(tmp_path / "data", source, target, SPLITS, PATIENTS)
    order = list(range(19, -1, -1))
    dataset = PreparedDataset.open(data)
    folder = make.shards(tmp_path / "made", made[order], sources=(dataset.info.fingerprint, order))
    return SimpleNamespace(data=data, made=folder, order=order)


def reference(guess, truth):
    """MAE and PSNR of one pair, in float64."""
    error = guess.astype(np.float64) - truth
    return np.abs(error).mean(), 10 * np.log10(4 / np.square(error).mean())


def test_figures_and_floors(world_of_pairs, heads):
    source, target, made = heads
    result = evaluate(Asked(world_of_pairs.data, world_of_pairs.made, only=("pairs",)))
    rows = {row.measure.key: row for row in result.pairs.rows}
    test = range(14, 20)
    made = to_uint8(made) / 255.0 * 2 - 1  # as the shards keep it
    table = reference_table(source[:12], target[:12])
    guesses = {"made": made, "copy": source, "table": table[to_uint8(source)]}
    want = {
        name: np.mean([reference(guess[i], target[i]) for i in test], axis=0)
        for name, guess in guesses.items()
    }
    for place, key in enumerate(("mae", "psnr")):
        row = rows[key]
        found = (row.measure.value, row.copy, row.table)
        np.testing.assert_allclose(found, [want[n][place] for n in guesses], rtol=2e-4)
    assert rows["mae"].gain == pytest.approx(want["table"][0] - want["made"][0], rel=1e-3)
    assert rows["psnr"].gain == pytest.approx(want["made"][1] - want["table"][1], rel=1e-3)
    for row in rows.values():
        assert row.gain > 0  # this translation knows the texture
        assert row.gain_interval[0] <= row.gain <= row.gain_interval[1]
        assert row.measure.interval[0] <= row.measure.value <= row.measure.interval[1]
        assert row.measure.reference == row.table
    assert "ms_ssim" not in rows  # 64 pixels have no five scales
    assert any("too small for its scales" in note for note in result.pairs.notes)


def reference_table(sources, targets):
    table = np.full(256, np.nan)
    levels = to_uint8(sources)
    for level in range(256):
        if (levels == level).any():
            table[level] = targets[levels == level].astype(np.float64).mean()
    known = ~np.isnan(table)
    return np.interp(np.arange(256), np.flatnonzero(known), table[known])


def test_the_table_fills_levels_that_never_occur():
    source = np.array([[[-1.0, 1.0]]], np.float32)
    table = intensity_table(source, np.array([[[0.0, 0.51]]], np.float32))
    np.testing.assert_allclose(table, np.linspace(0, 0.51, 256), atol=1e-6)


def test_a_table_is_all_that_an_exchange_of_greys_needs(tmp_path, make, heads):
    source, _, _ = heads
    target = (-source).clip(-1, 1)
    data = make.pairs(tmp_path / "data", source, target, SPLITS)
    dataset = PreparedDataset.open(data)
    folder = make.shards(
        tmp_path / "made", source, sources=(dataset.info.fingerprint, list(range(20)))
    )
    found = evaluate(Asked(data, folder, only=("pairs",))).pairs
    rows = {row.measure.key: row for row in found.rows}
    assert rows["mae"].table < 0.005
    assert rows["mae"].measure.value == pytest.approx(rows["mae"].copy, abs=0.003)
    assert rows["mae"].gain < -0.5  # a plain copy is no translation
    assert "slices (6), since no patient is named" in " ".join(found.notes)


def test_held_out_pairs_are_judged(world_of_pairs):
    result = evaluate(Asked(world_of_pairs.data, world_of_pairs.made, only=("pairs",))).pairs
    assert result.held_out
    assert sorted(result.pairs.index[result.judged]) == list(range(14, 20))
    assert "6 held-out pairs (test) of 20 translated (12 train, 2 guard, 6 test)" in result.notes[0]
    assert "bootstrap over patients (3)" in " ".join(result.notes)
    scores = result.scores["translation"]["ssim_brain"]
    best, worst = result.shown["best"], result.shown["worst"]
    assert scores[best] == max(scores[result.judged])
    assert scores[worst] == min(scores[result.judged])
    document = result.document()
    assert len(document["slices"]) == 20
    assert [s["source_index"] for s in document["slices"]] == world_of_pairs.order
    json.dumps(document, allow_nan=False)


def test_no_held_out_pair_is_said(tmp_path, make, heads):
    source, target, made = heads
    data = make.pairs(tmp_path / "data", source, target, SPLITS)
    fingerprint = PreparedDataset.open(data).info.fingerprint
    folder = make.shards(tmp_path / "made", made[:5], sources=(fingerprint, list(range(5))))
    found = evaluate(Asked(data, folder, only=("pairs",))).pairs
    assert not found.held_out
    assert found.notes[0].startswith("No held-out pair was translated")


def test_patients_make_intervals_wider(heads):
    source, target, made = heads
    made = made.copy()
    draws = np.random.default_rng(3)
    for patient in range(10):  # patients differ from each other, slices of one hardly
        noise = draws.normal(0, draws.uniform(0.01, 0.3), (2, 64, 64))
        made[2 * patient : 2 * patient + 2] += noise.astype(np.float32)
    common = {
        "made": made.clip(-1, 1),
        "source": source,
        "truth": target,
        "index": np.arange(20),
        "split": np.array(["test"] * 20),
        "table": None,
    }
    widths = []
    for groups in (None, np.arange(20) // 2):
        rows = score_pairs(paired.Pairs(**common, groups=groups), seed=0).rows
        low, high = next(row.measure.interval for row in rows if row.measure.key == "mae")
        widths.append(high - low)
    assert widths[1] > 1.15 * widths[0]  # two alike say as much as one: about 1.41
    alone = score_pairs(paired.Pairs(**common, groups=np.zeros(20, np.int64)), seed=0)
    assert all(row.measure.interval is None for row in alone.rows)
    assert "No intervals: all pairs are of one patient, and say nothing of others." in alone.notes
    assert rows[0].table is None
    assert rows[0].measure.reference == rows[0].copy


def test_one_patient_that_is_named(tmp_path, make, heads):
    source, target, made = heads
    data = make.pairs(tmp_path / "data", source, target, SPLITS, ["alone"] * 20)
    fingerprint = PreparedDataset.open(data).info.fingerprint
    folder = make.shards(tmp_path / "made", made, sources=(fingerprint, list(range(20))))
    found = evaluate(Asked(data, folder, only=("pairs", "sources")))
    assert all(row.measure.interval is None for row in found.pairs.rows)
    assert "No intervals: all pairs are of one patient, and say nothing of others." in (
        found.pairs.notes
    )
    (change,) = [each for each in found.measures if each.key == "source_ssim"]
    assert change.interval is None
    assert change.over == "20 translations, each with its source, all of one patient"


def test_identical_and_blank_slices(heads):
    source, target, _ = heads
    source, target = source[:4].copy(), target[:4].copy()
    target[0] = source[0] = -1  # nothing in it: no brain, and a copy without error
    pairs = paired.Pairs(
        made=target,
        source=source,
        truth=target,
        index=np.arange(4),
        split=np.array(["test"] * 4),
        groups=None,
        table=None,
    )
    result = score_pairs(pairs, seed=0)
    keys = [row.measure.key for row in result.rows]
    assert not {"psnr", "psnr_brain"} & set(keys)  # all identical: no finite PSNR
    assert "3 of 4 pairs have one" in " ".join(result.notes)
    assert "identical to a pixel" in " ".join(result.notes)
    json.dumps(result.document(), allow_nan=False)


@pytest.mark.parametrize("exact", [4, 3])
def test_a_copy_that_is_the_truth(heads, exact):
    """Its PSNR is infinite, and that of the translation is told all the same."""
    _, target, made = heads
    source = target[:4].copy()
    source[exact:] += np.float32(0.1)
    pairs = paired.Pairs(
        made=made[:4],
        source=source,
        truth=target[:4],
        index=np.arange(4),
        split=np.array(["test"] * 4),
        groups=None,
        table=None,
    )
    result = score_pairs(pairs, seed=0)
    row = next(row for row in result.rows if row.measure.key == "psnr")
    want = np.mean([reference(a, b)[1] for a, b in zip(made[:4], target[:4], strict=True)])
    assert row.measure.value == pytest.approx(want, rel=1e-4)
    assert row.measure.over == "4 held-out pairs"
    floor = json.loads(json.dumps(result.document(), allow_nan=False))["floors"]["psnr"]
    told = (pairs_table(result.rows), terminal_table([row.measure]))
    if exact == 4:
        assert floor["plain_copy"] is None
        assert row.measure.reference is None
        assert '<td class="number" data-name="plain copy">exact</td>' in told[0]
        assert "The plain copy is exact." in told[1]
    else:  # the one that is not
        assert floor["plain_copy"] == pytest.approx(20 * np.log10(2 / 0.1), rel=1e-4)
        assert not any("exact" in text for text in told)
    assert "the plain copy is, of the plain copy's alone" in " ".join(result.notes)


def test_several_scales(make):
    """Where slices are large enough, MS-SSIM is there; a brain too small for it leaves it out."""
    truth = make.discs(3, 0, tumour=True, size=192)
    truth[2] = -1
    truth[2, :30, :30] = np.linspace(0, 1, 900, dtype=np.float32).reshape(30, 30)  # in a corner
    noise = np.random.default_rng(0).normal(0, 0.05, truth.shape).astype(np.float32)
    brains = np.stack([brain_mask(x) for x in truth])
    found = paired.scores_of(truth + noise, truth, brains)
    for i in range(2):
        one, other = (truth + noise)[i], truth[i]
        whole = similarity.ms_ssim(one, other, data_range=2.0)
        inside = similarity.ms_ssim(one, other, data_range=2.0, mask=brains[i])
        assert found["ms_ssim"][i] == pytest.approx(whole)
        assert found["ms_ssim_brain"][i] == pytest.approx(inside)
    assert np.isfinite(found["ms_ssim"][2])
    assert np.isnan(found["ms_ssim_brain"][2])
    assert np.isfinite(found["ssim_brain"][2])


@pytest.mark.parametrize("fmt", ["shard", "png", "npz"])
def test_origins_of_every_format(tmp_path, make, fmt):
    slices = make.discs(20, 0, tumour=True)
    index = list(range(100, 120))
    made = make.shards(tmp_path / "made", slices, fmt, sources=("f" * 64, index))
    found = read_origins(made, limit=18)
    assert (found.dataset, found.index.tolist()) == ("f" * 64, index[:18])
    assert read_origins(make.shards(tmp_path / "sampled", slices, fmt)) is None


def test_damaged_origins(tmp_path, make):
    made = make.shards(
        tmp_path / "made", make.discs(4, 0, tumour=True), sources=("f" * 64, [0, 1, 2, 3])
    )
    path = made / "shard-000000.tar"
    path.write_bytes(path.read_bytes().replace(b'"source_index"', b'"source_inde}"'))
    assert read_origins(made) is None
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputRejected, match=r"shard-000000.tar: not a whole shard"):
        read_origins(made)


def test_pairs_that_are_none(world_of_pairs, tmp_path, make, heads):
    made = heads[2]
    other = make.shards(tmp_path / "other", made, sources=("f" * 64, list(range(20))))
    with pytest.raises(UsageError, match=r"--only pairs: .*another dataset \(fingerprint ffffff"):
        evaluate(Asked(world_of_pairs.data, other, only=("pairs",)))
    sampled = make.shards(tmp_path / "sampled", made)
    with pytest.raises(UsageError, match="--only pairs: the synthetic slices name no inputs"):
        evaluate(Asked(world_of_pairs.data, sampled, only=("pairs",)))
    dataset = PreparedDataset.open(world_of_pairs.data)
    beyond = read_origins(
        make.shards(tmp_path / "beyond", made[:1], sources=(dataset.info.fingerprint, [99]))
    )
    with pytest.raises(InputRejected, match="has no input for each translated slice"):
        find_pairs(dataset, made[:1], beyond)


def trained(system="pix2pix", reverse=False, **dataset):
    """What a run's checkpoint tells."""
    recipe = SimpleNamespace(task="translate", system=system, reverse=reverse)
    return SimpleNamespace(recipe=recipe, dataset=dataset)


@pytest.mark.parametrize("reverse", [False, True])
def test_direction_of_pairs(world_of_pairs, reverse):
    """Whatever the run was trained for, its inputs here were the sources."""
    made = read_slice_set(world_of_pairs.made)
    run = trained(reverse=reverse, contrast="t1" if reverse else "t2")
    found = direction_of(world_of_pairs.data, made, run, None)
    assert found.targets
    assert found.origins.index.tolist() == world_of_pairs.order
    assert len(found.warnings) == reverse
    if reverse:
        assert found.warnings[0].startswith("The generator makes t1 slices, and the true targets")


@pytest.mark.parametrize(("reverse", "targets"), [(False, True), (True, False)])
def test_direction_without_pairs(world_of_pairs, tmp_path, make, heads, reverse, targets):
    sampled = read_slice_set(make.shards(tmp_path / "sampled", heads[2]))
    found = direction_of(world_of_pairs.data, sampled, trained(reverse=reverse), None)
    assert (found.targets, found.origins) == (targets, None)


def test_a_model_of_the_other_direction(tmp_path, make, write_model, heads):
    import tiny_model as tiny

    document = tiny.metadata(
        task="translate", latent_size=None, source_contrast="t2", target_contrast="t1"
    )
    document["training"] = {"back": True}
    document["training_data"] = {"label": "tumour", "source": {"label": "normal"}}
    model = write_model(document, tiny.tiny_graph("translate"))
    source, target, made = heads
    data = make.pairs(tmp_path / "data", source, target, SPLITS)
    theirs = ("f" * 64, list(range(20)))  # of another dataset
    sampled = read_slice_set(make.shards(tmp_path / "made", made, sources=theirs))
    with pytest.raises(UsageError, match=r"tiny.onnx: did not make the slices of"):
        direction_of(data, sampled, trained(), model)
    del sampled.facts["model_sha256"]  # as of a folder without run.json
    found = direction_of(data, sampled, trained("cyclegan"), model)
    assert not found.targets  # it makes sources
    assert found.facts["model, direction"] == "t2 to t1 (exported with --back)"
    assert direction_of(data, sampled, None, model).label == "normal"


def test_the_page_of_a_translation(world_of_pairs):
    found = evaluate(
        Asked(world_of_pairs.data, world_of_pairs.made, only=("pairs", "frechet", "diversity"))
    )
    text = page(found)
    for wanted in ("Against the true targets", "intensity table", "worst pair", "same heads"):
        assert wanted in text
    assert text.count("<img") == 2 + 3 * 4  # two sheets, three pairs of four panels
    assert "they keep the anatomy" in text


def test_colours_of_differences():
    grid = signed(np.array([[0.0, 0.5, -0.5, 2.0]], np.float32))
    assert grid.shape == (1, 4, 3)
    assert grid[0, 0].tolist() == [0, 0, 0]
    assert grid[0, 1, 0] == 255 > grid[0, 1, 2]  # too bright: red
    assert grid[0, 2, 2] == 255 > grid[0, 2, 0]  # too dark: blue
    assert (grid[0, 3] == grid[0, 1]).all()
