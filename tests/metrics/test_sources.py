"""Translations beside the slices they were made of."""

import json

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.quantise import to_float, to_uint8, to_uint16
from fastmrigan.metrics import evaluation
from fastmrigan.metrics.bootstrap import interval
from fastmrigan.metrics.classifier import train_tumour_classifier
from fastmrigan.metrics.evaluation import evaluate
from fastmrigan.metrics.evaluation_inputs import Asked
from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.frechet import frechet_distance
from fastmrigan.metrics.report import page
from fastmrigan.metrics.sources import untranslated_measures

NORMAL = list(range(60, 90))  # of the dataset; tumours come first


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, make):
    folder = tmp_path_factory.mktemp("labelled")
    slices = {"tumour": make.discs(60, 0, tumour=True), "normal": make.discs(30, 1, tumour=False)}
    data = make.dataset(folder / "data", slices)
    return data, slices


@pytest.fixture(scope="module")
def translated(tmp_path_factory, make, labelled):
    """Each normal slice with a blob of its own, in an order of its own."""
    data, slices = labelled
    fingerprint = PreparedDataset.open(data).info.fingerprint
    folder = tmp_path_factory.mktemp("translated") / "made"
    return make.shards(folder, blobbed(slices["normal"]), sources=(fingerprint, NORMAL[::-1]))


def blobbed(normal):
    """What `translated` holds, before it is written."""
    made = normal.copy()
    for number, each in enumerate(made):
        each[20 + number % 10 : 32 + number % 10, 24:36] += 0.6
    return made.clip(-1, 1)[::-1]


def test_the_distance_before_translation(labelled, translated):
    data, slices = labelled
    result = evaluate(Asked(data, translated, label="tumour", only=("frechet",)))
    real = random_features(on_disk(slices["tumour"]))
    before = frechet_distance(real, random_features(on_disk(slices["normal"][::-1])))
    found = result.value("fd_random_untranslated")
    assert found == pytest.approx(before, rel=1e-3)
    share = result.value("fd_random_over_untranslated")
    assert share == pytest.approx(result.value("fd_random") / before, rel=1e-3)
    assert 0 < share < 1


def test_nothing_is_left_of_no_distance(tmp_path, make):
    """Sources that are the real slices have a distance of rounding alone before translation."""
    slices = make.discs(30, 0, tumour=True)
    data = make.dataset(tmp_path / "data", {"head": slices})
    fingerprint = PreparedDataset.open(data).info.fingerprint
    made = make.shards(tmp_path / "made", -slices, sources=(fingerprint, list(range(30))))
    result = evaluate(Asked(data, made, only=("frechet",)))
    assert result.value("fd_random_untranslated") < 1e-9 < result.value("fd_random")
    assert result.value("fd_random_over_untranslated") is None
    near = random_features(on_disk(slices))
    apart = [m.key for m in untranslated_measures(near, near + np.float32(1), 1.0, 1.0)]
    assert apart == ["fd_random_untranslated", "fd_random_over_untranslated"]
    below = untranslated_measures(near, near + np.float32(1), 1.0, 101 * near.shape[1])
    assert [m.key for m in below] == ["fd_random_untranslated"]


