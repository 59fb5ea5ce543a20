"""`fastmrigan evaluate`: the numbers, the page, the errors."""

import json
import shutil
from functools import partial
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from fastmrigan.cli.evaluate import evaluate as command
from fastmrigan.errors import InputRejected, ModelRefused, UsageError
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.metrics import (
    classifier_measures,
    downstream,
    evaluation_inputs,
    run_measures,
    two_sample,
)
from fastmrigan.metrics.choice import MEASURES, choose
from fastmrigan.metrics.evaluation import evaluate, sample_warnings, small_fid
from fastmrigan.metrics.evaluation_inputs import Asked
from fastmrigan.metrics.extraction import FeatureNetwork
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.report import check_writable
from fastmrigan.metrics.report_tables import terminal_table
from fastmrigan.metrics.slice_sets import read_slice_set
from fastmrigan.runtime import shards

SLOWEST = ("two-sample", "radiomics")


@pytest.fixture(autouse=True, scope="module")
def short_classifier():
    """The classifier on a budget of a few seconds."""
    patch = pytest.MonkeyPatch()
    patch.setattr(
        classifier_measures,
        "train_tumour_classifier",
        partial(classifier_measures.train_tumour_classifier, steps=30, batch=32),
    )
    patch.setattr(classifier_measures, "real_or_fake", partial(two_sample.real_or_fake, steps=20))
    yield
    patch.undo()


def measure(real, synthetic, **options):
    return evaluate(Asked(real, synthetic, **options))


def invoke(*arguments):
    """The command in this process: its output; an expected error is raised."""
    app = Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def report(world, tmp_path_factory):
    """The page, its numbers and what the terminal showed."""
    out = tmp_path_factory.mktemp("report") / "deep" / "r.html"
    shown = invoke(
        "--real", world.data, "--synthetic", world.synthetic, "--out", out,
        "--run", world.run, "--classifier-data", world.data,
    )  # fmt: skip
    return out.read_text(encoding="utf-8"), json.loads(out.with_suffix(".json").read_text()), shown


def test_numbers(report):
    _, numbers, _ = report
    found = {key: measure["value"] for key, measure in numbers["measures"].items()}
    assert (numbers["schema"], numbers["kind"]) == (2, "fastmrigan-evaluation")
    assert numbers["notice"] == "for research; not for diagnosis"
    assert found["fd_random_floor"] > 0
    assert found["fd_random"] < 0.25 * found["fd_random_untrained"]
    assert found["fd_random_over_floor"] == pytest.approx(
        found["fd_random"] / found["fd_random_floor"]
    )
    assert found["called_tumour"] >= 0.8
    assert found["classifier_accuracy"] >= 0.8
    for key in ("train", "test", "synthetic"):
        assert 0 <= found[f"discriminator_{key}"] <= 1
    assert numbers["settings"]["real, label"] == "tumour"  # the run's own
    assert numbers["settings"]["real slices"] == 110
    assert numbers["settings"]["synthetic, seed"] == 7
    assert numbers["settings"]["step"] == 12
    assert {"fastmrigan", "torch", "numpy", "python"} <= numbers["versions"].keys()
    assert numbers["warnings"][0].startswith("Small sample: 110 real and 50 synthetic slices.")
    assert all(measure["meaning"] for measure in numbers["measures"].values())


def test_terminal(report):
    _, _, shown = report
    for name in (
        "fd-random",
        "floor",
        "untrained",
        "called tumour",
        "discriminator",
        "r.html",
    ):
        assert name in shown
    assert "fid" not in shown.partition("not measured:")[0].lower()


def test_sides_are_needed_or_a_folder_of_runs(world, tmp_path):
    with pytest.raises(UsageError, match="give --real and --synthetic, or --runs"):
        invoke("--out", tmp_path / "r.html", "--real", world.data)
    with pytest.raises(UsageError, match="leave --real, --synthetic out"):
        invoke("--out", tmp_path / "r.html", "--real", world.data, "--runs", tmp_path)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.outside = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
                self.outside += [] if value.startswith("data:image/png;base64,") else [value]


