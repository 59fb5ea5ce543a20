"""From folders to prepared data sets, in process; the command line is in test_prepare_cli."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from prepare_inputs import contents, folder, in_process, picture

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.geometry import fit_square
from fastmrigan.imaging.grading import Grading, grade, ungrade
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.walker import natural

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)


def test_the_data_set(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 20)
    options = PrepareOptions(size=32, contrast="t2", grading="minmax", test_fraction=0.2)
    made = prepare(source, tmp_path / "out", options)
    dataset = PreparedDataset.open(tmp_path / "out")
    assert dataset.info == made.info
    assert len(dataset) == dataset.info.count == 20
    assert dataset.info.size == (32, 32)
    assert dataset.info.labels == {"normal": 7, "tumour": 13}
    assert dataset.info.split.counts == {"train": 16, "test": 4}
    assert dataset.info.split.by == "duplicates"
    assert dataset.info.contrast == "t2"
    dataset.check_fingerprint()
    assert (tmp_path / "out" / "rejects.jsonl").read_text() == ""
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.mode == "L"

    everything = dataset.slices("all")
    assert everything.dtype == np.float32
    assert everything.shape == (20, 32, 32)
    parts = [dataset.slices("train", "tumour"), dataset.slices("train", "normal")]
    assert sum(map(len, parts)) + len(dataset.slices("test")) == 20

    names = sorted(
        (p.relative_to(source).as_posix() for p in source.rglob("*.png")),
        key=lambda n: (n.split("/")[0], int(n.rsplit("slice", 1)[1][:-4])),
    )
    for record, name, got in zip(dataset.records, names, everything, strict=True):
        assert re.fullmatch("[0-9a-f]{16}", record.source)
        assert record.source != hashlib.sha256(name.encode()).hexdigest()[:16]  # found by trying
        assert record.source_size == (48, 40)
        assert record.mode == "PNG L"
        assert record.label == name.split("/")[0]
        raw = np.asarray(Image.open(source / name)).astype(np.float32)
        grading = Grading(**record.grading.model_dump())
        np.testing.assert_allclose(got, fit_square(grade(raw, grading), 32), atol=2e-5)


def test_grading_comes_back_within_a_grey_level(tmp_path: Path) -> None:
    Image.fromarray(picture(3, 64, 64)).save(tmp_path / "a.png")
    prepare(tmp_path / "a.png", tmp_path / "out", PrepareOptions(grading="minmax"))
    dataset = PreparedDataset.open(tmp_path / "out")
    grading = Grading(**dataset.records[0].grading.model_dump())
    back = ungrade(dataset.slices("all")[0], grading)
    assert np.abs(back - picture(3, 64, 64)).max() < 0.01


def test_sixteen_bits_survive(tmp_path: Path) -> None:
    x = picture(4, 64, 64).astype(np.uint16) * 257
    x[10:20, 10:20] = np.arange(100, dtype=np.uint16).reshape(10, 10) + 30000
    Image.fromarray(x).save(tmp_path / "a.png")
    prepare(tmp_path / "a.png", tmp_path / "out", PrepareOptions(grading="window:0:65535"))
    stored = np.load(tmp_path / "out" / "slices.npy")[0]
    assert np.abs(stored.astype(int) - x).max() <= 1


def test_twice_is_the_same_bytes(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 9)
    for name in ("a", "b"):
        prepare(source, tmp_path / name, PrepareOptions(size=32))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    prepare(source, tmp_path / "a", PrepareOptions(size=32))  # over itself
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "in"]


def test_exact_duplicates_are_found_across_formats(tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    Image.fromarray(picture(2)).save(tmp_path / "copy.tif")
    Image.fromarray(picture(3)).convert("RGB").save(tmp_path / "rgb.png")
    prepare(tmp_path, tmp_path / "out", PrepareOptions(label="", test_fraction=0.3))
    records = PreparedDataset.open(tmp_path / "out").records
    assert [r.exact_group for r in records] == [None, None, 0, 1, None, None, 0, 1]
    assert [r.near_group for r in records] == [None, None, 0, 1, None, None, 0, 1]
    for number in (0, 1):
        assert len({r.split for r in records if r.exact_group == number}) == 1


def test_patients_by_pattern_leave_no_trace_of_their_names(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 16)
    options = PrepareOptions(size=32, group_pattern=r"(head\d+)_", test_fraction=0.25)
    made = prepare(source, tmp_path / "out", options)
    assert made.info.split.by == "patient"
    records = PreparedDataset.open(tmp_path / "out").records
    sides: dict[str | None, set[str]] = {}
    for record in records:
        sides.setdefault(record.group, set()).add(record.split)
    assert len(sides) == 8
    assert all(len(side) == 1 for side in sides.values())
    assert sum(r.split == "test" for r in records) == 4
    assert "head" not in (tmp_path / "out" / "index.jsonl").read_text()


def test_patients_by_a_table(tmp_path: Path) -> None:
    source, table = folder(tmp_path / "in", 16), tmp_path / "groups.csv"
    names = [path.relative_to(source).as_posix() for path in source.rglob("*.png")]
    names.sort(key=natural)  # as they are numbered
    who = [f"Jane Doe {number % 4}" for number in range(16)]
    rows = [f"{patient},{name},64" for patient, name in zip(who, names, strict=True)]
    table.write_text("\n".join(["group,file,width", *rows]))
    options = PrepareOptions(size=32, groups=table, test_fraction=0.25)
    made = prepare(source, tmp_path / "out", options)
    assert made.info.split.by == "patient"
    records = PreparedDataset.open(tmp_path / "out").records
    found = {(patient, r.group, r.split) for patient, r in zip(who, records, strict=True)}
    assert len(found) == len({group for _, group, _ in found}) == 4  # one side for each
    assert sum(r.split == "test" for r in records) == 4
    assert "Jane" not in (tmp_path / "out" / "index.jsonl").read_text()
    assert prepare(source, tmp_path / "out", options).info == made.info  # as it is
    table.write_text(table.read_text().replace("Jane Doe", "Head"))
    assert prepare(source, tmp_path / "out", options).info == made.info  # who shares one, no names
    table.write_text(table.read_text().replace("Head 3", "Head 2"))
    with pytest.raises(UsageError, match="--force"):
        prepare(source, tmp_path / "out", options)


def test_names_in_a_table_are_compared_as_they_are_meant(tmp_path: Path) -> None:
    """Composed in the table, decomposed on the disk, and the other way round."""
    names, written = (
        ["e\u0301.png", "\xe9t.png", "b.png"],
        ["\xe9.png", " e\u0301t.png", ".//b.png "],
    )
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(names):
        Image.fromarray(picture(seed)).save(tmp_path / "in" / name)
    table = tmp_path / "groups.csv"
    rows = [
        f"{name},{who}\n" for name, who in zip(written, ["Zo\xeb", "Zoe\u0308 ", "B"], strict=True)
    ]
    table.write_text("".join(["file,group\n", *rows]), encoding="utf-8")
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(groups=table))
    assert (made.warnings, made.nameless) == ([], 0)
    groups = [record.group for record in PreparedDataset.open(tmp_path / "out").records]
    assert sorted(groups) == ["patient-0001", "patient-0002", "patient-0002"]


def test_a_table_may_be_a_pipe(tmp_path: Path) -> None:
    """What came through a pipe is gone once it is read."""
    source = folder(tmp_path / "in", 4)
    rows = [f"{p.relative_to(source)},{p.name[:5]}\n" for p in source.rglob("*.png")]
    end, start = os.pipe()
    os.write(start, "".join(["file,group\n", *rows]).encode())
    os.close(start)
    try:
        made = prepare(source, tmp_path / "out", PrepareOptions(groups=Path(f"/dev/fd/{end}")))
    finally:
        os.close(end)
    assert made.info.split.by == "patient"
    assert len({r.group for r in PreparedDataset.open(tmp_path / "out").records}) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file or directory"),
        ("name,patient\na.png,1\n", "expected the columns file and group, found name, patient"),
        ("file,group\nb.png,1\n", "names no file, e.g. normal/head0_slice0.png"),
        ("file,group\nb.png,X\n\nb.png,Y\n", "b.png is in two groups, by lines 2 and 4; keep one"),
    ],
)
def test_tables_of_patients_that_are_none(tmp_path: Path, text: str | None, told: str) -> None:
    table = tmp_path / "groups.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(UsageError, match=rf"--groups {table}: {told}"):
        prepare(folder(tmp_path / "in", 3), tmp_path / "out", PrepareOptions(groups=table))
    assert not (tmp_path / "out").exists()


def twins(root: Path, count: int) -> tuple[Path, Path]:
    for side, start in (("t1", 0), ("t2", 100)):
        (root / side / "s").mkdir(parents=True)
        for i in range(count):
            Image.fromarray(picture(start + i)).save(root / side / "s" / f"{i}.png")
    return root / "t1", root / "t2"


def test_twins_by_name(tmp_path: Path) -> None:
    source, targets = twins(tmp_path, 8)
    (targets / "s" / "1.png").unlink()
    (source / "s" / "2.png").unlink()
    Image.fromarray(picture(5, 40, 48)).save(targets / "s" / "3.png")
    (targets / "s" / "4.png").write_bytes(b"no image")
    Image.fromarray(picture(9)).save(targets / "s" / "5.tif")
    options = PrepareOptions(size=32, pairs=targets, contrast="t1", target_contrast="t2")
    made = prepare(source, tmp_path / "out", options)
    assert {
        refused.name: refused.reason.replace(str(tmp_path), "") for refused in made.refused
    } == {
        "s/1.png": "has no twin s/1.* in /t2",
        "s/2.png": "a target without a source of the same name",
        "s/3.png": "40x48 pixels, but its twin s/3.png is 48x40 pixels; twins are registered",
        "s/4.png": "its twin s/4.png: not a PNG, JPEG, TIFF, DICOM or NIfTI image",
        "s/5.png": "has several twins in /t2: s/5.png, s/5.tif",
    }
    dataset = PreparedDataset.open(tmp_path / "out")
    assert dataset.info.paired
    assert dataset.info.target_contrast == "t2"
    assert dataset.slices("all").shape == dataset.targets("all").shape == (3, 32, 32)
    record = dataset.records[1]
    assert record.target_grading is not None
    grading = Grading(**record.target_grading.model_dump())
    expected = fit_square(grade(picture(106).astype(np.float32), grading), 32)
    np.testing.assert_allclose(dataset.targets("all")[1], expected, atol=2e-5)


def test_twins_by_table(tmp_path: Path) -> None:
    twins(tmp_path, 4)
    table = tmp_path / "pairs.csv"
    rows = ["t1/s/0.png,t2/s/3.png", "t1/s/1.png,t2/s/9.png", "t1/s/2.png,", "../x.png,t2/s/0.png"]
    table.write_text("\n".join(["source,target,note", *(f"{row},x" for row in rows)]))
    made = prepare(tmp_path, tmp_path / "out", PrepareOptions(size=32, pairs=table))
    assert made.info.count == 1
    assert made.info.labels == {"s": 1}
    assert [str(refused).replace(str(tmp_path), "ROOT") for refused in made.refused] == [
        "t2/s/9.png: is not there, though pairs.csv names it",
        "pairs.csv line 4: lacks a source or a target",
        "../x.png: lies outside ROOT",
    ]
    table.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="expected the columns source and target, found a, b"):
        prepare(tmp_path, tmp_path / "out2", PrepareOptions(pairs=table))


def test_volumes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("p1", "p2", "p3"):
        volume = np.zeros((30, 34, 6), np.float32)
        volume[8:22, 8:26, 1:5] = 100 * rng.uniform(1, 2, (14, 18, 4))
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{name}.nii.gz")
    made = prepare(tmp_path, tmp_path / "out", PrepareOptions(size=32, test_fraction=0.34))
    assert made.info.count == 12
    assert made.empty == 6
    assert made.info.split.by == "patient"
    assert made.info.split.counts == {"train": 8, "test": 4}
    records = PreparedDataset.open(tmp_path / "out").records
    assert [r.group for r in records] == [f"patient-000{i // 4 + 1}" for i in range(12)]
    assert len({r.grading.high for r in records}) == 3  # one range a volume
    assert len({r.source for r in records}) == 12
    with pytest.raises(InputRejected, match=r"p1.nii.gz: no slice has more than 90% brain \(and 2"):
        prepare(tmp_path, tmp_path / "none", PrepareOptions(min_brain=0.9))


def test_some_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 4)
    (source / "notes.txt").write_text("x")
    (source / "a\nb.png").write_bytes(b"x")
    made = prepare(source, tmp_path / "out", PrepareOptions(size=32, test_fraction=0))
    assert [str(refused) for refused in made.refused] == [
        r"a\nb.png: not a PNG, JPEG, TIFF, DICOM or NIfTI image"
    ]
    assert made.ignored == {".txt": 1}
    (line,) = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "a\nb.png"


def test_all_refused(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.png", "b.png"):
        (source / name).write_bytes(b"x")
    with pytest.raises(InputRejected, match=r"^a.png: not a PNG.* \(and 1 more, see .*rejects"):
        prepare(source, tmp_path / "out", PrepareOptions())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["rejects.jsonl"]
    assert len((tmp_path / "out" / "rejects.jsonl").read_text().splitlines()) == 2
    folder(source, 3)
    assert prepare(source, tmp_path / "out", PrepareOptions()).info.count == 3


def test_what_is_in_the_way(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 6)
    Image.fromarray(picture(6)).save(source / "flat.tif")
    out = tmp_path / "out"
    prepare(source, out, PrepareOptions(size=32))
    before = contents(out)
    with pytest.raises(
        UsageError, match=r"holds a different prepared data set \(7 slices of 32x32"
    ):
        prepare(source, out, PrepareOptions(size=48))
    Image.fromarray(picture(77)).save(source / "flat.tif")  # uncompressed: of the same size
    with pytest.raises(UsageError, match="made from other bytes under the same names"):
        prepare(source, out, PrepareOptions(size=32))
    assert contents(out) == before
    prepare(source, out, PrepareOptions(size=48, force=True))
    assert PreparedDataset.open(out).info.size == (48, 48)
    (out / "my notes.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"holds my notes.txt, which is no part of a prepared"):
        prepare(source, out, PrepareOptions(size=32, force=True))


def test_all_is_on_the_disk_before_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def record(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", record)
    prepare(folder(tmp_path / "in", 3), tmp_path / "out", PrepareOptions(size=32))
    assert {p.name for p in (tmp_path / "out").iterdir()} <= set(synced)
    assert synced[-2:] == [".out.making", tmp_path.name]


def test_the_output_may_lie_in_the_source(tmp_path: Path) -> None:
    folder(tmp_path, 6)
    for _ in range(2):
        assert prepare(tmp_path, tmp_path / "out", PrepareOptions(size=32)).info.count == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PrepareOptions(size=8), "--size 8: expected 16 to 4096"),
        (PrepareOptions(test_fraction=1.0), "--test-fraction 1: expected 0 to below 1"),
        (PrepareOptions(min_brain=-0.1), "--min-brain -0.1"),
        (PrepareOptions(seed=-1), "--seed -1"),
        (PrepareOptions(split="random"), "--split random: expected one of auto, patient"),
        (PrepareOptions(contrast="t9"), "--contrast t9: expected one of auto, t1"),
        (PrepareOptions(plane="skew"), "--plane skew: expected one of any, sagittal, coronal, ax"),
        (PrepareOptions(isotropic="fine"), "--isotropic fine: expected finest, or millimetres"),
        (PrepareOptions(isotropic="0"), "--isotropic 0: expected finest"),
        (PrepareOptions(isotropic="nan"), "--isotropic nan: expected finest"),
        (PrepareOptions(rgb="keep"), "--rgb keep: expected one of refuse, convert"),
        (PrepareOptions(allow_burned_in="all"), "--allow-burned-in all: expected one of no, unk"),
        (PrepareOptions(tumour_area=0), "--tumour-area 0: expected mm² above 0"),
        (PrepareOptions(workers=0), "--workers 0: expected 1 or more"),
        (PrepareOptions(label_maps="maps"), "--label-maps maps: no such folder, and no pattern"),
        (PrepareOptions(label_maps="{stem}", label="a"), "--label-maps: names the labels tumour"),
        (PrepareOptions(target_contrast="x"), "--target-contrast x"),
        (PrepareOptions(grading="gamma"), "--grading gamma"),
        (PrepareOptions(group_pattern="("), r"--group-pattern \("),
        (PrepareOptions(group_pattern="head"), "has no group in parentheses"),
        (PrepareOptions(group_pattern="(zebra)"), "matches no name, e.g. normal/head0_slice0.png"),
        (PrepareOptions(group_pattern="(a)", groups=Path("x.csv")), "both tell patients apart"),
        (PrepareOptions(pairs=Path("nowhere")), "--pairs nowhere: no such file or folder"),
        (PrepareOptions(split="patient"), "--split patient: 3 of 3 slices have no patient"),
    ],
)
def test_wrong_options(tmp_path: Path, options: PrepareOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(folder(tmp_path / "in", 3), tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_closed_file_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 3)
    path = source / "shut.png"
    path.write_bytes(b"x")
    path.chmod(0)
    made = prepare(source, tmp_path / "out", PrepareOptions())
    assert [str(r) for r in made.refused] == ["shut.png: cannot be read (Permission denied)"]
