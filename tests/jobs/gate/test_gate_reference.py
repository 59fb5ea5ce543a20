"""What the gate measures slices against: held-out slices, training slices, and which ones."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_model as tiny
from gate_worlds import COUNT, SHARD, SIDE, make, model_of, negative

from fastmrigan.errors import InputRejected
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.phantom import phantom_slices
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.radiomics import radiomic_row
from fastmrigan.jobs import gate_reference
from fastmrigan.jobs.gate import GateOptions
from fastmrigan.jobs.gate_copies import CopySearch
from fastmrigan.jobs.gate_reference import RIDGE, Outliers, Reference, outlier_limit
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.spec import Engine, JobSpec, Sampled
from fastmrigan.metrics.memorisation import find_copies
from fastmrigan.runtime.model_file import ModelMetadata, read_model_file


def test_limits_and_likeness_are_those_of_find_copies(world, reference):
    """Torch's search of all slices at once against NumPy's, one by one."""
    train, held_out = world.dataset.slices("train"), world.dataset.slices("test")
    made = np.concatenate([world.others, world.bank])
    theirs = find_copies(made, train, held_out, shown=False)
    ours = [reference.copies(x) for x in made]
    assert reference.copy_limit == pytest.approx(theirs.threshold, abs=1e-4)
    np.testing.assert_allclose([score for _, score in ours], theirs.score, atol=2e-6)
    sure = theirs.score > 0.1  # a constant slice is like none of them
    assert [i for i, _ in ours] == np.where(sure, theirs.nearest, [i for i, _ in ours]).tolist()
    assert [score > reference.copy_limit for _, score in ours] == theirs.flagged.tolist()


def by_brute_force(details: np.ndarray, query: np.ndarray) -> tuple[int, float]:
    """Every training slice [T, S, S] in every whole pose, by NumPy's own correlation."""
    best = (0, -2.0)
    for number, real in enumerate(details):
        centre = real[3:-3, 3:-3].ravel()
        for pose in (query, query[:, ::-1]):
            for down in range(7):
                for right in range(7):
                    window = pose[down : down + len(real) - 6, right : right + len(real) - 6]
                    score = float(np.corrcoef(centre, window.ravel())[0, 1])
                    best = max(best, (number, score), key=lambda found: found[1])
    return best


def test_the_nearest_is_found_by_brute_force_too(world):
    train = world.dataset.slices("train")[:12]
    search = CopySearch(len(train), lambda i: train[i])
    details = np.stack([search._detail(x) for x in train])
    for x in (world.others[0], world.bank[5], np.roll(train[3][:, ::-1], (2, 1), (0, 1))):
        index, score = search(x)
        wanted, least = by_brute_force(details, search._detail(x))
        assert index == wanted
        assert least - 1e-5 < score < least + 0.05  # half a pixel off may fit a little better


def test_other_sizes_are_compared_too():
    """At 128 and 32 pixels, oblong too, against torch's search."""
    for height, width in ((128, 128), (32, 32), (64, 100)):
        heads = (2 * phantom_slices(60, 128, seed=2).signals["t2"] - 1).astype(np.float32)
        slices = heads[:, :height, :width]
        made = np.concatenate([slices[50:], slices[:4, :, ::-1]])
        theirs = find_copies(made, slices[:30], slices[30:50], shown=False)
        search = CopySearch(30, lambda i, slices=slices: slices[i])
        np.testing.assert_allclose([search(x)[1] for x in made], theirs.score, atol=2e-6)


def test_distance_of_an_outlier():
    """Against the Mahalanobis distance by a linear system."""
    dice = np.random.default_rng(3)
    rows = dice.normal(2, 3, (50, 6)) @ dice.normal(0, 1, (6, 6))
    query = dice.normal(0, 9, 6)
    off = query - rows.mean(axis=0)
    deviations = rows - rows.mean(axis=0)
    covariance = deviations.T @ deviations / 49 + RIDGE * np.eye(6)
    wanted = np.sqrt(off @ np.linalg.solve(covariance, off))
    assert Outliers(rows)(query) == pytest.approx(wanted, rel=1e-9)
    assert Outliers(np.ones((30, 6)))(np.full(6, 1.05)) == pytest.approx(0.05 * 6**0.5 / 0.01)


