"""`fastmrigan evaluate --runs`: what a folder of runs and reports becomes."""

import json
import re

import pytest

from fastmrigan.cli.evaluate import write_runs
from fastmrigan.errors import UsageError
from fastmrigan.metrics.runs_table import read_runs, runs_page


def run(folder, recipe, rows, **facts):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {recipe}\n")
    data = {"fingerprint": "a" * 64, "label": "tumour", "size": [64, 64]}
    (folder / "run.json").write_text(
        json.dumps({"recipe": recipe, "status": "finished", "dataset": data} | facts)
    )
    (folder / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def report(path, recipe, value, made=50, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    measures = {
        "fd_random": {"value": value, "better": "lower"},
        "called_tumour": {"value": 0.5, "better": "near reference"},
        "fd_random_floor": {"value": 0.1, "better": "context"},
    }
    settings = {
        "recipe": recipe,
        "step": 9,
        "real, fingerprint": "a" * 64,
        "real, label": "tumour",
        "slice size": "64x64, one grey channel",
        "synthetic slices": made,
    }
    document = {
        "schema": 2,
        "kind": "fastmrigan-evaluation",
        "measures": measures,
        "settings": settings,
    }
    path.write_text(json.dumps(document | changes))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "runs"
    rows = [
        {"step": 5, "epoch": 1.0, "fd_random": 0.5},
        {"step": 9, "epoch": 2.0, "fd_random": 0.7},
    ]
    run(root / "one", "dcgan", rows, best={"metric": "fd_random", "value": 0.5, "step": 5})
    run(root / "deep" / "two", "progan", rows)
    run(root / "none", "dcgan", [])
    report(root / "one" / "report.json", "dcgan", 0.25)
    report(root / "two.json", "progan", 0.125)
    report(root / "more.json", "progan", 0.0625, made=500)
    (root / "list.json").write_text("[1]")
    (root / "broken.json").write_text("{")
    return root


def test_runs_and_reports_are_found(folder):
    table = read_runs(folder)
    assert [(line.recipe, line.name, line.step) for line in table.runs] == [
        ("dcgan", "one", 5),  # its best
        ("progan", "deep/two", 9),  # its last
    ]
    assert [line.figures for line in table.runs] == [{"fd_random": 0.5}, {"fd_random": 0.7}]
    assert table.runs[0].against == "dataset aaaaaaaaaaaa, 64x64, label tumour"
    assert [(line.recipe, line.name) for line in table.reports] == [
        ("dcgan", "one/report.json"),
        ("progan", "more.json"),
        ("progan", "two.json"),
    ]
    assert table.unread == []


def test_only_what_compares_is_compared(folder):
    page = runs_page(read_runs(folder))
    assert "<b>0.125</b>" in page  # the better of two against the same, of as many slices
    assert "<b>0.0625</b>" not in page  # alone in its table
    assert "<b>0.25</b>" not in page
    assert page.count("<table ") == 3
    assert "fd_random_floor" not in page  # a figure for comparison alone is in the JSON


@pytest.mark.parametrize(
    ("values", "bold"),
    [
        ((0.5, 0.25, 0.25), []),
        ((0.5, 0.25, 0.250001), []),  # which look the same
        ((0.5, 0.25, 0.2501), ["0.25"]),
        ((0.5, 0.5), []),
    ],
)
def test_a_best_that_is_shared_is_not_marked(tmp_path, values, bold):
    for number, value in enumerate(values):
        report(tmp_path / f"{number}.json", "dcgan", value)
    assert re.findall("<b>(.*?)</b>", runs_page(read_runs(tmp_path))) == bold


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / "runs.html"
    for _ in range(2):  # its own is replaced
        write_runs(folder, out)
    assert "progan  two.json" in capsys.readouterr().out
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert (numbers["schema"], numbers["kind"]) == (1, "fastmrigan-runs")
    assert numbers["reports"][0]["figures"]["fd_random_floor"] == 0.1
    with pytest.raises(UsageError, match=r"two.json: is there already .* give --out another"):
        write_runs(folder, folder / "two.html")


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"schema": 3}, "a report of schema 3, newer than the 2 known"),
        ({"measures": {"fd": {"value": "x"}}}, "a damaged report"),
        ({"settings": None}, "a damaged report"),
    ],
)
def test_reports_that_cannot_be_read_are_named(folder, changes, fact):
    report(folder / "odd.json", "dcgan", 0.5, **changes)
    table = read_runs(folder)
    assert len(table.reports) == 3
    assert [text for text in table.unread if fact in text and "odd.json" in text]


def test_nothing_to_show(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        read_runs(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no run with evaluations"):
        read_runs(tmp_path)
