"""run.html: what it says is what the files say, whole, half or damaged, and it fetches nothing."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fastmrigan.errors import UsageError
from fastmrigan.imaging.contact_sheet import write_png
from fastmrigan.training.evaluation import write_figures
from fastmrigan.training.run_page import GRID, page, write_run_page
from fastmrigan.training.run_pictures import EARLIER
from fastmrigan.training.systems import SYSTEMS

VOID = {"meta", "img", "line", "rect", "polyline", "polygon", "br"}


class Tree(HTMLParser):
    """Tags with their attributes; fails where they are not balanced."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def of(self, tag, name=None):
        found = [attributes for kind, attributes in self.tags if kind == tag]
        return found if name is None else [attributes.get(name) for attributes in found]

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def row(step, **more):
    return {"step": step, "epoch": step / 10, "loss_d": 1.0, "loss_g": 2.0} | more


def write_rows(run, rows):
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def run(tmp_path):
    """A run folder half way through."""
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    facts = {"recipe": "t2-tumour-cyclegan", "status": "running", "step": 20, "epoch": 2.0}
    facts["dataset"] = {"fingerprint": "f00d", "labels": {"normal": 7, "tumour": 9}}
    (run / "run.json").write_text(json.dumps(facts))
    (run / "config.yaml").write_text(
        "name: t2-tumour-cyclegan\npaper: Nguyen, Trong\nnotes: [first, second]\n"
        "optimiser: {betas: [0.5, 0.999]}\nlabel: null\nreverse: false\nsystem: cyclegan\n"
    )
    timed = {"data_seconds": 0.1, "generator_seconds": 0.3, "seconds": 0.0}
    write_rows(
        run,
        [
            row(s, d_real_accuracy=0.9, lr_g=2e-4, **timed | {"seconds": s * 0.5})
            for s in range(1, 31)
        ],
    )
    for step in (0, 10, 20, 30):
        write_png(run / "samples" / f"step_{step:07}.png", np.full((24, 24), step, np.uint8))
    for step, value in ((10, 0.5), (20, 0.7), (30, 0.6)):
        write_figures(run, step, step / 10, {"ssim": value, "mae": value, "psnr": 20.0})
    return run


def test_a_run_folder_on_one_page(run):
    target = write_run_page(run)
    assert target == run / "run.html"
    tree = Tree(target.read_text(encoding="utf-8"))
    words = tree.words
    for text in (
        "t2-tumour-cyclegan Nguyen, Trong running",  # heading, paper, status
        "30 steps 3.0 epochs 0:15 of training (m:ss)",  # the metrics are ahead of run.json
        "loss; last: loss_d 1, loss_g 2",
        "notes 2 second",
        "optimiser.betas 0.5, 0.999",
        "label none",
        "reverse false",
        "A row: a source slice, translated to the target, and back again;",
        "psnr in dB, mae in units of [-1, 1]",
        "Bold: the best so far.",
        "labels.tumour 9",
        "fingerprint f00d",
    ):
        assert text in words, text
    assert "warning" not in [a.get("class") for _, a in tree.tags]
    assert len(tree.of("img")) == 4
    assert not list(run.glob(".*tmp"))


def test_it_fetches_nothing_and_runs_nothing(run):
    tree = Tree(page(run))
    assert {tag for tag, _ in tree.tags}.isdisjoint({"script", "link", "iframe", "a", "form"})
    assert all(source.startswith("data:image/") for source in tree.of("img", "src"))
    outside = re.compile(r"https?:|//|url\(|@import|javascript:")
    for tag, attributes in tree.tags:
        for name, value in attributes.items():
            assert name == "src" or not outside.search(value or ""), (tag, name)
            assert not name.startswith("on")
    style = re.search(r"<style>(.*?)</style>", page(run), re.S)[1]
    assert not outside.search(style)


def test_the_newest_evaluation_comes_first_and_the_best_are_marked(run):
    html = page(run)
    table = re.search(r"<table><thead><tr><th>step.*?</table>", html, re.S)[0]
    cells = [
        re.findall(r'<td class="(.*?)">(.*?)</td>', line)
        for line in re.findall(r"<tr>(<td.*?)</tr>", table)
    ]
    assert [[text for _, text in line] for line in cells] == [
        ["30", "3", "0.6", "0.6", "20"],
        ["20", "2", "0.7", "0.7", "20"],
        ["10", "1", "0.5", "0.5", "20"],
    ]
    best = {(i, j) for i, line in enumerate(cells) for j, c in enumerate(line) if "best" in c[0]}
    assert best == {(1, 2), (2, 3), (2, 4)}  # the highest ssim, the lowest mae, the first psnr
    assert "ssim<br>higher is better" in table
    assert "mae<br>lower is better" in table


def test_phases_share_the_time(run):
    """30 steps of 0.1 s of data and 0.3 s of generator, in 15 s: 20 %, 60 % and 20 % elsewhere."""
    words = Tree(page(run)).words
    assert re.search(r"generator 60\.0 % +300", words)
    assert re.search(r"data 20\.0 % +100", words)
    assert re.search(r"outside the steps \(.*?\) 20\.0 % +100", words)