def test_how_much_of_a_source_is_kept(labelled, translated):
    data, slices = labelled
    result = evaluate(Asked(data, translated, label="tumour", only=("sources",)))
    changed = result.changes
    want = [
        structural_similarity(
            a, b, data_range=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(changed.made.astype(float), changed.sources.astype(float), strict=True)
    ]
    np.testing.assert_allclose(changed.ssim, want, atol=2e-4)
    np.testing.assert_allclose(changed.sources, on_disk(slices["normal"][::-1]), atol=1e-6)
    assert result.value("source_ssim") == pytest.approx(np.mean(want), abs=2e-4)
    mae = np.abs(changed.made - changed.sources).mean()
    assert result.value("source_mae") == pytest.approx(mae, rel=1e-4)
    shown = list(changed.shown.values())
    assert changed.ssim[shown[0]] == changed.ssim.max()
    assert changed.ssim[shown[2]] == changed.ssim.min()
    told = page(result)
    assert "<h2>What changed</h2>" in told
    assert f"SSIM to its source {changed.ssim.min():.3f}" in told


@pytest.fixture(scope="module")
def called(labelled):
    """called(slices): the share that a classifier of `labelled` calls tumour, trained anew."""
    _, slices = labelled
    kept = [number % 5 != 0 for number in range(90)]  # all but the test slices
    rows = on_disk(np.concatenate([slices["tumour"], slices["normal"]]))[kept]
    tumour = (np.arange(90) < 60)[kept]
    network = train_tumour_classifier(rows, tumour, seed=0, steps=30, batch=32)
    return lambda x: float((network.predict_tumour(x) >= 0.5).mean())


def test_what_a_classifier_calls_the_sources(labelled, translated, called, short_classifier):
    """It was trained on the others: the held-out sources count."""
    data, slices = labelled
    asked = Asked(data, translated, label="tumour", classifier_data=data, only=("classifier",))
    found = {m.key: m for m in evaluate(asked).measures}
    made = called(to_float(to_uint8(blobbed(slices["normal"]))))
    before = called(on_disk(slices["normal"][::5]))  # 60, 65, ... of the dataset
    assert abs(made - before) > 0.2  # or an exchange of the two would not show
    assert found["called_tumour"].value == made
    assert found["called_tumour_untranslated"].value == before
    told = "6 held-out source slices, kept from its training"
    assert found["called_tumour_untranslated"].over == told


def test_sources_that_the_classifier_was_trained_on(labelled, tmp_path, make, short_classifier):
    data, slices = labelled
    fingerprint = PreparedDataset.open(data).info.fingerprint
    seen = [number for number in NORMAL if number % 5]
    made = make.shards(tmp_path / "made", slices["normal"][:24], sources=(fingerprint, seen))
    found = evaluate(Asked(data, made, "tumour", classifier_data=data, only=("classifier",)))
    assert found.value("called_tumour") is not None
    assert found.value("called_tumour_untranslated") is None


def test_a_classifier_of_another_dataset(labelled, called, tmp_path, make, short_classifier):
    """It has seen none of the sources: all count."""
    data, _ = labelled
    normal = make.discs(12, 5, tumour=False)
    normal[:5] = make.discs(5, 6, tumour=True)
    other = make.dataset(tmp_path / "other", {"head": normal})
    fingerprint = PreparedDataset.open(other).info.fingerprint
    made = make.shards(tmp_path / "made", normal, sources=(fingerprint, list(range(12))))
    found = evaluate(Asked(other, made, classifier_data=data, only=("classifier",))).measures
    before = next(m for m in found if m.key == "called_tumour_untranslated")
    want = called(on_disk(normal))
    assert 0 < want != called(on_disk(normal[::5]))
    assert (before.value, before.over) == (want, "12 source slices")


def test_sources_that_are_skipped(labelled, translated, monkeypatch, short_classifier):
    """They are not read, be it for a distance or for the classifier."""
    data, _ = labelled
    read = []
    take = evaluation.source_slices
    monkeypatch.setattr(evaluation, "source_slices", lambda x: read.append(1) or take(x))
    for options, loads in (
        ({"skip": ("sources", "copies", "radiomics", "kid", "manifold")}, 0),
        ({"only": ("diversity", "kid")}, 0),
        ({"only": ("frechet",)}, 1),
    ):
        read.clear()
        known = {} if options.get("only") else {"classifier_data": data}
        result = evaluate(Asked(data, translated, label="tumour", **options, **known))
        keys = {m.key for m in result.measures}
        assert len(read) == loads
        assert ("fd_random_untranslated" in keys) == bool(loads)
        assert not keys & {"called_tumour_untranslated", "source_ssim", "source_mae"}
        assert ("called_tumour" in keys) == bool(known)
        assert "sources" not in result.left_out


def test_intervals_over_patients(tmp_path, make):
    """Slices of one patient change alike: drawn by patient the interval is wider."""
    source = make.discs(20, 0, tumour=True)
    patients = [f"p{i // 4}" for i in range(20)]
    made = source.copy()
    for i, each in enumerate(made):
        each += np.float32(0.1 * (i // 4))
    data = make.pairs(tmp_path / "data", source, source, ["test"] * 20, patients)
    fingerprint = PreparedDataset.open(data).info.fingerprint
    order = list(range(19, -1, -1))
    folder = make.shards(tmp_path / "made", made.clip(-1, 1)[::-1], sources=(fingerprint, order))
    result = evaluate(Asked(data, folder, only=("sources",)))
    found = {m.key: m for m in result.measures}
    by_patient = np.arange(20)[::-1] // 4
    for key in ("ssim", "mae"):
        rows = getattr(result.changes, key)
        measure = found[f"source_{key}"]
        assert measure.interval == interval(np.mean, rows, seed=0, groups=[by_patient])
        assert measure.interval != interval(np.mean, rows, seed=0)
        assert measure.over == "20 translations, each with its source, of 5 patients"
    assert "translations beside their sources by patient" in page(result)


def test_sources_that_are_not_known(labelled, translated, tmp_path, make):
    data, slices = labelled
    fingerprint = PreparedDataset.open(data).info.fingerprint
    other = make.shards(tmp_path / "other", slices["normal"], sources=("f" * 64, NORMAL))
    told = (
        r"^--only sources: --real is not the prepared dataset that was translated \(the slices "
        rf"name fingerprint f{{12}}…, --real has {fingerprint[:12]}…\); give that dataset "
        "as --real$"
    )
    with pytest.raises(UsageError, match=told):
        evaluate(Asked(data, other, label="tumour", only=("sources",)))
    found = evaluate(Asked(data, other, label="tumour", only=("frechet",)))
    assert found.value("fd_random_untranslated") is None
    beyond = make.shards(
        tmp_path / "beyond", slices["normal"], sources=(fingerprint, [*NORMAL[1:], 99])
    )
    with pytest.raises(InputRejected, match="has no input for each translated slice"):
        evaluate(Asked(data, beyond, label="tumour", only=("sources",)))


def test_sampled_slices_have_no_sources(labelled, tmp_path, make):
    data, slices = labelled
    sampled = make.shards(tmp_path / "sampled", slices["tumour"])
    result = evaluate(Asked(data, sampled, label="tumour", only=("frechet", "diversity")))
    assert "sources" not in result.left_out
    assert result.changes is None
    assert "What changed" not in page(result)
    assert json.dumps(result.document())


def on_disk(slices):
    """As a prepared dataset keeps them."""
    return to_float(to_uint16(slices))
