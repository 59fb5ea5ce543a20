"""Emitted NIfTI volumes, held against nibabel's own idea of where a voxel lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastmrigan.errors import UsageError
from fastmrigan.imaging.emit.nifti import grid, write_volume
from fastmrigan.imaging.position import SlicePosition

nibabel = pytest.importorskip("nibabel")

SHAPE = (4, 6, 5)  # [N, H, W]


def rotation(degrees: float) -> np.ndarray:
    """About a skew axis, by Rodrigues' formula."""
    axis = np.array([1.0, 2.0, 3.0]) / 14**0.5
    k = np.cross(np.eye(3), axis) * -1
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def affine(degrees: float = 0.0, flips=(1, 1, 1), zooms=(0.9, 1.1, 4.0)) -> np.ndarray:
    """RAS mm of a volume [X, Y, Z]."""
    made = np.eye(4)
    made[:3, :3] = rotation(degrees) @ np.diag(np.array(flips) * zooms)
    made[:3, 3] = -31.5, 20.25, 7.125
    return made


def positions(ras: np.ndarray, count: int) -> list[SlicePosition]:
    """Of the planes [:, :, k] with rows along y and columns along x, in LPS."""
    lps = np.diag([-1, -1, 1, 1]) @ ras
    x, y, z, origin = (lps[:3, n] for n in range(4))
    spacing = float(np.linalg.norm(y)), float(np.linalg.norm(x))
    row, column = tuple(x / spacing[1]), tuple(y / spacing[0])
    return [SlicePosition(tuple(origin + k * z), row, column, spacing, 4.0) for k in range(count)]


@pytest.fixture
def slices() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32)


def at(image, world: np.ndarray) -> float:
    """The voxel that holds a point, [3] in RAS mm."""
    voxel = np.linalg.inv(image.affine) @ [*world, 1]
    index = np.rint(voxel[:3]).astype(int)
    np.testing.assert_allclose(voxel[:3], index, atol=1e-4)
    return float(np.asarray(image.dataobj)[tuple(index)])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("degrees", "flips"),
    [(0, (1, 1, 1)), (0, (-1, -1, 1)), (20, (-1, 1, 1)), (75, (1, 1, -1)), (100, (-1, -1, 1))],
)
def test_every_voxel_lies_where_its_slice_does(tmp_path, slices, degrees, flips, suffix):
    ras = affine(degrees, flips)
    write_volume(tmp_path / f"v{suffix}", slices, positions(ras, 4))
    image = nibabel.load(tmp_path / f"v{suffix}")
    assert sorted(image.shape) == sorted(SHAPE)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    for k, row, column in np.ndindex(SHAPE):
        world = (ras @ [column, row, k, 1])[:3]
        assert at(image, world) == slices[k, row, column]
    closest = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.zeros((5, 6, 4)), ras))
    np.testing.assert_allclose(image.affine, closest.affine, atol=1e-6)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.float32


def test_order_of_the_slices_does_not_matter(tmp_path, slices):
    places, mixed = positions(affine(20), 4), [2, 0, 3, 1]
    write_volume(tmp_path / "a.nii", slices, places)
    write_volume(tmp_path / "b.nii", slices[mixed], [places[k] for k in mixed])
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()


def test_a_missing_slice_is_blank(tmp_path, slices):
    places, kept = positions(affine(), 6), [0, 1, 2, 5]
    slices[:, [0, -1]] = slices[:, :, [0, -1]] = 5.0  # as the air around a head
    for blank, found in ((None, 5.0), (-7.0, -7.0)):
        write_volume(tmp_path / "v.nii", slices, [places[k] for k in kept], blank=blank)
        volume = np.asarray(nibabel.load(tmp_path / "v.nii").dataobj)
        assert volume.shape == (5, 6, 6)
        np.testing.assert_array_equal(volume[:, :, 3:5], np.full((5, 6, 2), found, np.float32))
        np.testing.assert_array_equal(volume[:, :, 5], slices[3].T)