def test_a_phase_of_some_steps_is_spread_over_all(run):
    """60 ms at every third step are 20 ms a step."""
    rows = [row(s, generator_seconds=0.08, seconds=0.1 * s) for s in range(1, 31)]
    for each in rows[2::3]:
        each["logging_seconds"] = 0.06
    write_rows(run, rows)
    words = Tree(page(run)).words
    assert re.search(r"generator 80\.0 % +80 ", words)
    assert re.search(r"logging 20\.0 % +20 ", words)


@pytest.mark.parametrize(
    ("seconds", "text"), [(59, "0:59 of training (m:ss)"), (3661, "1:01:01 of training (h:mm:ss)")]
)
def test_time_says_its_units(run, seconds, text):
    write_rows(run, [row(1, seconds=seconds)])
    assert text in Tree(page(run)).words


def test_the_grids_of_every_system_are_explained():
    assert set(GRID) == set(SYSTEMS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "run.json is not there yet."),
        ("config.yaml", "config.yaml is not there yet."),
        ("metrics.jsonl", "metrics.jsonl is not there yet."),
        ("samples", "samples/ holds no grid yet."),
    ],
)
def test_a_missing_piece_is_named_and_the_rest_is_there(run, name, text):
    whole = Tree(page(run)).words
    (run / name).rename(run.parent / "gone")
    words = Tree(page(run)).words
    assert text in words
    assert text not in whole
    told_by = {
        "run.json": "labels.tumour",
        "config.yaml": "notes 2",
        "metrics.jsonl": "last: loss_d",
        "samples": "step 10",
    }
    assert {of for of, told in told_by.items() if told in words} == set(told_by) - {name}


def test_an_empty_folder_and_no_folder(tmp_path):
    words = Tree(page(tmp_path)).words
    assert words.count("is not there yet") == 3
    assert "No evaluation has been written down." in words
    with pytest.raises(UsageError, match="no such run folder"):
        write_run_page(tmp_path / "none")


@pytest.mark.parametrize(
    "name", ["run.json", "config.yaml", "metrics.jsonl", "evaluation.jsonl", "newest", "earlier"]
)
def test_no_damage_stops_the_page(run, name):
    grids = {"newest": "samples/step_0000030.png", "earlier": "samples/step_0000010.png"}
    path = run / grids.get(name, name)
    whole = path.read_bytes()
    draws = np.random.default_rng(0)
    versions = [whole[:n] for n in draws.integers(0, len(whole), 12)]
    for _ in range(12):
        damaged = bytearray(whole)
        for at in draws.integers(0, len(whole), 3):
            damaged[at] = draws.integers(0, 256)
        versions.append(bytes(damaged))
    versions += [b"", b"[]\n", b"null\n", b'{"step": NaN}\n', b'{"step": 1e999, "loss": 1}\n']
    versions += [b'{"step": 1, "loss": 1%s}\n' % (b"0" * 400), b"\xff\xfe\n", b"[" * 100_000]
    for version in versions:
        path.write_bytes(version)
        Tree(page(run))
    path.write_bytes(b"[[\n")
    assert grids.get(name, name).removeprefix("samples/") in Tree(page(run)).words


def test_everything_is_escaped(run):
    evil = "<script>alert('1')</script>\"&"
    facts = {"recipe": evil, "status": evil, "dataset": {evil: evil}, evil: [evil]}
    (run / "run.json").write_text(json.dumps(facts))
    (run / "config.yaml").write_text(json.dumps({"paper": evil, "notes": [evil], evil: {evil: 1}}))
    write_rows(run, [row(1, **{f"loss_{evil}": 1.0, evil: 2.0, f"{evil}_seconds": 1.0})])
    write_figures(run, 40, 4.0, {evil: evil})
    (run / "samples" / "step_0000030.png").rename(
        run / "samples" / "step_0000040_<b onload='x'>&.png"
    )
    tree = Tree(page(run))
    assert {"script", "b onload='x'"}.isdisjoint(tag for tag, _ in tree.tags)
    assert not any(name.startswith("on") for _, a in tree.tags for name in a)
    assert tree.words.count("<script>alert('1')</script>\"&") >= 10


def test_the_page_stays_under_two_megabytes(run):
    draws = np.random.default_rng(0)
    noise = draws.integers(0, 256, (1800, 1800, 3), dtype=np.uint8)  # no PNG makes this smaller
    for step in range(100, 100 * 2 * EARLIER, 100):
        path = run / "samples" / f"step_{step:07}.png"
        Image.fromarray(noise[: 300 + step // 100, :400]).save(path, compress_level=1)
    for name in ("to_target", "to_source"):
        path = run / "samples" / f"step_0009999_{name}.png"
        Image.fromarray(noise).save(path, compress_level=1)
    html = page(run)
    assert len(html.encode()) < 2_000_000
    tree = Tree(html)
    assert re.search(r"step 9,999, to_source: step_0009999_to_source.png, reduced \d times", html)
    sizes = []
    for source in tree.of("img", "src"):
        with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as picture:
            sizes.append(max(picture.size))
    assert min(sizes[:2]) > 300  # the newest stay large
    assert 12 <= len(sizes[2:]) <= EARLIER
    assert max(sizes[2:]) == 240
    assert "step 0<" in html  # the first is always among the thumbnails
