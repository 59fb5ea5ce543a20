"""Frames to stacks in the order in which they lie in the patient, whatever they are called."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_files import AXIAL, CORONAL, SAGITTAL

from fastmrigan.imaging.dicom import DicomHeader, Series, assemble, read_header
from fastmrigan.imaging.dicom.series import MAX_STACKS, check_stacks
from fastmrigan.imaging.position import SlicePosition

OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def position(
    z: float, cosines: Sequence[float] = AXIAL, aside: float = 0.0, spacing: float = 0.9
) -> SlicePosition:
    """At `z` mm along the normal, `aside` mm along a row."""
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    origin = np.cross(row, column) * z + row * aside
    return SlicePosition(tuple(origin), tuple(row), tuple(column), (spacing, spacing), 4.0)


def header(*positions: SlicePosition | None, series: str | None = "1.2.3", **facts) -> DicomHeader:
    known = None if None in positions else positions
    made = DicomHeader(
        patient="id",
        series=series,
        sop_class="",
        modality="MR",
        syntax="",
        rows=20,
        columns=24,
        frames=len(positions),
        photometric="MONOCHROME2",
        positions=known,
        burned_in="unknown",
        tags={},
    )
    return replace(made, **facts)


def shuffled(items: list) -> list:
    return random.Random(3).sample(items, len(items))


def places(series: Series) -> list[float]:
    return [round(ref.position.along_normal, 3) for ref in series.frames]


@pytest.mark.parametrize("cosines", [AXIAL, SAGITTAL, CORONAL, OBLIQUE])
def test_order_is_by_place_not_by_name(cosines: Sequence[float]) -> None:
    zs = [30.0, -12.5, 7.5, 50.0, 5.0, -10.0]
    items = [(f"slice{i}.dcm", header(position(z, cosines))) for i, z in enumerate(zs)]
    (series,) = assemble(shuffled(items))
    assert places(series) == sorted(zs)
    assert [ref.name for ref in series.frames] == [f"slice{zs.index(z)}.dcm" for z in sorted(zs)]
    assert series.uid == "1.2.3"
    assert series.plane == position(0, cosines).plane


@pytest.mark.parametrize(
    ("zs", "step", "note"),
    [
        ([0, 5, 10, 15], 5, None),
        ([0, 5.004, 9.996, 15.002], 5.0007, None),  # rounded positions
        ([0, 12, 24, 36], 12, None),  # every 18th slice is an even step of its own
        ([0], None, None),
        ([0, 5, 10, 25, 30], None, "gaps: 1 of up to 15.00 mm where slices are 5.00 mm apart"),
        ([0, 5, 11, 15, 20], None, "uneven steps: 4.00 to 6.00 mm"),
        ([0, 0, 5, 5, 10, 10], 5, "duplicate positions: 6 slices at 3 places"),
        ([4, 4, 4], None, "duplicate positions: 3 slices at 1 place"),
    ],
)
def test_steps_gaps_and_duplicates(zs: list[float], step: float | None, note: str | None) -> None:
    items = [(f"{i}.dcm", header(position(z))) for i, z in enumerate(zs)]
    (series,) = assemble(shuffled(items))
    assert series.step_mm == (None if step is None else pytest.approx(step, abs=1e-3))
    assert len(series.notes) == (note is not None)
    if note is not None:
        assert series.notes[0].startswith(note)
        assert "\n" not in series.notes[0]


def test_slices_at_one_place_are_in_the_order_of_names() -> None:
    items = [(f"echo{i}.dcm", header(position(5 + 1e-9 * (i % 2)))) for i in (2, 10, 1)]
    (series,) = assemble(items)
    assert [ref.name for ref in series.frames] == ["echo1.dcm", "echo2.dcm", "echo10.dcm"]


def test_a_tilted_gantry_is_told() -> None:
    items = [(f"{i}.dcm", header(position(5 * i, aside=1.5 * i))) for i in range(4)]
    (series,) = assemble(items)
    assert series.notes == ("slices displaced sideways, by up to 1.50 mm (a tilted gantry?)",)
    assert series.step_mm == pytest.approx(5)


def test_a_localiser_of_three_planes_is_three_stacks() -> None:
    items = [
        (f"loc{3 * i + j}.dcm", header(position(10 * i, cosines)))
        for i in range(3)
        for j, cosines in enumerate((SAGITTAL, AXIAL, CORONAL))
    ]
    made = assemble(shuffled(items))
    assert [series.plane for series in made] == ["sagittal", "axial", "coronal"]
    for series in made:
        assert places(series) == [0, 10, 20]
        assert series.notes == (
            "mixed orientations or sizes in one series, kept apart: 3 sagittal 24x20, "
            "3 axial 24x20, 3 coronal 24x20",
        )


@pytest.mark.parametrize(
    "other",
    [
        header(position(5), rows=40),
        header(position(5, spacing=0.5)),
        header(None),
    ],
    ids=["size", "spacing", "unplaced"],
)
def test_what_differs_in_geometry_is_kept_apart(other: DicomHeader) -> None:
    items = [("a.dcm", header(position(0))), ("b.dcm", header(position(10))), ("c.dcm", other)]
    first, second = assemble(shuffled(items))
    assert [ref.name for ref in first.frames] == ["a.dcm", "b.dcm"]
    assert [ref.name for ref in second.frames] == ["c.dcm"]
    assert "mixed orientations or sizes" in second.notes[0]


def test_rounded_cosines_stay_together() -> None:
    noisy = tuple(x + 2e-4 for x in OBLIQUE)
    items = [("a.dcm", header(position(0, OBLIQUE))), ("b.dcm", header(position(5, noisy)))]
    assert len(assemble(items)) == 1


def test_frames_of_one_file() -> None:
    made = assemble([("e.dcm", header(*[position(z) for z in (8, 0, 4)]))])
    assert [(ref.name, ref.frame) for ref in made[0].frames] == [("e.dcm", i) for i in (1, 2, 0)]
    assert made[0].step_mm == pytest.approx(4)


def test_a_file_of_more_stacks_than_anyone_scans() -> None:
    def spread(count: int) -> DicomHeader:
        return header(*[position(0, spacing=1 + n / 100) for n in range(count) for _ in range(3)])

    check_stacks(spread(MAX_STACKS))
    with pytest.raises(ValueError, match="differ in direction or spacing more than 32 times"):
        check_stacks(spread(MAX_STACKS + 1))


def test_without_positions_or_series() -> None:
    items = [
        ("x/2.dcm", header(None, series=None)),
        ("x/10.dcm", header(None, series=None)),
        ("y/1.dcm", header(None, series=None)),
    ]
    x, y = assemble(shuffled(items))
    assert [ref.name for ref in x.frames] == ["x/2.dcm", "x/10.dcm"]
    assert x.notes == (
        "no SeriesInstanceUID: grouped by folder and geometry",
        "no positions: in the order of names",
    )
    assert (x.uid, x.plane, x.step_mm) == (None, "unknown", None)
    assert [ref.name for ref in y.frames] == ["y/1.dcm"]


def test_the_order_of_series_is_that_of_names() -> None:
    items = [(f"{i}.dcm", header(position(0), series=f"1.{9 - i}")) for i in (1, 2, 10)]
    assert [s.frames[0].name for s in assemble(shuffled(items))] == ["1.dcm", "2.dcm", "10.dcm"]


REAL = {  # plane, step in mm
    "brainix_flair": ("axial", 6.0),
    "hanke_t1w": ("axial", 12.0),
    "dwv_mprage_sag": ("sagittal", None),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("numbers", ["permuted", "absent"])
def test_real_series_shuffled(tmp_path: Path, real_data, name: str, numbers: str) -> None:
    """Names and instance numbers of real series permuted: the order is still that of places."""
    import pydicom

    sources = sorted(real_data(f"dicom/series/{name}").iterdir())
    order = random.Random(1).sample(range(len(sources)), len(sources))
    truth = {}
    for new, old in enumerate(order):
        dataset = pydicom.dcmread(sources[old], stop_before_pixels=False)
        if numbers == "permuted":
            dataset.InstanceNumber = new + 1
        else:
            del dataset.InstanceNumber
        target = tmp_path / f"{new}.dcm"
        dataset.save_as(target)
        row, column = np.split(np.array(dataset.ImageOrientationPatient, float), 2)
        truth[target.name] = float(np.cross(row, column) @ dataset.ImagePositionPatient)
    assert len(set(truth.values())) == len(sources)
    items = [(path.name, read_header(path)) for path in tmp_path.iterdir()]
    (series,) = assemble(items)
    assert [ref.name for ref in series.frames] == sorted(truth, key=truth.__getitem__)
    plane, step = REAL[name]
    assert series.plane == plane
    if step is not None:
        assert series.step_mm == pytest.approx(step, rel=0.02)
        assert series.notes == ()
    shutil.rmtree(tmp_path)
