"""The cards of a report: which slices each figure is over, and what a share says of a collapse."""

import re

import numpy as np
import pytest

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.measures import collapse_warnings, diversity, variety_remark
from fastmrigan.metrics.report import page
from fastmrigan.metrics.report_tables import TILES, terminal_table, tiles

pytestmark = pytest.mark.usefixtures("short_classifier")


def cards(text):
    """What stands on each card, by the name of its figure."""
    found = re.findall(r'<div class="tile"><b>[^<]*</b><span>(.*?)</span>(.*?)</div>', text)
    parts = [re.split("<br>", " ".join(card).strip()) for card in found]
    return {lines[0]: lines[1:] for lines in parts}


def test_every_card_says_which_slices_it_is_over(tmp_path, make, measure):
    """Held-out pairs beside distances over all translations, most of them of training pairs."""
    source = make.discs(60, 0, tumour=True)
    splits = ["train"] * 36 + ["guard"] * 2 + ["test"] * 22
    data = make.pairs(tmp_path / "data", source, source**3, splits)
    sources = (PreparedDataset.open(data).info.fingerprint, list(range(60)))
    made = make.shards(tmp_path / "made", source**3, sources=sources)
    found = measure(data, made, only=("pairs", "frechet", "copies"))
    over = {m.key: m.over for m in found.measures}
    assert over["ssim_brain"] == "22 held-out pairs"
    everything = "all 60 translations, 36 of them of training pairs, against 58 real ones"
    assert over["fd_random"] == over["fd_random_over_floor"] == everything
    assert over["fd_random_floor"] == "58 real slices, in halves"
    assert over["copies_flagged"] == "the 24 translations of no training pair"
    text = page(found)
    for name, lines in cards(text).items():
        assert any(line.startswith("over ") for line in lines), name
    assert f"Over {everything}, but where" in text
    train = make.pairs(tmp_path / "train", source, source**3, ["train"] * 60)
    sources = (PreparedDataset.open(train).info.fingerprint, list(range(60)))
    made = make.shards(tmp_path / "known", source**3, sources=sources)
    known = measure(train, made, only=("pairs",))
    assert {m.over for m in known.measures} == {"60 pairs, none held out"}


@pytest.fixture(scope="module")
def collapsed(world, make, measure, tmp_path_factory):
    """One tumour slice, 40 times."""
    one = make.discs(1, 2, tumour=True).repeat(40, axis=0)
    made = make.shards(tmp_path_factory.mktemp("one") / "made", one)
    options = {"label": "tumour", "classifier_data": world.data}
    return measure(world.data, made, only=("classifier", "diversity"), **options)


def test_a_collapsed_generator_is_named_beside_its_tumours(collapsed):
    measures = {m.key: m for m in collapsed.measures}
    remark = "Variety: 0 % of the real slices'. The generator repeats itself"
    assert measures["called_tumour"].remark.startswith(remark)
    assert measures["pair_ssim"].remark == "Far above: the generator repeats itself."
    assert collapsed.warnings[0].startswith("The synthetic slices are far more like each other")
    text = page(collapsed)
    shown = cards(text.replace("&nbsp;", " ").replace("&#x27;", "'"))
    assert any(remark in line for line in shown["synthetic slices called tumour"])
    assert "over 40 synthetic slices" in shown["synthetic slices called tumour"][-1]
    assert remark in " ".join(terminal_table(collapsed.measures).split())


def test_variety_is_looked_at_without_being_asked_for(world, measure):
    options = {"label": "tumour", "classifier_data": world.data}
    found = measure(world.data, world.synthetic, only=("classifier",), **options)
    assert [m.key for m in found.measures] == ["called_tumour", "classifier_accuracy"]
    assert re.fullmatch(r"Variety: \d+ % of the real slices'\.", found.measures[0].remark)
    assert found.warnings == []
    assert found.measures[1].over == "34 held-out real slices"


@pytest.mark.parametrize(("distinct", "far"), [(1, True), (40, False)])
def test_what_counts_as_collapsed(make, distinct, far):
    real = make.discs(60, 0, tumour=True)
    made = make.discs(distinct, 1, tumour=True)[np.arange(40) % distinct]
    likeness = diversity(real, made, seed=0)
    assert bool(collapse_warnings(likeness)) == bool(likeness.remark) == far
    assert ("repeats itself" in variety_remark(likeness)) == far


def test_real_slices_that_are_all_one_do_not_accuse_the_generator(make):
    one = make.discs(1, 0, tumour=True).repeat(10, axis=0)
    assert diversity(one, make.discs(10, 1, tumour=True), seed=0).remark == ""


def test_cards_are_few():
    everything = [Measure(key, key, 0.5, "lower", "") for key in TILES]
    assert len(cards(tiles(everything))) == 6
