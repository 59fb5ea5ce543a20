"""`fastmrigan evaluate`: the numbers, the page, the errors."""

import json
import shutil
from functools import partial
from html import escape
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from fastmrigan.cli.evaluate import evaluate as command
from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.metrics import measures
from fastmrigan.metrics.evaluation import evaluate, sample_warnings
from fastmrigan.metrics.report import check_writable
from fastmrigan.metrics.slice_sets import read_slice_set
from fastmrigan.runtime import shards


@pytest.fixture(autouse=True, scope="module")
def short_classifier():
    """The classifier on a budget of a few seconds."""
    patch = pytest.MonkeyPatch()
    patch.setattr(
        measures,
        "train_tumour_classifier",
        partial(measures.train_tumour_classifier, steps=30, batch=32),
    )
    yield
    patch.undo()


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
    assert (numbers["schema"], numbers["kind"]) == (1, "fastmrigan-evaluation")
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
    assert numbers["settings"]["real slices"] == 60
    assert numbers["settings"]["synthetic, seed"] == 7
    assert numbers["settings"]["step"] == 12
    assert {"fastmrigan", "torch", "numpy", "python"} <= numbers["versions"].keys()
    assert numbers["warnings"][0].startswith("Small sample: 60 real and 50 synthetic slices.")
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
    assert "fid" not in shown.lower()


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
    assert tags.seen.count("img") == 2 + 16  # contact sheets, nearest real slices


def test_page_says_what_it_must(report):
    page, numbers, _ = report
    for text in ("For research; not for diagnosis", "It is not FID", "Small sample: 60 real"):
        assert text in page
    for measure in numbers["measures"].values():
        assert escape(measure["name"]) in page
        value = measure["value"]
        assert (f"{100 * value:.1f}&nbsp;%" if measure["share"] else f"{value:.4g}") in page
    assert "&lt;abc&gt;" in page  # of run.json
    assert "<abc>" not in page


@pytest.fixture(scope="module")
def near(world):
    return evaluate(world.data, world.synthetic, label="tumour")


def test_the_same_call_gives_the_same_numbers(world, near):
    again = evaluate(world.data, world.synthetic, label="tumour")
    assert again.document() == near.document()
    assert near.value("called_tumour") is None  # nothing to train the classifier on
    assert near.curves == []


def test_closer_slices_score_closer(world, near, tmp_path, make):
    noise = np.random.default_rng(0).normal(0, 0.3, (50, 64, 64)).astype(np.float32)
    far = evaluate(world.data, make.shards(tmp_path / "noise", noise), label="tumour")
    assert near.value("fd_random") < 0.1 * far.value("fd_random")
    copied = read_slice_set(world.data, label="tumour").train
    copies = evaluate(world.data, make.shards(tmp_path / "copies", copied), label="tumour")
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
    logits = measures.discriminator_logits(loaded, slices, seed=0)
    assert logits.shape == (40,)
    assert logits.mean() == pytest.approx(0, abs=1e-5)
    assert (logits > 0).any()


def test_warning_only_for_small_samples():
    assert sample_warnings(2048, 5000) == []
    assert sample_warnings(2047, 5000)[0].startswith("Small sample: 2,047 real slices.")


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
        evaluate(world.synthetic, world.synthetic, label="tumour")
    assert not out.exists()


def test_sizes_that_differ_are_both_named(world, tmp_path, make):
    larger = make.shards(tmp_path / "larger", make.discs(5, 0, tumour=True, size=96))
    with pytest.raises(UsageError, match=r"data holds 64x64 and .*larger holds 96x96 slices"):
        evaluate(world.data, larger)


def test_too_few_slices(world, tmp_path, make):
    one = make.shards(tmp_path / "one", make.discs(1, 0, tumour=True))
    with pytest.raises(UsageError, match="one: 1 slices found, at least 2 are needed"):
        evaluate(world.data, one)
    three = make.shards(tmp_path / "three", make.discs(3, 0, tumour=True))
    with pytest.raises(UsageError, match="three: 3 real slices, a split in halves needs 4"):
        evaluate(three, world.synthetic)


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
        evaluate(data, world.synthetic)


def test_a_dataset_is_not_synthetic(world):
    with pytest.raises(UsageError, match=r"data: a prepared dataset, which holds real slices"):
        evaluate(world.data, world.data)


def test_the_size_of_the_run(tmp_path, world, make):
    small = make.discs(8, 0, tumour=True, size=32)
    data = make.dataset(tmp_path / "data", {"tumour": small})
    made = make.shards(tmp_path / "made", small)
    with pytest.raises(UsageError, match=r"run was trained on 64x64 .*data and .* are 32x32"):
        evaluate(data, made, run=world.run)


@pytest.mark.parametrize("line", ["garbage", '{"step": 2}', '{"step": 2, "epoch": "x"}'])
def test_damaged_metrics_of_the_run(tmp_path, world, line):
    run = tmp_path / "run"
    shutil.copytree(world.run, run)
    first = (run / "metrics.jsonl").read_text().splitlines()[0]
    (run / "metrics.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(InputRejected, match=r"run/metrics.jsonl: line 2 "):
        evaluate(world.data, world.synthetic, run=run)


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
