"""job.html and contact_sheet.png: the whole job, over all its runs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, laid_out
from job_page import rows_of, text_of
from PIL import Image

from fastmrigan.jobs import contact, history
from fastmrigan.jobs.job import Job
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Plan, Shard
from fastmrigan.jobs.report import page
from fastmrigan.jobs.report_figures import rate_told, rates, times_table
from fastmrigan.jobs.run import run
from fastmrigan.jobs.sampling import JobOptions, sampling, synthesise
from fastmrigan.jobs.shards import read_slices, remove
from fastmrigan.runtime import load

WHY = {3: "blank: 99.5 % black", 40: "blank: 98 % black", 41: "<script>alert(1)</script>"}


def test_a_job_that_was_killed_is_told_whole(write_model, tmp_path, fastmrigan):
    out, count = tmp_path / "out", 16 * 200
    command = ["synth", write_model(), "--out", out, "--count", count, "--shard-size", 16]
    for shards in (20, 60):
        process = subprocess.Popen(
            [sys.executable, "-m", "fastmrigan", *map(str, command)], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while len(list(out.glob("shard-*.tar"))) < shards:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL
    assert json.loads((out / "status.json").read_text())["state"] == "running"
    with (out / "log.jsonl").open("ab") as file:  # as a kill in the middle of a line leaves it
        file.write(b'{"event": "shard", "at": "2026-')
    resumed = fastmrigan(*command)
    assert resumed.returncode == 0, resumed.stderr
    found = history.read(out)
    assert [each.state for each in found.runs] == [history.UNKNOWN, history.UNKNOWN, "finished"]
    assert found.unreadable == 1
    numbers = [line["number"] for each in found.runs for line in each.shards]
    assert len(numbers) == len(set(numbers))  # none was made twice
    unlogged = set(range(count // 16)) - set(numbers)
    assert len(unlogged) <= 2 * 4  # on the disk, its line not yet written, at each kill
    html = (out / "job.html").read_text()
    told = text_of(html)
    assert "tiny: 3,200 slices sampled" in told
    assert "3,200 slices there, of 3,200 planned" in told
    assert "3 runs" in told
    assert ("slices are there and not in the log" in told) == bool(unlogged)
    assert "left torn: 1." in told
    runs = rows_of(html, "Runs")
    assert [row[2] for row in runs] == [history.UNKNOWN, history.UNKNOWN, "finished"]
    assert sum(int(row[3].replace(",", "")) for row in runs) == 16 * len(numbers)
    assert json.loads((out / "status.json").read_text())["state"] == "finished"


@pytest.fixture(scope="module")
def shards() -> list[history.Event]:
    """Lines of 500 shards whose times are known."""
    dice = np.random.default_rng(0)
    return [
        {
            "number": number,
            "seconds": float(dice.gamma(2, 0.3)),
            "waits": dice.gamma(2, 0.004, 4).tolist(),
        }
        for number in range(500)
    ]


@pytest.mark.parametrize(
    ("row", "key", "count"), [(0, "seconds", 500), (1, "waits", 2000)], ids=["shard", "batch"]
)
def test_percentiles_are_those_of_all_shards(shards, row, key, count):
    times = np.hstack([line[key] for line in shards])
    cells = rows_of("<h2>Times</h2>" + times_table(shards), "Times")[row]
    assert int(cells[1].replace(",", "")) == count
    in_ms = [float(v) * {"ms": 1, "s": 1000}[unit] for v, unit in map(str.split, cells[2:])]
    expected = 1000 * np.array([*np.percentile(times, (50, 90, 99)), times.max()])
    np.testing.assert_allclose(in_ms, expected, rtol=0.005)  # three figures are shown


def test_throughput_is_over_the_time_of_the_runs(tmp_path):
    """A run of 10 s with a shard of 100 each second, then one of 20 s with 300 each second."""
    runs = []
    for seconds, count in ((10, 100), (20, 300)):
        lines = [{"elapsed": t + 0.5, "count": count} for t in range(seconds)]
        runs.append(history.Run({"at": ""}, lines, elapsed=float(seconds)))
    edges, heights = rates(runs)
    assert len(heights) == 30 // 4
    assert (edges[0], edges[-1]) == (0.0, 30.0)
    assert heights @ np.diff(edges) == pytest.approx(100 * 10 + 300 * 20)
    assert heights[0] == pytest.approx(100, rel=0.26)
    assert heights[-1] == pytest.approx(300, rel=0.26)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.0, "0"), (4.5678, "4.57"), (99.94, "99.9"), (99.96, "100"), (2681.57, "2,682")],
)
def test_no_rate_is_a_power_of_ten(rate, text):
    assert rate_told(rate) == text


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ({}, []),
        ({7: "blank: 99.5 % black"}, [("blank: 99.5 % black", [7])]),
        (
            {9: "blank: 99.5 % black", 2: "ended 2 processes", 1: "blank: 98 % black"},
            [("blank: … % black", [1, 9]), ("ended 2 processes", [2])],
        ),
        ({1: "z -1.5e-3", 2: "z 2"}, [("z …", [1, 2])]),
    ],
)
def test_reasons_that_differ_in_a_number_are_one(why, expected):
    assert history.by_reason(why) == expected


def with_rejects(write_model, out: Path, count: int = 64) -> Job:
    """A job that leaves the slices of WHY out."""
    generator = load(write_model(), batch=8)
    options = JobOptions(out, count, 7, shard_size=16)
    return Job(sampling(generator.model, options), options.output, generator, WHY)


def test_rejects_are_told_with_their_reasons(write_model, tmp_path):
    out = tmp_path / "out"
    run(with_rejects(write_model, out))
    html = (out / "job.html").read_text()
    assert "tiny: 61 slices sampled" in text_of(html)
    assert rows_of(html, "Left out and flagged") == [
        ["left out", "2", "blank: … % black", "3, 40"],
        ["left out", "1", "<script>alert(1)</script>", "41"],
    ]
    assert "<script" not in html
    assert json.loads((out / "status.json").read_text())["left_out"] == 3
    (out / "shard-000001.tar").unlink()  # 16 slices, none of them left out
    (out / "log.jsonl").unlink()
    run(with_rejects(write_model, out))
    found = json.loads((out / "status.json").read_text())
    assert (found["made"], found["left_out"]) == (16, 3)  # receipts know of those made before
    told = text_of((out / "job.html").read_text())
    assert "tiny: 61 slices sampled" in told
    assert "3 slices left out" in told
    assert "48 slices are there and not in the log" in told


def test_the_legend_names_every_stage_of_the_table(write_model, tmp_path):
    out = tmp_path / "out"
    run(with_rejects(write_model, out))
    with (out / "log.jsonl").open("a") as file:
        shard = {"number": 9, "first": 0, "count": 16, "left_out": 0, "flagged": 0, "seconds": 1.0}
        busy = {"read": 0.1, "gate": 0.2}
        file.write(json.dumps({"event": "shard", "elapsed": 1.0, "busy": busy} | shard) + "\n")
    html = page(out)
    told = text_of(html)
    stages = [row[0] for row in rows_of(html, "What limits")]
    assert stages == ["read", "engine", "quantise", "write", "gate"]
    legend = told[told.index("may add up to more than") :]
    assert all(f" {stage}: " in legend for stage in stages)


@pytest.mark.parametrize("format", ["png", "shard"])
def test_a_shard_left_out_whole_that_a_kill_kept_from_its_name_counts_once(
    write_model, tmp_path, format
):
    out, why = tmp_path / "out", dict.fromkeys(range(16, 32), "blank")
    generator = load(write_model(), batch=8)
    options = JobOptions(out, 64, 7, format, 16)
    job = Job(sampling(generator.model, options), options.output, generator, why)
    run(job)
    remove(next(out.glob("shard-000001*")))  # its receipt stays
    found = history.rejects(out, history.read(out))
    assert (found.left_out, found.without_files, found.unlogged) == ({}, set(), 0)
    run(job)
    status = json.loads((out / "status.json").read_text())
    assert (status["made"], status["left_out"]) == (16, 16)
    assert history.rejects(out, history.read(out)).left_out == why


def test_the_page_of_half_a_folder(write_model, tmp_path):
    out = tmp_path / "out"
    synthesise(load(write_model(), batch=8), JobOptions(out, 64, 7, shard_size=16))
    for name in ("run.json", "log.jsonl", "contact_sheet.png", "receipts/shard-000002.tar.json"):
        (out / name).write_bytes(b"\x00 not what it should be \xff")
        page(out)
        (out / name).unlink()
        told = text_of(page(out))
    assert "run.json cannot be read" in told
    assert "log.jsonl tells of no run" in told
    assert "48 slices" in told  # the receipts know of three shards


# The contact sheet


def expected_places(count: int) -> list[int]:
    """Slices of a plan of `count` on a sheet of 48."""
    return [round(i * (count - 1) / 47) for i in range(48)] if count > 48 else list(range(count))


def tiles_of(path: Path, count: int) -> list[np.ndarray]:
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        sheet = np.asarray(opened)
    rows = -(-count // 8)
    assert sheet.shape == (rows * 130 + 2, min(count, 8) * 130 + 2)
    starts = [(2 + i // 8 * 130, 2 + i % 8 * 130) for i in range(count)]
    return [sheet[y : y + 128, x : x + 128] for y, x in starts]


@pytest.mark.parametrize("count", [1, 48, 200])
@pytest.mark.parametrize("format", ["shard", "npz", "png", "dicom", "dicom-files"])
def test_the_sheet_shows_slices_spread_evenly(write_model, tmp_path, format, count):
    out = tmp_path / "out"
    synthesise(load(write_model(), batch=8), JobOptions(out, count, 7, format, 16))
    slices = dict(read_slices(out))
    shown = expected_places(count)
    tiles = tiles_of(out / "contact_sheet.png", len(shown))
    for index, tile in zip(shown, tiles, strict=True):
        grey = slices[index].astype(float) / (1 if slices[index].dtype == np.uint8 else 257)
        assert np.abs(tile - grey.repeat(8, 0).repeat(8, 1)).max() <= 0.51


def test_the_sheet_passes_over_what_is_not_there(write_model, tmp_path):
    out = tmp_path / "out"
    run(with_rejects(write_model, out))
    (out / "shard-000001.tar").unlink()
    plan = list(Plan(64, 16))
    output = Output(out, shard_size=16)
    assert len(list(contact.picked(output, plan))) == 64 - 16 - len(WHY)
    for shard in out.glob("shard-*"):
        shard.unlink()
    assert contact.sheet(output, plan) is None


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((16, 16), (128, 128)),
        ((48, 64), (96, 128)),
        ((100, 90), (100, 90)),
        ((128, 128), (128, 128)),
        ((512, 256), (128, 64)),
        ((300, 1), (128, 1)),
    ],
)
def test_tiles_keep_the_aspect(size, shown):
    tile = contact.tile(np.full(size, 200, np.uint8))
    assert tile.shape == (128, 128)
    rows, columns = np.nonzero(tile)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == shown
    assert (tile[rows, columns] == 200).all()


def test_volumes_have_a_sheet_too(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    dice, planes = np.random.default_rng(0), []
    for number, depth in enumerate((5, 4)):
        volume = dice.uniform(-100, 900, (32, 16, depth)).astype(np.float32)  # [W, H, places]
        name = f"series-{number:06}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / name)
        low, high = volume.min(), volume.max()
        planes += list(255 * (volume.T - low) / (high - low))
    picked = list(contact.picked(Output(tmp_path, "nifti"), [Shard(0, 0, 5), Shard(1, 5, 4)]))
    assert len(picked) == 9
    for found, expected in zip(picked, planes, strict=True):
        assert np.abs(found - expected).max() <= 0.51


# The page in a browser


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_runs_out_of_the_page(write_model, tmp_path, width):
    out = tmp_path / "out"
    for _ in range(2):
        run(with_rejects(write_model, out, 640))
        (out / "shard-000003.tar").unlink()
    run(with_rejects(write_model, out, 640))
    html = (out / "job.html").read_text()
    assert len(rows_of(html, "Runs")) == 3
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "for research; not for diagnosis" in html.lower()
    found = laid_out(tmp_path, html, width)
    assert found["wide"] == []
    assert found["scroll"] <= found["client"] == width
    assert found["images"] == 1
