"""`fastmrigan evaluate`: the numbers and the page."""

import json
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest

from fastmrigan.metrics.slice_sets import read_slice_set

SLOWEST = ("two-sample", "radiomics")

pytestmark = pytest.mark.usefixtures("short_classifier")


@pytest.fixture(scope="module")
def report(world, tmp_path_factory, invoke):
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
    for key in ("train", "test", "synthetic", "memory"):
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
def near(world, measure):
    return measure(world.data, world.synthetic, label="tumour", skip=SLOWEST)


def test_the_same_call_gives_the_same_numbers(world, near, measure):
    again = measure(world.data, world.synthetic, label="tumour", skip=SLOWEST)
    assert again.document() == near.document()
    assert near.value("called_tumour") is None  # nothing to train the classifier on
    assert near.curves == []


def test_what_is_left_out_is_said(near):
    assert near.left_out.keys() == {"classifier", "discriminator", "FID and KID"}
    assert "--inception-weights" in near.left_out["FID and KID"]
    assert {m.section for m in near.measures} == {"sets", "copies"}
    for m in near.measures:
        if m.interval is not None:
            assert m.interval[0] <= m.value <= m.interval[1], m.key


def test_closer_slices_score_closer(world, near, tmp_path, make, measure):
    noise = np.random.default_rng(0).normal(0, 0.3, (50, 64, 64)).astype(np.float32)
    options = {"label": "tumour", "only": ("frechet", "copies")}
    far = measure(world.data, make.shards(tmp_path / "noise", noise), **options)
    assert near.value("fd_random") < 0.1 * far.value("fd_random")
    copied = read_slice_set(world.data, label="tumour").train
    copies = measure(world.data, make.shards(tmp_path / "copies", copied), **options)
    assert copies.value("nearest_training_correlation") > 0.999
    assert near.value("nearest_training_correlation") < 0.999