def test_page_is_self_contained(report):
    page, _, _ = report
    tags = Tags()
    tags.feed(page)
    assert tags.outside == []
    assert not {"script", "link", "iframe", "object", "base"} & set(tags.seen)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert tags.seen.count("svg") == 3  # intensities, losses, accuracies
    assert tags.seen.count("img") == 2 + 16  # contact sheets, nearest training slices


def test_page_says_what_it_must(report):
    page, numbers, _ = report
    for text in ("For research; not for diagnosis", "It is not FID", "Small sample: 110 real"):
        assert text in page
    for measure in numbers["measures"].values():
        assert escape(measure["name"]) in page
        value = measure["value"]
        assert (f"{100 * value:.1f}&nbsp;%" if measure["share"] else f"{value:.4g}") in page
    assert "&lt;abc&gt;" in page  # of run.json
    assert "<abc>" not in page


@pytest.fixture(scope="module")
def near(world):
    return measure(world.data, world.synthetic, label="tumour", skip=SLOWEST)


def test_the_same_call_gives_the_same_numbers(world, near):
    again = measure(world.data, world.synthetic, label="tumour", skip=SLOWEST)
    assert again.document() == near.document()
    assert near.value("called_tumour") is None  # nothing to train the classifier on
    assert near.curves == []


def test_closer_slices_score_closer(world, near, tmp_path, make):
    noise = np.random.default_rng(0).normal(0, 0.3, (50, 64, 64)).astype(np.float32)
    options = {"label": "tumour", "only": ("frechet", "copies")}
    far = measure(world.data, make.shards(tmp_path / "noise", noise), **options)
    assert near.value("fd_random") < 0.1 * far.value("fd_random")
    copied = read_slice_set(world.data, label="tumour").train
    copies = measure(world.data, make.shards(tmp_path / "copies", copied), **options)
    assert copies.value("nearest_training_correlation") > 0.999
    assert near.value("nearest_training_correlation") < 0.999


@pytest.mark.parametrize("fmt", ["shard", "png", "npz"])
def test_folders_of_every_format(tmp_path, make, fmt):
    slices = make.discs(20, 0, tumour=True)
    found = read_slice_set(make.shards(tmp_path / "made", slices, fmt), limit=18)
    np.testing.assert_allclose(found.slices, slices[:18], atol=1 / 255)
    assert not found.held_out.any()
    assert found.facts == {}


def test_the_discriminator_judges_by_the_batch_as_in_training():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.AvgPool2d(8)).eval()
    network[0].running_mean.fill_(100)  # far from any slice: every logit would be below 0
    loaded = SimpleNamespace(module=network, recipe=SimpleNamespace(batch=16))
    slices = np.random.default_rng(0).normal(0, 1, (40, 8, 8)).astype(np.float32)
    logits = run_measures.discriminator_logits(loaded, slices, seed=0)
    assert logits.shape == (40,)
    assert logits.mean() == pytest.approx(0, abs=1e-5)
    assert (logits > 0).any()


def of_sizes(real, made):
    sides = (SimpleNamespace(slices=np.empty((n, 1, 1))) for n in (real, made))
    return SimpleNamespace(**dict(zip(("real", "made"), sides, strict=True)))


def test_warning_only_for_small_samples():
    assert sample_warnings(of_sizes(2048, 5000)) == []
    assert small_fid(of_sizes(2048, 5000)) == ""
    assert sample_warnings(of_sizes(2047, 5000))[0].startswith("Small sample: 2,047 real slices.")
    assert small_fid(of_sizes(2048, 2047)).startswith("Small sample: with 2,047 slices on a side")


