"""DICOM through `prepare`: series, quarantine, planes, colour, pairs; nothing of identity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from prepare_inputs import in_process, picture, write_dicom, write_series
from pydicom import dcmread

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.contrast import Silent
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.decode import header
from fastmrigan.imaging.geometry import fit_square
from fastmrigan.imaging.grading import Grading, grade
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.walker import Refused

SAGITTAL = (0, 1, 0, 0, 0, -1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)


def test_a_series_is_one_volume_in_the_order_of_its_positions(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "flair", 6)
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=48, contrast="flair"))
    assert made.refused == []
    dataset = PreparedDataset.open(tmp_path / "out")
    dataset.check_fingerprint()
    raw = np.stack([picture(i).astype(np.float32) * (10 + i) for i in range(6)])
    assert len({record.grading.high for record in dataset.records}) == 1
    for i, (record, got) in enumerate(zip(dataset.records, dataset.slices("all"), strict=True)):
        assert (record.series, record.order, record.label) == (1, i, "flair")
        assert record.contrast == "flair"
        assert record.position is not None
        assert record.position.origin == (0.0, 0.0, 6.0 * i)
        assert record.position.spacing == (2.0, 1.0)
        assert record.position.slice_position().plane == "axial"
        assert record.tags["EchoTime"] == 90.0
        grading = Grading(**record.grading.model_dump())
        np.testing.assert_allclose(got, fit_square(grade(raw[i], grading), 48), atol=2e-5)
    assert dataset.info.notes == []


def test_a_copy_of_an_instance_is_taken_once(tmp_path: Path) -> None:
    """A backup beside the original is no second acquisition between its slices."""
    write_series(tmp_path / "in" / "study", 4)
    shutil.copytree(tmp_path / "in" / "study", tmp_path / "in" / "z backup")
    plain = prepare(tmp_path / "in" / "study", tmp_path / "plain", PrepareOptions(size=32))
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32))
    assert [str(each) for each in made.refused] == [
        f"z backup/{name}: is the same instance as study/{name} (SOPInstanceUID), which is taken"
        for name in ("IM001", "IM002", "IM003", "IM004")
    ]
    assert (made.info.count, made.info.notes) == (4, plain.info.notes) == (4, [])
    slices = [PreparedDataset.open(tmp_path / out).slices("all") for out in ("plain", "out")]
    np.testing.assert_array_equal(*slices)


@pytest.mark.parametrize("named", ["a/IM003", "a/IM001", "z backup/IM002"])
def test_the_table_may_name_any_file_of_a_series(tmp_path: Path, named: str) -> None:
    """Two series of one PatientID, which only the table tells apart."""
    write_series(tmp_path / "in" / "a", 3)
    write_series(tmp_path / "in" / "b", 3, start=3, series="2.25.2")
    shutil.copytree(tmp_path / "in" / "a", tmp_path / "in" / "z backup")
    table = tmp_path / "groups.csv"
    table.write_text(f"file,group\n{named},Jane Doe\n")
    prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32, groups=table))
    records = PreparedDataset.open(tmp_path / "out").records
    assert [record.group for record in records] == ["patient-0001"] * 3 + ["patient-0002"] * 3


@pytest.mark.parametrize("other", ["a/IM001", "z backup/IM001"])
def test_a_series_of_two_groups_is_told_without_their_names(tmp_path: Path, other: str) -> None:
    write_series(tmp_path / "in" / "a", 3)
    shutil.copytree(tmp_path / "in" / "a", tmp_path / "in" / "z backup")
    table = tmp_path / "groups.csv"
    table.write_text(f"file,group\na/IM003,Jane Doe\n{other},John Roe\na/IM002,Jane Doe\n")
    with pytest.raises(UsageError) as error:
        prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32, groups=table))
    assert str(error.value) == (
        f"--groups {table}: a/IM003 and {other} are of one DICOM series, but in two groups; give "
        "the series one"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut", [300, -500])  # in the header, in the pixels
def test_a_copy_stands_in_for_what_is_cut_short(tmp_path: Path, cut: int) -> None:
    write_series(tmp_path / "in" / "a", 3)
    shutil.copytree(tmp_path / "in" / "a", tmp_path / "in" / "b")
    path = tmp_path / "in" / "a" / "IM002"
    path.write_bytes(path.read_bytes()[:cut])
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32))
    assert made.info.count == 3
    assert sorted(each.name for each in made.refused) == ["a/IM002", "b/IM001", "b/IM003"]
    assert made.info.notes == []


def test_identity_stays_out(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 3, patient="P-4711")
    prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32))
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for secret in (b"Secret", b"P-4711", b"2.25.", b"20200101", b"IM00"):
        assert secret not in everything


def test_empty_slices_go_and_are_no_refusals(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 5)
    blank = np.zeros((48, 40), np.uint16)
    write_dicom(tmp_path / "in" / "IM900", blank, (0, 0, -6.0))
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32))
    assert (made.empty, made.refused, made.info.count) == (1, [], 5)
    records = PreparedDataset.open(tmp_path / "out").records
    assert [record.order for record in records] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("burned_in", "allowed", "kept"),
    [
        ("NO", "no", True),
        (None, "no", False),
        (None, "unknown", True),
        ("YES", "no", False),
        ("YES", "unknown", False),
        ("YES", "yes", True),
        (None, "yes", True),
    ],
)
def test_quarantine(tmp_path: Path, burned_in: str | None, allowed: str, kept: bool) -> None:
    write_series(tmp_path / "in", 2)
    one = picture(9).astype(np.uint16)
    write_dicom(tmp_path / "in" / "other", one, series="2.25.2", burned_in=burned_in)
    options = PrepareOptions(size=32, allow_burned_in=allowed)
    made = prepare(tmp_path / "in", tmp_path / "out", options)
    assert made.info.count == 2 + kept
    assert [each.name for each in made.quarantined] == ["other"] * (not kept)
    listed = tmp_path / "out" / "quarantine.jsonl"
    assert listed.exists() != kept
    if not kept:
        assert json.loads(listed.read_text())["name"] == "other"
        assert "BurnedInAnnotation" in json.loads(listed.read_text())["reason"]


def test_all_quarantined(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 2, burned_in=None)
    match = r"2 without BurnedInAnnotation; look at them, and use --allow-burned-in unknown where"
    with pytest.raises(InputRejected, match=match):
        prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32))
    assert len((tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()) == 2
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(allow_burned_in="unknown"))
    assert made.info.count == 2


def test_pictures_are_not_quarantined(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    made = prepare(tmp_path / "a.png", tmp_path / "out", PrepareOptions(size=32))
    assert (made.quarantined, made.info.count) == ([], 1)


def test_colour_is_refused_or_converted(tmp_path: Path) -> None:
    grey = picture(1)
    write_dicom(tmp_path / "in" / "colour", np.stack([grey] * 3, -1), rgb=True)
    write_dicom(tmp_path / "in" / "grey", picture(2).astype(np.uint16), series="2.25.2")
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=48))
    assert [each.name for each in made.refused] == ["colour"]
    assert "colour DICOM" in made.refused[0].reason
    options = PrepareOptions(size=48, rgb="convert", grading="minmax", force=True)
    assert prepare(tmp_path / "in", tmp_path / "out", options).refused == []
    dataset = PreparedDataset.open(tmp_path / "out")
    grading = Grading("minmax", float(grey.min()), float(grey.max()))
    expected = fit_square(grade(grey.astype(np.float32), grading), 48)
    np.testing.assert_allclose(dataset.slices("all")[0], expected, atol=1e-4)


def two_planes(root: Path) -> Path:
    write_series(root / "axial", 4)
    for i in range(3):
        x = picture(20 + i).astype(np.uint16)
        where = {"series": "2.25.2", "orientation": SAGITTAL}
        write_dicom(root / "sagittal" / f"{i}", x, (5.0 * i, 0, 0), **where)
    return root


def test_planes(tmp_path: Path) -> None:
    source = two_planes(tmp_path / "in")
    made = prepare(source, tmp_path / "out", PrepareOptions(size=32))
    assert made.info.notes == [
        "slices of several planes: axial 4, sagittal 3; --plane keeps one of them"
    ]
    made = prepare(source, tmp_path / "sag", PrepareOptions(size=32, plane="sagittal"))
    assert (made.info.count, made.elsewhere, made.info.labels) == (3, 4, {"sagittal": 3})
    with pytest.raises(InputRejected, match=r"--plane coronal: all 7 slices lie in other planes"):
        prepare(source, tmp_path / "none", PrepareOptions(size=32, plane="coronal"))


def test_pictures_have_no_plane(tmp_path: Path) -> None:
    from PIL import Image

    source = two_planes(tmp_path / "in")
    Image.fromarray(picture(0)).save(source / "a.png")
    made = prepare(source, tmp_path / "out", PrepareOptions(size=32, plane="axial"))
    assert (made.info.count, made.elsewhere) == (4, 4)


@pytest.mark.parametrize(
    ("isotropic", "size", "spacing"),
    [(None, (48, 40), (2.0, 1.0)), ("finest", (96, 40), (1.0, 1.0)), ("2", (48, 20), (2.0, 2.0))],
)
def test_isotropic_pixels(
    tmp_path: Path, isotropic: str | None, size: tuple[int, int], spacing: tuple[float, float]
) -> None:
    write_series(tmp_path / "in", 3)
    prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32, isotropic=isotropic))
    for i, record in enumerate(PreparedDataset.open(tmp_path / "out").records):
        assert record.source_size == size
        assert record.position is not None
        assert record.position.spacing == spacing
        # The outer edges of the slice stay where they were
        x, y, z = record.position.origin
        assert (x - spacing[1] / 2, y - spacing[0] / 2, z) == (-0.5, -1.0, 6.0 * i)


def test_pictures_have_no_pixel_size(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    with pytest.raises(InputRejected, match=r"a\.png: the size of its pixels is not known; prep"):
        prepare(tmp_path / "a.png", tmp_path / "out", PrepareOptions(isotropic="finest"))


def test_contrast_by_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def guess(paths: list[Path]) -> str:
        asked.append([path.parent.name for path in paths])
        if len(asked) == 3:
            raise Silent("it failed")
        return ("t1", "t2")[len(asked) - 1]

    monkeypatch.setattr("fastmrigan.imaging.contrast.guess_contrast", guess)
    for number, name in enumerate("abc"):
        write_series(tmp_path / "in" / name, 2, start=10 * number, series=f"2.25.{number + 1}")
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32, contrast="auto"))
    assert asked == [["a", "a"], ["b", "b"], ["c", "c"]]
    records = PreparedDataset.open(tmp_path / "out").records
    assert [r.contrast for r in records] == ["t1", "t1", "t2", "t2", "unknown", "unknown"]
    assert made.info.contrast == "unknown"
    assert made.warnings == ["a series of 2 files: contrast unknown: it failed"]
    assert made.info.notes == [
        "contrast unknown of 2 slices",
        "slices of several contrasts: t1 2, t2 2, unknown 2",
    ]


def test_a_broken_slice_leaves_a_gap(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 6)
    whole = (tmp_path / "in" / "IM003").read_bytes()
    (tmp_path / "in" / "IM003").write_bytes(whole[:-500])
    (tmp_path / "in" / "IM001").unlink()
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32))
    assert [each.name for each in made.refused] == ["IM003"]
    assert made.info.count == 4
    assert made.info.notes == ["series 1: refused 1 of its 5 files"]


def test_a_series_that_cannot_be_used_is_refused_file_by_file(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 3)
    for i in range(2):
        flat = np.full((48, 40), 7, np.uint16)
        write_dicom(tmp_path / "in" / f"flat{i}", flat, (0, 0, 5.0 * i), series="2.25.3")
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32))
    assert [str(each) for each in made.refused] == [
        f"flat{i}: its series of 2 slices: constant: every pixel is 7" for i in range(2)
    ]


def test_files_of_several_patients_are_no_series(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 2, patient="A")
    write_dicom(tmp_path / "in" / "x", picture(8).astype(np.uint16), (0, 0, 99.0), patient="B")
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32))
    records = PreparedDataset.open(tmp_path / "out").records
    assert len({record.grading.high for record in records}) == 3
    assert [record.group for record in records] == ["patient-0001"] * 2 + ["patient-0002"]
    assert "files of several patients in one series" in made.info.notes[0]


def test_registered_series(tmp_path: Path) -> None:
    write_series(tmp_path / "t1", 4)
    write_series(tmp_path / "t2", 4, start=50, series="2.25.2")
    options = PrepareOptions(size=48, pairs=tmp_path / "t2", contrast="t1", target_contrast="t2")
    made = prepare(tmp_path / "t1", tmp_path / "out", options)
    assert made.refused == []
    dataset = PreparedDataset.open(tmp_path / "out")
    grading = dataset.records[0].target_grading
    assert grading is not None
    assert len({record.target_grading.high for record in dataset.records}) == 1
    raw = picture(52).astype(np.float32) * 12
    expected = fit_square(grade(raw, Grading(**grading.model_dump())), 48)
    np.testing.assert_allclose(dataset.targets("all")[2], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ({"origin": (0, 0, 9.0)}, "its twin IM001 lies 9.0 mm away; twins are registered"),
        ({"orientation": SAGITTAL}, "its twin IM001 is turned against it; twins are registered"),
        (
            {"spacing": (4.0, 2.0)},
            "its twin IM001 ends 101.8 mm away: its pixels are of another size",
        ),
        ({"burned_in": "YES"}, "its twin IM001 text is burned into its pixels"),
    ],
)
def test_twins_that_are_none(tmp_path: Path, harm: dict, reason: str) -> None:
    x = picture(0).astype(np.uint16)
    for name, series in (("IM001", "2.25.1"), ("IM002", "2.25.2")):
        write_dicom(tmp_path / "t1" / name, x, series=series)
        write_dicom(tmp_path / "t2" / name, x, **(harm if name == "IM001" else {}))
    made = prepare(tmp_path / "t1", tmp_path / "out", PrepareOptions(pairs=tmp_path / "t2"))
    assert made.info.count == 1
    (told,) = [*made.refused, *made.quarantined]
    assert (told.name, told.reason[: len(reason)]) == ("IM001", reason)


def test_a_twin_of_more_slices_is_none(tmp_path: Path) -> None:
    x = picture(0).astype(np.uint16)
    for name, series in (("IM001", "2.25.1"), ("IM002", "2.25.2")):
        write_dicom(tmp_path / "t1" / name, x, series=series)
        write_dicom(tmp_path / "t2" / name, x)
    twin = dcmread(tmp_path / "t2" / "IM001")
    twin.NumberOfFrames, twin.PixelData = 2, 2 * twin.PixelData
    twin.save_as(tmp_path / "t2" / "IM001")
    made = prepare(tmp_path / "t1", tmp_path / "out", PrepareOptions(pairs=tmp_path / "t2"))
    assert made.info.count == 1
    assert [str(each) for each in made.refused] == [
        "IM001: holds 1 slices, its twin 2; twins are registered"
    ]


def test_the_file_of_too_many_stacks_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fastmrigan.imaging.dicom.series.MAX_STACKS", 0)
    path = write_dicom(tmp_path / "IM001", picture(0).astype(np.uint16))
    with pytest.raises(Refused, match="IM001: its frames differ in direction or spacing"):
        header(path, "IM001")


def test_real_series(tmp_path: Path, real_data) -> None:
    """22 slices of a FLAIR series, whose file names run from feet to head."""
    source = real_data("dicom/series/brainix_flair")
    options = PrepareOptions(size=64, allow_burned_in="unknown", plane="axial")
    made = prepare(source, tmp_path / "out", options)
    assert (made.info.count, made.refused, made.info.notes) == (22, [], [])
    records = PreparedDataset.open(tmp_path / "out").records
    places = [record.position.slice_position().along_normal for record in records]
    np.testing.assert_allclose(np.diff(places), 6.0, atol=0.01)
    assert len({record.grading.high for record in records}) == 1
