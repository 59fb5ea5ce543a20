"""The report in a browser: its figures are there, and nothing is wider than a telephone."""

import numpy as np
import pytest
from browser import CHROMIUM, dom, laid_out

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.metrics.evaluation import evaluate
from fastmrigan.metrics.evaluation_inputs import Asked
from fastmrigan.metrics.report import page, write_both
from fastmrigan.metrics.report_tables import shown
from fastmrigan.metrics.runs_table import read_runs, runs_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium")


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory, make):
    """Pairs, sets and nearest slices at once."""
    folder = tmp_path_factory.mktemp("pairs")
    source = make.discs(60, 0, tumour=True)
    splits = ["train"] * 30 + ["test"] * 30
    data = make.pairs(folder / "data", source, source**3, splits)
    noise = np.random.default_rng(0).normal(0, 0.05, source.shape)
    made = (source**3 + noise).clip(-1, 1).astype(np.float32)
    sources = (PreparedDataset.open(data).info.fingerprint, list(range(60)))
    made = make.shards(folder / "made", made, sources=sources)
    skip = ("two-sample", "radiomics")
    return evaluate(Asked(data, made, skip=skip))


@pytest.fixture(scope="module")
def report(evaluation):
    return page(evaluation)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_runs_out_of_the_page(tmp_path, report, width):
    found = laid_out(tmp_path, report, width)
    assert found["wide"] == []
    assert found["scroll"] <= found["client"] == width
    assert found["images"] == report.count("<img") == 2 + 12 + 16


def test_a_browser_finds_the_figures(tmp_path, report, evaluation):
    (tmp_path / "page.html").write_text(report)
    seen = dom(tmp_path / "page.html")
    for measure in evaluation.measures:
        assert shown(measure, measure.value).replace(" %", "&nbsp;%") in seen, measure.key
    for heading in ("Against the true targets", "Difference maps", "Numbers", "Settings"):
        assert f"<h2>{heading}</h2>" in seen


def test_the_table_of_runs(tmp_path, evaluation):
    write_both(tmp_path / "a.html", "", evaluation.document())
    write_both(tmp_path / "b.html", "", evaluation.document())
    found = laid_out(tmp_path, runs_page(read_runs(tmp_path)), 390)
    assert found["wide"] == []
    assert found["scroll"] <= found["client"]
