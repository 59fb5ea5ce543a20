"""What a job needs on the disk, against what really lies there and what is free."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny

from fastmrigan.errors import DiskFull
from fastmrigan.imaging.dataset import PreparedDataset, RecordedPosition
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import budget
from fastmrigan.jobs.budget import Need, Room, need_of
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.job import Work
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Content
from fastmrigan.jobs.sampling import JobOptions, sampling
from fastmrigan.jobs.shards import commit
from fastmrigan.jobs.translation import translation
from fastmrigan.runtime.engine_file import read_model

BLOCK = 4096
WITHIN = 1.02


@pytest.fixture
def room(monkeypatch):
    """room(bytes, files) is what every file system has free from then on."""

    def free(disk: int, files: int | None = None) -> None:
        real = budget.room_of

        def fixed(out: Path) -> Room:
            return Room(real(out).device, disk, files, BLOCK)

        monkeypatch.setattr(budget, "room_of", fixed)

    return free


def write_noise(work: Work, output: Output, size: tuple[int, int]) -> None:
    """Every shard of the job, of noise in place of what a model makes."""
    dice = np.random.default_rng(7)
    output.out.mkdir()
    for shard in work.plan(output):
        depth = np.dtype(output.depth)
        shape = (shard.count, *size)
        x = dice.integers(0, np.iinfo(depth).max, shape, dtype=depth, endpoint=True)
        commit(output.out, FORMATS[output.format], Content.whole(shard, x), work.origin)


def lying_in(out: Path) -> Need:
    """Bytes, blocks and files, by looking."""
    files = [path for path in out.rglob("*") if path.is_file()]
    folders = [path for path in out.rglob("*") if path.is_dir() and path.name != "receipts"]
    sizes = [path.stat().st_size for path in files]
    blocks = sum(-(-size // BLOCK) * BLOCK for size in sizes)
    return Need(sum(sizes), blocks, len(files) + len(folders))


@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("format", ["shard", "npz", "png", "dicom", "dicom-files"])
def test_a_sampled_job_needs_what_it_takes(write_model, tmp_path, format, dtype, count):
    if format.startswith("dicom"):
        pytest.importorskip("pydicom")
        dtype = "uint16"
    model, size = read_model(write_model()), (64, 64)
    options = JobOptions(tmp_path / "out", count, 7, format, 128, dtype)
    work, output = sampling(model, options), options.output
    need = need_of(work, output, size, list(work.plan(output)), BLOCK)
    write_noise(work, output, size)
    real = lying_in(output.out)
    assert real.bytes <= need.bytes <= WITHIN * real.bytes
    # The blocks of the folders themselves are counted in `need` alone
    assert real.disk <= need.disk <= WITHIN * real.disk + 4 * BLOCK
    assert need.files == real.files


SERIES = {0: (40, (64, 64), 5.0), 1: (24, (80, 100), 3.0)}  # slices, size, step in mm
GAP = 7  # places of series 1 that have no slice


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> PreparedDataset:
    """64 slices of noise in two series of other sizes, one with a gap."""
    from PIL import Image

    root, dice = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "png").mkdir()
    for series, (count, size, _) in SERIES.items():
        for order in range(count):
            x = dice.integers(0, 65536, size, dtype=np.uint16)
            Image.fromarray(x).save(root / "png" / f"{series}-{order:02}.png")
    prepare(root / "png", root / "set", PrepareOptions(size=64, grading="minmax", label=""))
    made = PreparedDataset.open(root / "set")
    seen: Counter[int] = Counter()
    for number, record in enumerate(made.records):
        series = 0 if record.source_size == (64, 64) else 1
        order = seen[series]
        seen[series] += 1
        place = order + (GAP if series == 1 and order >= 12 else 0)
        position = RecordedPosition(
            origin=(-100.0, -90.123, place * SERIES[series][2]),
            row=(1.0, 0.0, 0.0),
            column=(0.0, 1.0, 0.0),
            spacing=(0.9375, 0.9375),
        )
        update = {"series": series, "order": place, "position": position, "group": None}
        made.records[number] = record.model_copy(update=update)
    return made


@pytest.mark.parametrize("format", ["shard", "npz", "png", "dicom", "dicom-files", "nifti"])
def test_a_translated_job_needs_what_it_takes(write_model, dataset, tmp_path, format):
    if format.startswith("dicom"):
        pytest.importorskip("pydicom")
    if format == "nifti":
        pytest.importorskip("nibabel")
    document = tiny.metadata(task="translate", latent_size=None, slice_size=[64, 64])
    model = read_model(write_model(document, tiny.tiny_graph("translate")))
    output = Output(tmp_path / "out", format, 25)
    work = translation(model, dataset, output)
    need = need_of(work, output, (64, 64), list(work.plan(output)), BLOCK)
    write_noise(work, output, (64, 64))
    real = lying_in(output.out)
    assert real.bytes <= need.bytes <= WITHIN * real.bytes
    assert real.disk <= need.disk <= WITHIN * real.disk + 5 * BLOCK
    assert need.files == real.files


def test_what_is_there_is_not_needed_again(write_model, tmp_path):
    work = sampling(read_model(write_model()), JobOptions(tmp_path, 1024, shard_size=256))
    plan = list(work.plan(Output(tmp_path)))
    size, output = (tiny.SIZE, tiny.SIZE), Output(tmp_path)
    whole, rest = (need_of(work, output, size, shards) for shards in (plan, plan[1:]))
    assert rest.bytes == pytest.approx(0.75 * whole.bytes, rel=1e-3)
    assert need_of(work, output, size, []) == Need()


FITS = Need(10_000_000, 10_000_000, 10)


@pytest.mark.parametrize(
    ("disk", "files", "jobs", "told"),
    [
        (12_000_000, None, 1, None),
        (12_000_000, 10, 1, None),
        (10_500_000, None, 1, r"one: the job needs 11\.0 MB and 10\.5 MB are free there"),
        (12_000_000, None, 2, r"one: its 2 jobs need 22\.1 MB and 12\.0 MB are free"),
        (23_000_000, None, 2, None),
        (12_000_000, 9, 1, "one: the job needs 10 files and 9 more can be made there"),
        (23_000_000, 15, 2, "its 2 jobs need 20 files and 15 more"),
    ],
)
def test_need_against_room(tmp_path, room, disk, files, jobs, told):
    room(disk, files)
    needs = [(tmp_path / name, FITS) for name in ("one", "two")[:jobs]]
    if told is None:
        budget.check(needs)
        return
    with pytest.raises(DiskFull, match=told):
        budget.check(needs)


def test_a_job_that_needs_nothing_asks_for_no_room(tmp_path, room):
    room(0, 0)
    budget.check([(tmp_path, Need())])


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (999, "999 bytes"),
        (1000, "1.0 KB"),
        (12_345_678, "12.3 MB"),
        (10**12, "1.0 TB"),
        (0, "0 bytes"),
    ],
)
def test_amounts(size, told):
    assert budget.amount(size) == told


def test_too_little_room_is_exit_4_before_anything_begins(command, write_model, tmp_path, room):
    model, out = write_model(), tmp_path / "out"
    arguments = ["synth", model, "--count", 4000, "--out", out]
    room(2_000_000)
    code, stdout, stderr = command(*arguments)
    assert code == 4
    assert stderr.startswith(f"fastmrigan: {out}: the job needs ")
    assert stderr.count("\n") == 1
    assert stdout == ""
    assert not out.exists()
    code, stdout, _ = command(*arguments, "--no-budget-check")
    assert code == 0
    assert "4,000 slices, 4,000 made now" in stdout
    (out / "shard-000002.tar").unlink()  # what is missing has room
    code, stdout, stderr = command(*arguments)
    assert code == 0, stderr
    assert "256 made now" in stdout


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB, or a skip."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_small_file_system_takes_what_the_budget_let_in(command, write_model, small_disk):
    model = write_model()  # a slice takes 2 KB of a tar
    most = 0
    for count in (3000, 1500, 1400, 1300, 1200):
        out = small_disk / str(count)
        code, _, stderr = command("synth", model, "--count", count, "--out", out)
        if code == 0:
            most = count
            break
        assert code == 4, stderr
        assert "are free there" in stderr
        assert not out.exists()
    assert most >= 1200
    free = os.statvfs(small_disk)
    assert free.f_bavail * free.f_frsize < budget.RESERVE + 200 * 2048  # it had not much to spare


def test_without_the_check_the_disk_fills_up_and_says_so(command, write_model, small_disk):
    out = small_disk / "out"
    arguments = ["synth", write_model(), "--count", 3000, "--out", out, "--no-budget-check"]
    code, _, stderr = command(*arguments)
    assert code == 4
    assert "no space left" in stderr
