"""The quality gate: what it refuses, why, and that everything else stays as it was."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import tiny_model as tiny
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset, RecordedPosition
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.phantom import phantom_slices
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.radiomics import radiomic_row
from fastmrigan.imaging.send.source import Found, files, look
from fastmrigan.jobs import gate_reference, receipts
from fastmrigan.jobs.gate import Gate, GateOptions, summary
from fastmrigan.jobs.gate_copies import CopySearch
from fastmrigan.jobs.gate_reference import RIDGE, Outliers, Reference, outlier_limit
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Content, Plan
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.spec import Engine, JobSpec, Sampled
from fastmrigan.jobs.translation import translate
from fastmrigan.metrics.memorisation import find_copies
from fastmrigan.metrics.paired import find_pairs
from fastmrigan.metrics.slice_sets import read_slice_set
from fastmrigan.metrics.translated import read_origins
from fastmrigan.runtime import load
from fastmrigan.runtime.latents import normal_latents
from fastmrigan.runtime.model_file import ModelMetadata, read_model_file

SIDE = 32
COUNT, SHARD = 60, 16
# What the model makes of a latent, by which of its 8 numbers is the largest
MAKES = ("head", "head", "blank", "saturated", "outlier", "copy", "head", "copy")


def stretched(x: np.ndarray) -> np.ndarray:
    """Each slice [N, H, W] to the whole of [-1, 1], as `prepare` does with --grading minmax."""
    low, high = x.min(axis=(1, 2), keepdims=True), x.max(axis=(1, 2), keepdims=True)
    return (2 * (x - low) / (high - low) - 1).astype(np.float32)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> SimpleNamespace:
    """A prepared training set of phantoms, slices of other heads, and what a model may make."""
    folder = tmp_path_factory.mktemp("gate")
    heads = stretched(phantom_slices(150, SIDE, seed=5).signals["t2"])
    (folder / "png").mkdir()
    for number, x in enumerate(heads[:120]):
        grey = np.rint((x + 1) * 32767.5).astype(np.uint16)
        Image.fromarray(grey).save(folder / "png" / f"{number:03}.png")
    options = PrepareOptions(
        size=SIDE, grading="minmax", contrast="t2", test_fraction=0.3, label=""
    )
    prepare(folder / "png", folder / "set", options)
    dataset = PreparedDataset.open(folder / "set")
    train = dataset.select("train")
    dice = np.random.default_rng(0)
    grey = np.linspace(-1, 1, SIDE, dtype=np.float32)
    bank = {
        0: heads[130],
        1: heads[131],
        2: np.full((SIDE, SIDE), -0.99, np.float32),
        3: np.where(grey[:, None] > -0.4, 1, grey[None]),
        4: dice.normal(0, 0.5, (SIDE, SIDE)),
        5: dataset.slices("train")[7],
        6: heads[132],
        7: np.roll(dataset.slices("train")[11][:, ::-1], (1, -2), (0, 1)),
    }
    assert list(bank) == list(range(tiny.LATENT))
    return SimpleNamespace(
        path=folder / "set",
        dataset=dataset,
        copied={5: train[7], 7: train[11]},
        others=heads[120:],
        bank=np.stack(list(bank.values())).clip(-1, 1).astype(np.float32),
    )


def bank_graph(bank: np.ndarray) -> onnx.ModelProto:
    """latent -> bank[argmax(latent)], a slice of the bank [8, H, W]."""
    side = bank.shape[-1]
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", tiny.LATENT])]
    output = helper.make_tensor_value_info("slice", TensorProto.FLOAT, ["batch", 1, side, side])
    nodes = [
        helper.make_node("ArgMax", ["latent"], ["which"], axis=1, keepdims=0),
        helper.make_node("Gather", ["bank", "which"], ["slice"], axis=0),
    ]
    graph = helper.make_graph(
        nodes, "bank", inputs, [output], [numpy_helper.from_array(bank[:, None], "bank")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def model_of(write_model, world, **changes: object) -> Path:
    facts = {"slice_size": [SIDE, SIDE], "target_contrast": "t2"}
    facts["training_data"] = {"fingerprint": world.dataset.info.fingerprint}
    return write_model(tiny.metadata(**(facts | changes)), bank_graph(world.bank), "bank.onnx")


@pytest.fixture
def model(write_model, world) -> Path:
    return model_of(write_model, world)


@pytest.fixture(scope="module")
def reference(world) -> Reference:
    return Reference.open(world.path, ModelMetadata(**tiny.metadata(slice_size=[SIDE, SIDE])))


def expected(seed: int, count: int) -> list[int]:
    """Which slice of the bank each slice is."""
    return normal_latents(seed, 0, count, tiny.LATENT).argmax(axis=1).tolist()


def refused(seed: int = 7, count: int = COUNT) -> dict[int, str]:
    return {i: MAKES[k] for i, k in enumerate(expected(seed, count)) if MAKES[k] != "head"}


def members(folder: Path) -> dict[str, bytes]:
    """What lies in the shards of a folder, by name, without our readers."""
    found = {}
    for path in sorted(folder.glob("shard-*")):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                found |= {m.name: tar.extractfile(m).read() for m in tar}
        elif path.is_dir():
            found |= {file.name: file.read_bytes() for file in sorted(path.iterdir())}
        else:
            with np.load(path) as arrays:
                slices = zip(arrays["index"].tolist(), arrays["slices"], strict=True)
                found |= {str(index): x.tobytes() for index, x in slices}
    return found


def everything(folder: Path) -> dict[str, str]:
    """sha256 of every file of a job's folder, but for the lock and what tells of a run's times."""
    passed_over = {".lock", "status.json", "log.jsonl", "job.html"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in passed_over
    }


def verdicts(folder: Path, action: str = "drop") -> dict[int, str]:
    found: dict[int, str] = {}
    for path in sorted((folder / "receipts").glob("*.json")):
        receipt = receipts.read(path)
        kept, other = (receipt.left_out, receipt.flagged)[:: 1 if action == "drop" else -1]
        assert not other
        found |= kept
    return found


def make(model: Path, out: Path, gate: GateOptions | None, **settings: object) -> Path:
    given = {"seed": 7, "shard_size": SHARD} | settings
    synthesise(load(model, precision="fp32", batch=8), JobOptions(out, COUNT, **given), gate)
    return out


def test_the_model_makes_every_kind():
    counts = Counter(MAKES[k] for k in expected(7, COUNT))
    assert set(counts) == set(MAKES)
    assert counts["head"] > COUNT // 4


@pytest.mark.parametrize("format", ["shard", "npz", "png", "dicom", "dicom-files"])
def test_what_is_refused_is_not_there_and_the_rest_is_as_it_was(model, world, tmp_path, format):
    gate = GateOptions("drop", world.path)
    out = make(model, tmp_path / "out", gate, format=format)
    plain = make(model, tmp_path / "plain", None, format=format)
    assert {i: why.partition(":")[0] for i, why in verdicts(out).items()} == refused()
    kept = [i for i in range(COUNT) if i not in refused()]
    assert [index for index, _ in read_slices(out)] == kept
    before, after = members(plain), members(out)
    assert after == {name: before[name] for name in before if int(name.split(".")[0]) in kept}
    found = read_slice_set(out)
    assert found.slices.shape == (len(kept), SIDE, SIDE)
    assert [found.number(row) for row in range(len(kept))] == kept
    assert receipts.left_out(plain) == {}
    if format.startswith("dicom"):
        found = Found()
        for name, path in files(out, found):
            look(name, path, found)
        assert (len(found.items), found.refused) == (len(kept), [])


def test_what_is_flagged_is_there(model, world, tmp_path):
    flagged = make(model, tmp_path / "flagged", GateOptions("flag", world.path))
    plain = make(model, tmp_path / "plain", None)
    assert {i: why.partition(":")[0] for i, why in verdicts(flagged, "flag").items()} == refused()
    before, after = everything(plain), everything(flagged)
    apart = {name for name in before | after if before.get(name) != after.get(name)}
    hit = {f"receipts/shard-{index // SHARD:06}.tar.json" for index in refused()}
    assert apart == hit | {"run.json"}
    for name in hit:
        ours, theirs = (json.loads((folder / name).read_text()) for folder in (flagged, plain))
        seals = {ours.pop(receipts.SEAL), theirs.pop(receipts.SEAL)}
        assert len(seals) == 2
        assert ours | {"flagged": {}} == theirs


def told(out: Path, shards: slice = slice(None)) -> str:
    return summary(Output(out, shard_size=SHARD), list(Plan(COUNT, SHARD))[shards], "drop")


def test_what_is_said(model, world, tmp_path):
    out = make(model, tmp_path / "out", GateOptions("drop", world.path))
    pinned = json.loads((out / "run.json").read_text())
    limits = pinned["gate_limits"]
    for index, why in verdicts(out).items():
        which = expected(7, COUNT)[index]
        if MAKES[which] == "copy":
            assert why.startswith(f"copy: of training slice {world.copied[which]}, likeness ")
            assert float(why.split("likeness ")[1].split(",")[0]) > limits["copy"]
        elif MAKES[which] == "outlier":
            assert why.endswith(f"from the training slices, above {limits['outlier']}")
        elif MAKES[which] == "blank":
            assert why == "blank: standard deviation 0.0000 of the grey range, below 0.02"
        else:
            assert why == "saturated: 70% of it white, above 50%"
    counts = Counter(refused().values())
    assert told(out) == (
        f"{len(refused())} dropped: {counts['blank']} blank, {counts['saturated']} saturated, "
        f"{counts['outlier']} outliers, {counts['copy']} copies of training slices"
    )


def test_without_a_reference_blank_and_saturated_slices_alone(model, tmp_path):
    out = make(model, tmp_path / "out", GateOptions("drop"))
    wanted = {i: kind for i, kind in refused().items() if kind in ("blank", "saturated")}
    assert {i: why.partition(":")[0] for i, why in verdicts(out).items()} == wanted


@pytest.mark.parametrize("action", ["drop", "flag"])
def test_a_resumed_job_has_the_same_bytes(model, world, tmp_path, action):
    gate = GateOptions(action, world.path)
    out = make(model, tmp_path / "out", gate)
    before = everything(out)
    for name in ("shard-000001.tar", "shard-000003.tar", "receipts/shard-000001.tar.json"):
        (out / name).unlink()
    assert everything(make(model, out, gate)) == before


def test_a_verdict_does_not_depend_on_the_shard(model, world, tmp_path):
    found = [
        verdicts(
            make(model, tmp_path / str(size), GateOptions("drop", world.path), shard_size=size)
        )
        for size in (1, 7, COUNT)
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("began", "goes_on", "named"),
    [
        ("drop", None, "gate is 'drop' there and None here"),
        (None, "drop", "gate is None there and 'drop' here"),
        ("drop", "flag", "gate is 'drop' there and 'flag' here"),
        ("drop with reference", "drop", "gate_reference is '[0-9a-f]{64}' there and None here"),
    ],
)
def test_another_gate_in_the_same_folder_is_refused(model, world, tmp_path, began, goes_on, named):
    def options(text: str | None) -> GateOptions | None:
        if text is None:
            return None
        return GateOptions(text.split()[0], world.path if "with" in text else None)

    out = make(model, tmp_path / "out", options(began))
    with pytest.raises(UsageError, match=rf"run.json: {named}"):
        make(model, out, options(goes_on))


def test_what_is_pinned(model, world, tmp_path, reference):
    pinned = json.loads(
        (make(model, tmp_path / "out", GateOptions("flag", world.path)) / "run.json").read_text()
    )
    assert pinned["gate"] == "flag"
    assert pinned["gate_reference"] == world.dataset.info.fingerprint
    assert pinned["gate_limits"] == {
        "blank": 0.02,
        "saturated": 0.5,
        "outlier": reference.outlier_limit,
        "copy": reference.copy_limit,
    }


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


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("amplitude", "white", "why"),
    [
        (0.0, 0, "blank: standard deviation 0.0000"),
        (0.018, 0, "blank"),
        (0.022, 0, None),
        (0.3, 0.49, None),
        (0.3, 0.51, "saturated: 51%"),
        (0.0, 1, "blank"),
    ],
)
def test_blank_and_saturated(depth, amplitude, white, why):
    top = np.iinfo(depth).max
    x = np.where(np.arange(10_000) % 2 == 0, 0.4 - amplitude, 0.4 + amplitude) * top
    x[: round(white * len(x))] = top
    found = Gate().verdict(np.rint(x).astype(depth).reshape(100, 100))
    assert found is None if why is None else found.startswith(why)


@pytest.mark.parametrize("format", ["shard", "npz", "png", "dicom", "dicom-files"])
def test_a_job_of_nothing_but_blank_slices(write_model, tmp_path, format):
    blank = np.zeros((tiny.LATENT, 16, 16), np.float32)
    path = write_model(tiny.metadata(), bank_graph(blank))
    out = make(path, tmp_path / "out", GateOptions("drop"), format=format)
    assert list(read_slices(out)) == []
    assert set(verdicts(out)) == set(range(COUNT))
    before, found = everything(out), Found()
    assert everything(make(path, out, GateOptions("drop"), format=format)) == before
    for name, file in files(out, found):
        look(name, file, found)
    assert (found.items, found.refused) == ([], [])


def negative(write_model, **changes: object) -> Path:
    document = tiny.metadata(task="translate", latent_size=None, **changes)
    return write_model(document, tiny.tiny_graph("translate"), "negative.onnx")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """40 pairs at 16x16 of which 10 sources are blank."""
    folder = tmp_path_factory.mktemp("pairs")
    dice = np.random.default_rng(0)
    for side in ("source", "target"):
        (folder / side).mkdir()
        for number in range(40):
            x = dice.integers(0, 256, (16, 16), dtype=np.uint8)
            if side == "source" and number % 4 == 1:
                x = np.full((16, 16), 40, np.uint8)
                x[0, 0] = number  # duplicates are left out
            Image.fromarray(x).save(folder / side / f"{number:02}.png")
    options = PrepareOptions(
        size=16,
        grading="window:0:255",
        pairs=folder / "target",
        contrast="t1",
        target_contrast="t2",
        test_fraction=0.5,
        label="",
        min_brain=0,
    )
    prepare(folder / "source", folder / "set", options)
    return folder / "set"


def test_translations_of_blank_inputs_and_the_pairs_that_are_left(write_model, pairs, tmp_path):
    dataset, out = PreparedDataset.open(pairs), tmp_path / "out"
    sources = dataset.slices("all")
    blank = [i for i, x in enumerate(sources) if x.std() / 2 < 0.02]
    assert 5 < len(blank) < len(sources)
    generator = load(negative(write_model), precision="fp32", batch=3)
    translate(generator, dataset, Output(out, shard_size=7), gate=GateOptions("drop"))
    assert sorted(verdicts(out)) == blank
    made, origins = read_slice_set(out), read_origins(out)
    assert origins.index.tolist() == [i for i in range(len(sources)) if i not in blank]
    found = find_pairs(dataset, made.slices, origins)
    np.testing.assert_allclose(found.made, -sources[origins.index], atol=0.01)
    np.testing.assert_array_equal(found.truth, dataset.targets("all")[origins.index])


def test_translated_dicom_with_gaps(write_model, pairs, tmp_path):
    """Every file that is there is byte by byte what it is without a gate."""
    dataset, generator = PreparedDataset.open(pairs), load(negative(write_model), precision="fp32")
    folders = [tmp_path / name for name in ("plain", "gated")]
    for folder, gate in zip(folders, (None, GateOptions("drop")), strict=True):
        translate(generator, dataset, Output(folder, "dicom", 7), gate=gate)
    plain, gated = map(members, folders)
    assert 0 < len(gated) < len(plain)
    assert gated == {name: plain[name] for name in gated}
    assert read_origins(folders[1]).index.tolist() == [i for i, _ in read_slices(folders[1])]


def test_flagged_slices_of_a_volume(write_model, pairs, tmp_path):
    pytest.importorskip("nibabel")
    dataset, generator = PreparedDataset.open(pairs), load(negative(write_model), precision="fp32")
    for number, record in enumerate(dataset.records):
        place = RecordedPosition(
            origin=(0, 0, 2.0 * number), row=(1, 0, 0), column=(0, 1, 0), spacing=(1, 1)
        )
        placed = {"series": number // 20, "order": number, "position": place}
        dataset.records[number] = record.model_copy(update=placed)
    folders = [tmp_path / name for name in ("plain", "gated")]
    for folder, gate in zip(folders, (None, GateOptions("flag")), strict=True):
        translate(generator, dataset, Output(folder, "nifti"), gate=gate)
    for name in ("series-000000.nii.gz", "series-000001.nii.gz"):
        plain, gated = ((folder / name).read_bytes() for folder in folders)
        assert plain == gated
    found = verdicts(folders[1], "flag")
    assert sorted(found) == [i for i, x in enumerate(dataset.slices("all")) if x.std() / 2 < 0.02]


def test_translations_of_training_slices_are_no_copies(write_model, world, tmp_path):
    """They are meant to be like their twins; slices of no known origin are not."""
    shape = ["batch", 1, SIDE, SIDE]
    kind = TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(name, kind, shape) for name in ("source", "slice")]
    node = helper.make_node("Identity", ["source"], ["slice"])
    graph = helper.make_graph([node], "same", ports[:1], ports[1:])
    opset = [helper.make_opsetid("", 17)]
    document = tiny.metadata(task="translate", latent_size=None, slice_size=[SIDE, SIDE])
    path = write_model(document, helper.make_model(graph, opset_imports=opset, ir_version=9))
    other = tmp_path / "other"
    options = PrepareOptions(size=SIDE, grading="minmax", test_fraction=0.5, label="")
    prepare(world.path.parent / "png", other, options)
    gate, found = GateOptions("drop", world.path), {}
    for source in (world.path, other):
        dataset, out = PreparedDataset.open(source), tmp_path / "out" / source.name
        translate(load(path, precision="fp32", batch=8), dataset, Output(out), gate=gate)
        found[source] = [why for why in verdicts(out).values() if why.startswith("copy: ")]
    assert found[world.path] == []
    assert len(found[other]) >= 0.95 * len(world.dataset.select("train"))


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


def test_refusals(write_model, world, tmp_path):
    """Each in one line, before an engine is opened."""
    small = tmp_path / "small"
    (tmp_path / "png").mkdir()
    for path in sorted((world.path.parent / "png").iterdir())[:40]:
        (tmp_path / "png" / path.name).write_bytes(path.read_bytes())
    options = {"size": SIDE, "test_fraction": 0.1, "label": ""}
    prepare(tmp_path / "png", small, PrepareOptions(**options))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in small.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "dataset.json").write_text("{}")
    there = world.path
    for changes, format, options, error, text in (
        ({}, "shard", GateOptions("keep"), UsageError, "--gate keep: unknown; choose one of drop"),
        ({}, "shard", GateOptions("drop", tmp_path), UsageError, "not a prepared data set"),
        ({}, "shard", GateOptions("drop", damaged), InputRejected, "a damaged data set"),
        ({}, "shard", GateOptions("flag", small), UsageError, "4 held-out slices, at least 20 are"),
        (
            {"target_contrast": "t1"},
            "shard",
            GateOptions("drop", there),
            UsageError,
            "slices are t2, the model makes t1; give the dataset it was trained on",
        ),
        (
            {"slice_size": [16, 16]},
            "shard",
            GateOptions("drop", there),
            UsageError,
            "slices are 32x32, the model makes 16x16",
        ),
        ({}, "nifti", GateOptions("drop"), UsageError, "--gate drop: a volume cannot have holes"),
    ):
        meta = ModelMetadata(**tiny.metadata(**({"slice_size": [SIDE, SIDE]} | changes)))
        with pytest.raises(error, match=text) as caught:
            options.check(meta, Output(tmp_path / "out", format))
        assert "\n" not in str(caught.value)


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


def test_the_command_line(model, world, tmp_path, fastmrigan):
    out = tmp_path / "out"
    command = ["synth", model, "--out", out, "--count", COUNT, "--seed", 7, "--shard-size", SHARD]
    alone = fastmrigan(*command, "--gate-reference", world.path)
    assert alone.returncode == 2
    assert "--gate-reference: says nothing without --gate" in alone.stderr
    done = fastmrigan(*command, "--gate", "drop", "--gate-reference", world.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"; {told(out)}")
    assert "warning" not in done.stderr
    again = fastmrigan(*command, "--gate", "drop", "--gate-reference", world.path)
    assert "0 made now" in again.stdout
    assert again.stdout.strip().endswith(f"; {told(out)}")


def test_the_summary_of_a_range_is_its_own(model, tmp_path, fastmrigan):
    out = tmp_path / "out"
    command = ["synth", model, "--out", out, "--count", COUNT, "--seed", 7, "--shard-size", SHARD]
    gone = [i for i, kind in refused().items() if kind in ("blank", "saturated")]
    for first, behind in ((0, 1), (2, 4), (1, 2), (2, 4)):
        done = fastmrigan(*command, "--gate", "drop", "--shard-range", f"{first}:{behind}")
        assert done.returncode == 0, done.stderr
        own = [i for i in gone if first * SHARD <= i < behind * SHARD]
        assert 0 < len(own) < len(gone)
        line = done.stdout.strip().splitlines()[-1]
        assert f"; {len(own)} dropped: " in line
        assert line.endswith(f"; {told(out, slice(first, behind))}")


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


def test_a_spec_opens_its_gate_without_torch(model, world, tmp_path):
    program = (
        "import sys; from pathlib import Path; from fastmrigan.jobs.spec import *;"
        "from fastmrigan.jobs.gate import GateOptions;"
        "model, out, reference = map(Path, sys.argv[1:]);"
        "gate = GateOptions('drop', reference);"
        "job = JobSpec(Engine(model), Sampled(8, 7), Output(out), gate).open();"
        "job.output.out.mkdir(); job.make_shard(job.plan[0]);"
        "assert 'torch' not in sys.modules; print(sorted(job.busy))"
    )
    command = [sys.executable, "-c", program, str(model), str(tmp_path / "out"), str(world.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['engine', 'gate', 'quantise', 'read', 'write']"
    assert set(verdicts(tmp_path / "out")) == set(refused(7, 8))


def test_what_was_left_out_before_stays_so():
    (shard,) = Plan(4, 4)
    slices = np.zeros((4, 16, 16), np.uint8)
    slices[3] = np.arange(256).reshape(16, 16)
    content = Content.whole(shard, slices).without({1: "poisoned"})
    gated = Gate("drop")(content)
    assert list(gated.indices) == [3]
    assert gated.left_out[1] == "poisoned"
    assert set(gated.left_out) == {0, 1, 2}
    flagged = Gate("flag")(content)
    assert list(flagged.indices) == [0, 2, 3]
    assert (set(flagged.flagged), set(flagged.left_out)) == ({0, 2}, {1})