@pytest.mark.parametrize(
    ("only", "skip", "thorough", "chosen"),
    [
        ((), (), False, set(MEASURES) - {"two-sample", "utility"}),
        ((), (), True, set(MEASURES)),
        ((), ("frechet,kid", "pairs"), True, set(MEASURES) - {"frechet", "kid", "pairs"}),
        (("utility", "pairs, kid"), (), False, {"utility", "pairs", "kid"}),
        (("kid",), ("frechet",), False, {"kid"}),
        (("two-sample",), (), True, {"two-sample"}),
    ],
)
def test_choice_of_measures(only, skip, thorough, chosen):
    assert choose(only, skip, thorough=thorough) == chosen


def test_wrong_choices(world):
    with pytest.raises(UsageError, match="--only 'ssim': unknown; choose among pairs, frechet"):
        choose(["ssim"], [])
    with pytest.raises(UsageError, match="--only and --skip leave nothing"):
        choose(["kid"], ["kid"])
    given = (world.data, world.synthetic)
    for name, reason in (
        ("pairs", "--real is no prepared dataset of pairs"),
        ("utility", "give --classifier-data"),
        ("discriminator", "needs the --run of a GAN"),
    ):
        with pytest.raises(UsageError, match=f"--only {name}: .*{reason}"):
            measure(*given, only=(name,))


def test_what_is_left_out_is_said(near):
    assert near.left_out.keys() == {"classifier", "discriminator", "FID and KID"}
    assert "--inception-weights" in near.left_out["FID and KID"]
    assert {m.section for m in near.measures} == {"sets", "copies"}
    for m in near.measures:
        if m.interval is not None:
            assert m.interval[0] <= m.value <= m.interval[1], m.key


def test_only_some(world):
    found = measure(world.data, world.synthetic, only=("diversity",))
    assert [m.key for m in found.measures] == ["pair_ssim"]
    assert found.left_out == {}


def test_features_of_the_users_own(world, tmp_path):
    model = own_network(tmp_path / "own.onnx")
    found = measure(
        world.data, world.synthetic, features=model, only=("frechet", "kid", "manifold")
    )
    assert {"fd_random", "fd_own", "fd_own_floor", "kd_own", "precision"} <= {
        m.key for m in found.measures
    }
    real, made = (
        read_slice_set(path).slices.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(-1, 64)
        for path in (world.data, world.synthetic)
    )
    mean = np.square(real.mean(axis=0) - made.mean(axis=0)).sum()
    assert found.value("fd_own") > mean > 0
    assert "own.onnx" in found.settings["own features"]


def test_fid(world, monkeypatch):
    """With Inception in place (here a stand-in for its features) distances are FID and KID."""
    asked = []

    def stand_in(weights, precision):
        asked.append((weights, precision))
        tiles = lambda x, **_: x.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(-1, 64)  # noqa: E731
        return FeatureNetwork("Inception v3", 64, tiles, {"engine": "none"})

    monkeypatch.setattr(evaluation_inputs, "inception_network", stand_in)
    options = {"label": "tumour", "inception_precision": "bf16"}
    options["only"] = ("frechet", "kid", "manifold", "copies")
    found = measure(world.data, world.synthetic, inception_weights=Path("file.pth"), **options)
    assert asked == [(Path("file.pth"), "bf16")]
    measures = {m.key: m for m in found.measures}
    assert measures["fid"].reference == measures["fid_floor"].value > 0
    for text in ("published Inception features", "grey replicated", "Small sample: with 50 slices"):
        assert text in measures["fid"].meaning
    assert {"kid", "kid_subsets", "kid_subsets_sd", "copies_inception_flagged"} <= measures.keys()
    assert "published Inception" in measures["precision"].meaning
    assert found.left_out == {}
    assert found.settings["Inception, engine"] == "none"
    monkeypatch.setenv("FASTMRIGAN_INCEPTION", "x.pth")
    measure(world.data, world.synthetic, only=("frechet",))
    measure(world.data, world.synthetic, only=("diversity",))  # needs no Inception
    assert asked[1:] == [(None, "fp32")]