@pytest.mark.parametrize(
    ("orders", "before"),
    [([3, 4, 5], 3), ([0, 1, 2], 0), ([3, 5, 7], 0), ([3, None, 5], 0), ([5, 4, 3], 0), ([], 0)],
)
def test_the_source_numbers_tell_where_its_stack_began(orders, before):
    places = positions(affine(20), 6)
    found = grid(places[3:], orders)
    np.testing.assert_allclose(found.affine, grid(places[3 - before :]).affine, atol=1e-9)
    assert found.places == (before, before + 1, before + 2)
    assert found.count == before + 3


def test_one_slice_is_a_volume(tmp_path, slices):
    write_volume(tmp_path / "v.nii", slices[:1], positions(affine(), 1))
    image = nibabel.load(tmp_path / "v.nii")
    assert image.shape == (5, 6, 1)
    np.testing.assert_allclose(image.header.get_zooms(), (0.9, 1.1, 4.0), rtol=1e-6)


def test_a_tilted_gantry_shears_the_volume(tmp_path, slices):
    ras = affine()
    ras[1, 2] = 1.5  # each slice lies further to the front
    write_volume(tmp_path / "v.nii", slices, positions(ras, 4))
    image = nibabel.load(tmp_path / "v.nii")
    np.testing.assert_allclose(image.affine, ras, atol=1e-5)
    assert int(image.header["qform_code"]) == 0  # which cannot say it


def test_rounded_positions_are_an_even_stack():
    dice = np.random.default_rng(0)
    places = [
        replace(p, origin=tuple(np.array(p.origin) + dice.uniform(-0.004, 0.004, 3)))
        for p in positions(affine(20, zooms=(0.9, 0.9, 0.7)), 300)
    ]
    assert grid(places).places == tuple(range(300))


def test_a_note_and_the_notice_are_kept(tmp_path, slices):
    write_volume(tmp_path / "v.nii.gz", slices, positions(affine(), 4), note='{"a": 1}')
    header = nibabel.load(tmp_path / "v.nii.gz").header
    assert header.extensions[0].get_code() == 6
    assert '{"a": 1}' in str(header.extensions[0].get_content())
    assert b"synthetic, for research; not for diagnosis" in bytes(header["descrip"])
    before = (tmp_path / "v.nii.gz").read_bytes()
    write_volume(tmp_path / "v.nii.gz", slices, positions(affine(), 4), note='{"a": 1}')
    assert (tmp_path / "v.nii.gz").read_bytes() == before


def uneven() -> list[SlicePosition]:
    places = positions(affine(), 6)
    off = tuple(np.add(places[3].origin, (0, 0, 1.3)))
    return [*places[:3], replace(places[3], origin=off)]


EVEN = positions(affine(), 4)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (uneven(), r"its slices are 4 to 5\.3 mm apart and lie on no even stack"),
        ([*EVEN[:3], EVEN[2]], "two of its slices lie in one place"),
        ([EVEN[0]] * 4, "two of its slices lie in one place"),
        ([*EVEN[:3], replace(EVEN[3], row=(0.0, 0.0, 1.0))], "differ in orientation"),
        ([*EVEN[:3], replace(EVEN[3], spacing=(2.0, 2.0))], "differ in orientation or pixel"),
        ([*EVEN[:3], replace(EVEN[3], origin=(31.5, -20.25, 9e4))], "nearly all blank"),
        (EVEN[:3], r"expected slices \[N, H, W\] and N >= 1 positions, got \[4, 6, 5\] and 3"),
    ],
)
def test_slices_that_are_no_volume(tmp_path, slices, places, told):
    with pytest.raises(UsageError, match=rf"v\.nii: .*{told}"):
        write_volume(tmp_path / "v.nii", slices, places)
    assert not list(tmp_path.iterdir())


def test_a_name_that_says_nothing_of_nifti(tmp_path, slices):
    with pytest.raises(UsageError, match=r"v\.img: a NIfTI volume's name ends in \.nii"):
        write_volume(tmp_path / "v.img", slices, EVEN)
