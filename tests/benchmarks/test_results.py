"""What measures recipes on real slices: its commands are commands of ours, its bars decide."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
import results_of
from results_experiment import Experiment
from results_figures import above_table, decibels_above, pair_figures, set_figures, value_of
from results_plans import PLANS

from fastmrigan.cli import build_app
from fastmrigan.training.recipe_file import load_recipe

EXPERIMENTS = [
    pytest.param(recipe, experiment, id=f"{recipe}-{experiment.name}")
    for recipe, experiments in PLANS.items()
    for experiment in experiments
]


@pytest.mark.parametrize(("recipe", "experiment"), EXPERIMENTS)
def test_every_command_can_be_meant(recipe, experiment, tmp_path):
    from typer.main import get_command

    commands = get_command(build_app()).commands
    runs = False
    if experiment.uses:
        results_of.used_by(experiment)  # or raises
    for name, *words in experiment.commands(tmp_path / "data", tmp_path):
        parsed = commands[name].make_context(name, words).params  # or raises
        if name == "train":
            runs = parsed["recipe"] == recipe
            load_recipe(recipe, parsed["set_"])
        runs |= name == recipe
    assert runs


def test_another_seed_is_trained_in_a_folder_of_its_own(tmp_path):
    (experiment,) = PLANS["t2-tumour-cyclegan-improved"]
    other = results_of.reseeded(experiment, 3)
    assert other.name == "normal-tumour-seed-3"
    before, after = (each.commands(tmp_path, tmp_path) for each in (experiment, other))
    (trained,) = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert trained[1] == [*trained[0], "--set", "seed=3"]
    assert load_recipe(trained[1][1], ["seed=3"]).seed == 3


def measure(value, **facts):
    return {"name": "a name", "value": value, "interval": [value - 1, value + 1], **facts}


def test_bars_of_pairs():
    numbers = {
        "measures": {"ssim": measure(0.95), "psnr": measure(26.9)},
        "pairs": {
            "floors": {
                "ssim": {"intensity_table": 0.91, "plain_copy": 0.2},
                "psnr": {"intensity_table": 25.0, "plain_copy": 10.0},
            }
        },
    }
    bars = {"ssim": above_table, "psnr": decibels_above(2)}
    ssim, psnr = pair_figures(numbers, "T1 to T2", bars)
    assert (ssim.met, psnr.met) == (True, False)  # 0.91 + 0.03, and 27.0
    assert ssim.bar == "at least 0.940 (a third of the table's rest)"
    assert ssim.floors == {"table": 0.91, "copy": 0.2}
    assert psnr.text == "26.90 (25.90 to 27.90)"
    one_patient = numbers["measures"] | {"ssim": measure(0.95) | {"interval": None}}
    assert pair_figures(numbers | {"measures": one_patient}, "", bars)[0].text == "0.950"
    (free, _) = pair_figures(numbers, "T1 to T2", {})
    assert (free.bar, free.met) == ("", None)
    exact = numbers["pairs"]["floors"] | {"ssim": {"intensity_table": 0.91, "plain_copy": None}}
    (kept, _) = pair_figures(numbers | {"pairs": {"floors": exact}}, "T2 to itself", {})
    assert (kept.beside, kept.floors) == ("table 0.910, copy exact", {"table": 0.91})
    del numbers["measures"]["psnr"]
    assert [figure.met for figure in pair_figures(numbers, "T1 to T2", bars)] == [True, False]


@pytest.mark.parametrize(("value", "met"), [(0.5, True), (0.6, True), (0.7, False)])
def test_bars_of_sets(value, met):
    numbers = {"measures": {"d": measure(value, reference=0.2, share=False)}}
    bars = {"d": ("at most 0.6", 0.6), "free": None, "unmeasured": ("at most 0", 0.0)}
    found, free, missing = set_figures(numbers, "all", bars)
    assert (missing.text, missing.met) == ("not measured", False)
    assert (free.text, free.met) == ("not measured", None)
    assert json.dumps(missing.document(), allow_nan=False)
    assert found.met is met
    assert set_figures(numbers, "all", {"d": ("at least 0.6", 0.6)})[0].met is (value >= 0.6)
    assert found.beside == "reference 0.2"
    assert value_of(numbers, "d") == value


def test_what_is_done_is_not_run_again(tmp_path, monkeypatch):
    """A command that failed runs again, and its seconds count."""
    ran = []

    def started(words):
        ran.append(words)
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({4 * (len(ran) == 2)})"])

    monkeypatch.setattr(results_of, "started", started)
    experiment = Experiment("e", "E", ("prepare {data} --out {work}/set", "train x"), lambda _: [])
    with pytest.raises(SystemExit) as ended:
        results_of.run_steps(experiment, tmp_path, tmp_path / "work")
    assert ended.value.code == 4
    steps = results_of.run_steps(experiment, tmp_path, tmp_path / "work")
    assert [words[0] for words in ran] == ["prepare", "train", "train"]
    lines = (tmp_path / "work" / results_of.LEDGER).read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == [0, 4, 0]
    assert [step["command"].split()[1] for step in steps] == ["prepare", "train"]
    assert steps[1]["seconds"] == pytest.approx(
        sum(json.loads(line)["seconds"] for line in lines[1:]), abs=0.1
    )
    changed = Experiment("e", "E", ("prepare {data} --out y", "train x"), lambda _: [])
    results_of.run_steps(changed, tmp_path, tmp_path / "work")
    assert [words[0] for words in ran[3:]] == ["prepare", "train"]  # what follows from it, too
    results_of.run_steps(changed, tmp_path, tmp_path / "work")
    assert len(ran) == 5
    last = Experiment("f", "F", ("export {used}/run",), lambda _: [], uses="r/e")
    monkeypatch.setitem(results_of.PLANS, "r", (changed,))
    both = results_of.run_steps(last, tmp_path, tmp_path / "s" / "f")
    assert [words[0] for words in ran[5:]] == ["prepare", "train", "export"]  # what it uses, first
    assert ran[-1] == ["export", f"{tmp_path}/r/e/run"]
    assert len(both) == 3
    told = results_of.relative(both, tmp_path / "data", tmp_path / "s" / "f")
    assert [shlex.split(step["command"])[-1] for step in told[1:]] == ["x", "RESULTS/r/e/run"]
    results_of.run_steps(last, tmp_path, tmp_path / "s" / "f")
    assert len(ran) == 8
    lines = (tmp_path / "r" / "e" / results_of.LEDGER).read_text().splitlines()
    later = json.loads(lines[-1]) | {"ended": "2999-01-01 00:00 UTC"}
    (tmp_path / "r" / "e" / results_of.LEDGER).write_text(
        "\n".join([*lines[:-1], json.dumps(later)]) + "\n"
    )
    results_of.run_steps(last, tmp_path, tmp_path / "s" / "f")
    assert [words[0] for words in ran[8:]] == ["export"]  # what it uses was made anew
    told = results_of.relative(steps, tmp_path / "data", tmp_path / "work")
    assert shlex.split(told[0]["command"])[-1] == "WORK/set"