def test_wrong_inception_weights(world, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(ModelRefused, match=r"w\.pth: .*sha256"):
        measure(world.data, world.synthetic, inception_weights=tmp_path / "w.pth")


@pytest.mark.slow
def test_thorough(world, monkeypatch):
    """What takes minutes: told apart by a classifier, and the use of synthetic tumours."""
    short = partial(downstream.tumour_utility, steps=30, seeds=1)
    monkeypatch.setattr(classifier_measures, "tumour_utility", short)
    found = measure(
        world.data,
        world.synthetic,
        label="tumour",
        classifier_data=world.data,
        only=("two-sample", "utility"),
    )
    value = {m.key: m for m in found.measures}
    assert value["real_or_fake"].interval[0] < 0.6  # both sides are discs of the same kind
    assert value["utility_synthetic"].reference == value["utility_real"].value
    assert value["utility_synthetic"].value > 0.7
    low, high = value["utility_gain"].interval
    assert low <= value["utility_gain"].value <= high
    assert {m.section for m in found.measures} == {"sets", "tumours"}


def own_network(path):
    """Means of 8x8 tiles: [N, 1, 64, 64] to [N, 64]."""
    from onnx import TensorProto, helper, save

    nodes = [
        helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["y"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 64, 64])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 64])],
    )
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_missing_and_empty_folders(world, tmp_path):
    out = tmp_path / "r.html"
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        invoke("--real", tmp_path / "nowhere", "--synthetic", world.synthetic, "--out", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty: holds no shards"):
        invoke("--real", world.data, "--synthetic", tmp_path / "empty", "--out", out)
    with pytest.raises(UsageError, match=r"no checkpoint here; name the --out folder"):
        invoke(
            "--real", world.data, "--synthetic", world.synthetic, "--out", out,
            "--run", tmp_path / "empty",
        )  # fmt: skip
    with pytest.raises(UsageError, match="no label 'cyst'; it has 'tumour', 'normal'"):
        invoke(
            "--real", world.data, "--synthetic", world.synthetic, "--out", out, "--label", "cyst"
        )
    with pytest.raises(UsageError, match="is no prepared dataset, so it has no label 'tumour'"):
        measure(world.synthetic, world.synthetic, label="tumour")
    assert not out.exists()


def test_sizes_that_differ_are_both_named(world, tmp_path, make):
    larger = make.shards(tmp_path / "larger", make.discs(5, 0, tumour=True, size=96))
    with pytest.raises(UsageError, match=r"data holds 64x64 and .*larger holds 96x96 slices"):
        measure(world.data, larger)


def test_too_few_slices(world, tmp_path, make):
    one = make.shards(tmp_path / "one", make.discs(1, 0, tumour=True))
    with pytest.raises(UsageError, match="one: 1 slices found, at least 2 are needed"):
        measure(world.data, one)
    three = make.shards(tmp_path / "three", make.discs(3, 0, tumour=True))
    with pytest.raises(UsageError, match="three: 3 real slices, a split in halves needs 4"):
        measure(three, world.synthetic)


def test_mixed_sizes_in_one_folder(tmp_path, make):
    folder = make.shards(tmp_path / "mixed", make.discs(16, 0, tumour=True))
    odd = to_uint8(make.discs(4, 0, tumour=True, size=32))
    shards.commit(
        folder, shards.FORMATS["shard"], shards.Shard(1, 16, 4), odd, shards.Origin(0, "")
    )
    with pytest.raises(UsageError, match=r"different sizes \(32x32 and 64x64\) in one folder"):
        read_slice_set(folder)


def test_damaged_shard(tmp_path, make):
    folder = make.shards(tmp_path / "damaged", make.discs(16, 0, tumour=True))
    path = folder / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputRejected, match=r"shard-000000.tar: not a whole shard"):
        read_slice_set(folder)


def test_damaged_dataset(tmp_path, world, make):
    data = make.dataset(tmp_path / "data", {"tumour": make.discs(8, 0, tumour=True)})
    content = bytearray((data / "slices.npy").read_bytes())
    content[-1] ^= 1
    (data / "slices.npy").write_bytes(content)
    with pytest.raises(InputRejected, match=r"data: a damaged data set \(its bytes are not"):
        measure(data, world.synthetic)