def test_limit_of_outliers(world, reference):
    rows = np.array([radiomic_row(x) for x in world.dataset.slices("train")], np.float64)
    precision = np.linalg.inv(np.cov(rows.T) + RIDGE * np.eye(len(rows[0])))
    far = []
    for x in world.dataset.slices("test"):
        off = radiomic_row(x) - rows.mean(axis=0)
        far.append(np.sqrt(off @ precision @ off))
    assert len(far) > 20
    assert reference.outlier_limit == pytest.approx(outlier_limit(np.array(far)), abs=1e-3)
    assert reference.outlier_limit >= max(far) - 1e-3


@pytest.mark.parametrize(("count", "rate"), [(40, 0.02), (20_000, 0.0015)])
def test_few_real_slices_are_further_than_the_limit(count, rate):
    dice = np.random.default_rng(1)
    shares = []
    for _ in range(20):
        limit = outlier_limit(np.exp(dice.normal(1, 0.4, count)))
        shares.append((np.exp(dice.normal(1, 0.4, 20_000)) > limit).mean())
    assert np.mean(shares) < rate
    assert outlier_limit(np.array([1.0] * 990 + [9.0] * 10)) == pytest.approx(9)


@pytest.mark.parametrize(
    ("makes", "side"), [("t2", "targets"), ("t1", "slices"), (None, "targets")]
)
def test_of_pairs_the_side_that_the_model_makes(write_model, pairs, monkeypatch, makes, side):
    monkeypatch.setattr(gate_reference, "FEWEST_HELD_OUT", 5)
    path = negative(write_model, target_contrast=makes)
    dataset = PreparedDataset.open(pairs)
    reference = Reference.open(pairs, read_model_file(path).metadata)
    x = getattr(dataset, side)("train")
    textured = [i for i in range(len(x)) if x[i].std() > 0.1]
    for i in textured[:4]:
        index, score = reference.copies(x[i])
        assert (index, score) == (i, pytest.approx(1, abs=1e-4))


def test_of_several_labels_the_one_the_model_learned(write_model, world, tmp_path):
    for label, first in (("tumour", 0), ("normal", 60)):
        (tmp_path / "png" / label).mkdir(parents=True)
        for path in sorted((world.path.parent / "png").iterdir())[first : first + 60]:
            (tmp_path / "png" / label / path.name).write_bytes(path.read_bytes())
    data = tmp_path / "set"
    prepare(tmp_path / "png", data, PrepareOptions(size=SIDE, test_fraction=0.4))
    dataset = PreparedDataset.open(data)
    trained = {"fingerprint": dataset.info.fingerprint, "label": "tumour"}
    for facts, label in ((trained, "tumour"), ({"fingerprint": "x", "label": "tumour"}, None)):
        meta = ModelMetadata(**tiny.metadata(slice_size=[SIDE, SIDE], training_data=facts))
        found = Reference.open(data, meta)
        assert found.train.tolist() == dataset.select("train", label).tolist()


def test_a_reference_whose_bytes_have_changed(world, model, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in world.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    content = bytearray((copy / "slices.npy").read_bytes())
    content[-1] ^= 1
    (copy / "slices.npy").write_bytes(content)
    with pytest.raises(InputRejected, match="its bytes are not those of its fingerprint"):
        make(model, tmp_path / "out", GateOptions("drop", copy))


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_another_reference_is_refused_before_it_is_read(
    model, world, tmp_path, command, monkeypatch, finished, dry
):
    other = tmp_path / "other"
    options = PrepareOptions(size=SIDE, grading="minmax", test_fraction=0.4, label="")
    prepare(world.path.parent / "png", other, options)
    out = make(model, tmp_path / "out", GateOptions("drop", world.path))
    if not finished:
        (out / "shard-000001.tar").unlink()
    monkeypatch.setattr(Reference, "open", None)
    given = ["synth", model, "--out", out, "--count", COUNT, "--seed", 7, "--shard-size", SHARD]
    given += ["--precision", "fp32", "--batch", 8, "--mode", "latency"]
    given += ["--gate", "drop", "--gate-reference", other]
    code, stdout, stderr = command(*given, *dry)
    assert (code, stdout) == (2, "")
    there, here = (PreparedDataset.open(each).info.fingerprint for each in (world.path, other))
    assert there != here
    assert f"gate_reference is {there!r} there and {here!r} here" in stderr


def test_another_training_set_is_told(write_model, world, tmp_path):
    path = model_of(write_model, world, training_data={"fingerprint": "0" * 64})
    spec = JobSpec(
        Engine(path), Sampled(8), Output(tmp_path / "out"), GateOptions("drop", world.path)
    )
    (line,) = spec.work(read_model_file(path)).warnings
    assert "is not what the model was trained on" in line
