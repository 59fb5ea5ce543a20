"""The report in a browser: its figures are there, and nothing is wider than a telephone."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.metrics.evaluation import evaluate
from fastmrigan.metrics.evaluation_inputs import Asked
from fastmrigan.metrics.report import page, write_both
from fastmrigan.metrics.report_tables import shown
from fastmrigan.metrics.runs_table import read_runs, runs_page

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium")

# The page stands in a frame of the width under test (a window has a least width of its own) and
# tells its own measures to the page around it.
MEASURES = """<script>
const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".wide *") &&
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5);
parent.postMessage({scroll: document.documentElement.scrollWidth,
  client: document.documentElement.clientWidth, wide: wide.map(e => e.outerHTML.slice(0, 90)),
  images: [...document.images].filter(i => i.naturalWidth > 0).length}, "*");
</script>"""
AROUND = """<!doctype html><iframe src="page.html" width="{width}" height="30000"
style="border:0"></iframe><pre id="found"></pre><script>onmessage = e =>
document.getElementById("found").textContent = JSON.stringify(e.data)</script>"""


def dom(path, *options):
    """The page's elements once its scripts have run."""
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
        f"--user-data-dir={path.parent / 'profile'}", *options, "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def laid_out(folder, html, width):
    """What the page says of its own layout at that width."""
    (folder / "page.html").write_text(html.replace("</body>", f"{MEASURES}</body>"))
    (folder / "around.html").write_text(AROUND.format(width=width))
    found = re.search(r'<pre id="found">(.*?)</pre>', dom(folder / "around.html"), re.DOTALL)
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


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