def test_a_dataset_is_not_synthetic(world):
    with pytest.raises(UsageError, match=r"data: a prepared dataset, which holds real slices"):
        measure(world.data, world.data)


def test_the_size_of_the_run(tmp_path, world, make):
    small = make.discs(8, 0, tumour=True, size=32)
    data = make.dataset(tmp_path / "data", {"tumour": small})
    made = make.shards(tmp_path / "made", small)
    with pytest.raises(UsageError, match=r"run was trained on 64x64 .*data and .* are 32x32"):
        measure(data, made, run=world.run)


@pytest.mark.parametrize("line", ["garbage", '{"step": 2}', '{"step": 2, "epoch": "x"}'])
def test_damaged_metrics_of_the_run(tmp_path, world, line):
    run = tmp_path / "run"
    shutil.copytree(world.run, run)
    first = (run / "metrics.jsonl").read_text().splitlines()[0]
    (run / "metrics.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(InputRejected, match=r"run/metrics.jsonl: line 2 "):
        measure(world.data, world.synthetic, run=run)


@pytest.mark.parametrize(
    ("content", "fact"), [(b"[1]", "no JSON object"), (b"xx", "not JSON"), (b"\xff", "not JSON")]
)
def test_damaged_run_json(tmp_path, make, content, fact):
    made = make.shards(tmp_path / "made", make.discs(4, 0, tumour=True))
    (made / "run.json").write_bytes(content)
    with pytest.raises(InputRejected, match=rf"run.json: .*{fact}"):
        read_slice_set(made, limit=4)


def test_a_foreign_json_beside_the_page_stays(world, tmp_path, make):
    data = make.dataset(tmp_path / "data", {"tumour": make.discs(8, 0, tumour=True)})
    before = (data / "dataset.json").read_bytes()
    given = ("--real", data, "--synthetic", world.synthetic, "--out")
    with pytest.raises(UsageError, match=r"dataset.json: is there already .* give --out another"):
        invoke(*given, data / "dataset.html")
    assert (data / "dataset.json").read_bytes() == before
    for _ in range(2):  # its own report is replaced
        invoke(*given, tmp_path / "r.html")


def test_trying_to_write_leaves_the_files_of_others(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    monkeypatch.setattr("fastmrigan.metrics.report.beside", lambda path: precious)
    with pytest.raises(UsageError, match="precious is a file"):
        check_writable(tmp_path / "r.html")
    assert precious.read_text() == "mine"


def test_unwritable_targets(world, tmp_path):
    given = ("--real", world.data, "--synthetic", world.synthetic, "--out")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match=r"report.pdf: the report is an HTML page"):
        invoke(*given, tmp_path / "report.pdf")
    with pytest.raises(UsageError, match="file is a file"):
        invoke(*given, tmp_path / "file" / "r.html")
    with pytest.raises(UsageError, match=r"folder\.html: is a folder"):
        invoke(*given, tmp_path / "folder.html")


@pytest.mark.slow
def test_a_user_sees_one_line(fastmrigan, world, tmp_path):
    result = fastmrigan(
        "evaluate", "--real", world.data, "--synthetic", tmp_path, "--out", tmp_path / "r.html"
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"fastmrigan: {tmp_path}: holds no shards; make some with `fastmrigan synth`\n"
    )


def test_the_terminal_shows_what_has_room(monkeypatch):
    def row(name, value, interval=None):
        return Measure(name, name, value, "lower", "", 0.25, interval=interval)

    rows = [row("short", 0.5, (0.125, 0.75)), row("a name " * 7, 0.5, (0.125, 0.75)), row("x", 1)]
    found = {}
    for columns in (80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        found[columns] = terminal_table(rows).splitlines()
        assert max(map(len, found[columns])) <= columns
    assert all("ref. 0.25" in line and "lower is better" in line for line in found[200])
    assert "(0.125 to 0.75)  ref. 0.25" in found[80][0]
    assert "(0.125 to 0.75)" in found[80][1]
