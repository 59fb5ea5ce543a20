"""NIfTI volumes made here: orientation, position, scaling and what must be refused."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_volumes import CODES, oblique, turned

from fastmrigan.imaging.label_map import to_lps
from fastmrigan.imaging.nifti import brain_shares, read_nifti
from fastmrigan.imaging.readers import ReadImage, read
from fastmrigan.imaging.walker import Refused

# RAS+: x to the patient's right, y to the front, z up. [X, Y, Z]
VOLUME = np.arange(18 * 20 * 17, dtype=np.int16).reshape(18, 20, 17)


def check_places(image: ReadImage, stored: nibabel.Nifti1Image, scale: float = 1.0) -> None:
    """Each pixel's position, looked up through nibabel's affine, leads to the voxel it shows."""
    assert image.positions is not None
    data, to_voxel = np.asanyarray(stored.dataobj), np.linalg.inv(stored.affine)
    count, height, width = image.slices.shape
    assert len(image.positions) == count
    for n in (0, 1, count - 1):
        for r, c in itertools.product((0, 7, height - 1), (0, 5, width - 1)):
            x, y, z, _ = to_lps(image.positions[n]) @ (c, r, 1)
            i, j, k, _ = to_voxel @ (-x / scale, -y / scale, z / scale, 1)
            np.testing.assert_allclose([i, j, k], np.rint([i, j, k]), atol=1e-4)
            assert image.slices[n, r, c] == data[round(i), round(j), round(k)]


@pytest.mark.parametrize("code", CODES)
def test_any_orientation_gives_the_same_axial_slices_at_the_same_place(
    tmp_path: Path, code: str
) -> None:
    ras = nibabel.Nifti1Image(VOLUME, oblique((1.0, 1.5, 2.25)))
    stored = turned(ras, code)
    assert nibabel.aff2axcodes(stored.affine) == tuple(code)
    nibabel.save(stored, tmp_path / "a.nii.gz")
    image = read(tmp_path / "a.nii.gz", "a.nii.gz")
    assert image.volume
    assert image.mode == "NIfTI int16"
    assert image.slices.shape == (17, 20, 18)
    # Row 0 is the front, column 0 the patient's right
    np.testing.assert_array_equal(image.slices, VOLUME[::-1, ::-1].transpose(2, 1, 0))
    check_places(image, stored)
    assert image.positions is not None
    heights = [position.along_normal for position in image.positions]
    np.testing.assert_allclose(np.diff(heights), 2.25)
    assert image.positions[0].plane == "axial"
    assert image.positions[0].spacing == pytest.approx((1.5, 1.0))
    assert image.tags["SpacingBetweenSlices"] == pytest.approx(2.25)


def test_a_position_worked_out_by_hand(tmp_path: Path) -> None:
    affine = np.diag([2.0, 3, 4, 1])
    affine[:3, 3] = (-10, -20, -30)
    nibabel.save(nibabel.Nifti1Image(VOLUME, affine), tmp_path / "a.nii")
    positions = read_nifti(tmp_path / "a.nii").positions
    assert positions is not None
    # The last voxel to the right and front is at RAS (24, 37): LPS (-24, -37)
    assert positions[0].origin == (-24, -37, -30)
    assert positions[2].origin == (-24, -37, -22)
    assert positions[0].row == (1, 0, 0)  # to the patient's left
    assert positions[0].column == (0, 1, 0)  # to the back
    assert positions[0].spacing == (3, 2)
    assert positions[0].thickness is None


@pytest.mark.parametrize(
    ("sform", "qform", "transform"), [(1, 1, "sform"), (0, 1, "qform"), (0, 0, "none")]
)
def test_the_transform_nibabel_takes(
    tmp_path: Path, sform: int, qform: int, transform: str
) -> None:
    stored = nibabel.Nifti1Image(VOLUME, oblique((1.0, 1.5, 2.25)))
    stored.set_sform(stored.affine, sform)
    stored.set_qform(oblique((1.0, 1.5, 2.25), 12), qform)
    nibabel.save(stored, tmp_path / "a.nii")
    image = read_nifti(tmp_path / "a.nii")
    assert image.tags["NIfTITransform"] == transform
    check_places(image, nibabel.load(tmp_path / "a.nii"))


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("meter", 1e3), ("micron", 1e-3)])
def test_units_of_length(tmp_path: Path, unit: str, scale: float) -> None:
    shrunk = np.diag([1 / scale, 1 / scale, 1 / scale, 1])
    stored = nibabel.Nifti1Image(VOLUME, shrunk @ oblique((1.0, 1.5, 2.25)))
    stored.header.set_xyzt_units(unit)
    nibabel.save(stored, tmp_path / "a.nii")
    check_places(read_nifti(tmp_path / "a.nii"), nibabel.load(tmp_path / "a.nii"), scale)


def test_slices_sheared_to_rhomboids_have_no_position(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.1
    nibabel.save(nibabel.Nifti1Image(VOLUME, affine), tmp_path / "a.nii")
    image = read_nifti(tmp_path / "a.nii")
    assert image.positions is None
    assert image.slices.shape == (17, 20, 18)


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("header", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_every_type_order_and_version(tmp_path: Path, kind: str, order: str, header: type) -> None:
    data = (VOLUME % 100).astype(order + kind)
    image = header(data, np.eye(4), dtype=data.dtype)
    image = header(data, np.eye(4), image.header.as_byteswapped(order))
    image.set_data_dtype(data.dtype)
    nibabel.save(image, tmp_path / "a.nii")
    got = read_nifti(tmp_path / "a.nii")
    assert got.mode == f"NIfTI {data.dtype.name}"
    np.testing.assert_array_equal(got.slices, data[::-1, ::-1].transpose(2, 1, 0))


@pytest.mark.parametrize(("slope", "inter"), [(0.25, -7.0), (0.0, 3.0), (np.nan, 3.0), (-2.0, 0.0)])
def test_slope_and_intercept_are_nibabels(tmp_path: Path, slope: float, inter: float) -> None:
    image = nibabel.Nifti1Image(VOLUME, np.eye(4))
    nibabel.save(image, tmp_path / "a.nii")
    patch(tmp_path / "a.nii", 112, np.array([slope, inter], "<f4"))
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    got = read_nifti(tmp_path / "a.nii").slices
    np.testing.assert_allclose(got, expected[::-1, ::-1].transpose(2, 1, 0), rtol=1e-7)


def test_one_volume_of_four_dimensions_and_any_name(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(VOLUME[..., None], np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "0042").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    (tmp_path / "packed.nii").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    whole = read(tmp_path / "a.nii.gz", "a.nii.gz").slices
    assert whole.shape == (17, 20, 18)
    np.testing.assert_array_equal(read(tmp_path / "0042", "0042").slices, whole)
    np.testing.assert_array_equal(read(tmp_path / "packed.nii", "packed.nii").slices, whole)


def test_what_nibabel_mends_is_not_told(tmp_path: Path, capfd) -> None:
    nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "a.nii")
    patch(tmp_path / "a.nii", 76, np.array([0, -1], "<f4"))  # qfac and the first pixdim
    assert read_nifti(tmp_path / "a.nii").slices.shape == (17, 20, 18)
    assert capfd.readouterr() == ("", "")


def patch(path: Path, at: int, value: np.ndarray | bytes) -> None:
    content = bytearray(path.read_bytes())
    value = bytes(value)
    content[at : at + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.stack([VOLUME] * 2, axis=-1), r"shape \(18, 20, 17, 2\), which is 2 volumes; one is"),
        (VOLUME[..., 0], r"a NIfTI file of shape \(18, 20\); 3-D"),
        (np.where(VOLUME == 7, np.nan, VOLUME).astype(np.float32), "holds NaN or infinite"),
        (np.where(VOLUME == 7, np.inf, VOLUME).astype(np.float32), "holds NaN or infinite"),
        (np.where(VOLUME == 7, 1e300, VOLUME), "holds NaN or infinite"),
        (np.zeros_like(VOLUME), "constant: every pixel is 0"),
        (VOLUME[:9], "9x20 pixels; at least 16x16"),
        (VOLUME.astype(np.complex64), "a NIfTI file of type complex64"),
        (np.zeros((18, 20, 17), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "a NIfTI file of type"),
    ],
)
def test_refused(tmp_path: Path, data: np.ndarray, reason: str) -> None:
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(Refused, match=f"^a.nii: .*{reason}"):
        read(tmp_path / "a.nii", "a.nii")


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (40, np.array([9], "<i2"), "claims 2304 axes; 1 to 7 are possible"),
        (40, np.array([0], "<i2"), "claims 0 axes"),
        (42, np.array([30000] * 3, "<i2"), r"claims \(30000, 30000, 30000\) voxels; at most"),
        (42, np.array([-5], "<i2"), "every axis has at least one voxel"),
        (42, np.array([-1, 1, 1], "<i2"), "a broken NIfTI file .*glmin"),
        (42, np.array([200] * 3, "<i2"), "truncated: claims 16,000,352 bytes, which a file of"),
        (70, np.array([999], "<i2"), "a NIfTI file of datatype 999, which no standard knows"),
        (70, np.array([0], "<i2"), "a NIfTI file of type"),
        (108, np.array([0], "<f4"), "claims that its voxels begin at byte 0; 352 to"),
        (108, np.array([-1], "<f4"), "claims that its voxels begin at byte -1"),
        (108, np.array([352.5], "<f4"), "begin at byte 352.5"),
        (108, np.array([np.nan], "<f4"), "begin at byte nan"),
        (108, np.array([1e30], "<f4"), r"begin at byte 1e\+30"),
        (108, np.array([500], "<f4"), "truncated: claims 12,740 bytes"),
        (116, np.array([np.inf], "<f4"), "a broken NIfTI file .*invalid intercept"),
        (280, np.zeros(12, "<f4"), "its sform makes voxels of 0 x 0 x 0 mm, which nobody scans"),
        (280, np.array([np.nan], "<f4"), "its sform makes voxels of nan x 1 x 1 mm"),
        (280, np.array([1e30], "<f4"), r"its sform makes voxels of 1e\+30 x 1 x 1 mm"),
        (280, np.array([1, 1, 0, 0, 1, 1, 0, 0], "<f4"), "its sform makes a volume that is flat"),
        (292, np.array([np.inf], "<f4"), "its sform makes a volume that is far outside any"),
        (292, np.array([np.nan], "<f4"), "its sform makes a volume that is far outside any"),
        (344, b"ni1\0", "voxels lie in another file; join them"),
        (344, b"nope", "not a NIfTI file"),
    ],
)
def test_headers_that_contradict_themselves(
    tmp_path: Path, at: int, value: np.ndarray | bytes, reason: str
) -> None:
    nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "a.nii")
    patch(tmp_path / "a.nii", at, value)
    with pytest.raises(Refused, match=f"^a.nii: .*{reason}"):
        read(tmp_path / "a.nii", "a.nii")


@pytest.mark.parametrize(("kept", "reason"), [(0, "an empty file"), (200, ""), (347, "")])
def test_cut_off_in_the_header(tmp_path: Path, kept: int, reason: str) -> None:
    nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "a.nii")
    os.truncate(tmp_path / "a.nii", kept)
    with pytest.raises(Refused, match=f"^a.nii: {reason or 'not a NIfTI file'}"):
        read(tmp_path / "a.nii", "a.nii")


def test_damaged_and_truncated_gzip_files(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 9999, (40, 40, 40), dtype=np.int16)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), tmp_path / "a.nii.gz")
    whole = (tmp_path / "a.nii.gz").read_bytes()
    for content, reason in [
        (whole[:-2000], "a truncated gzip file"),
        (whole[:-8] + bytes(8), r"a damaged gzip file \(CRC check failed"),
        (whole[:2000] + bytes(200) + whole[2200:], "a damaged gzip file"),
        (whole[:10] + b"\xff" * 50, "a damaged gzip file"),
    ]:
        (tmp_path / "a.nii.gz").write_bytes(content)
        with pytest.raises(Refused, match=f"^a.nii.gz: {reason}"):
            read(tmp_path / "a.nii.gz", "a.nii.gz")


def gzipped_claim(
    path: Path, shape: tuple[int, int, int], kind: str, mebibytes: int, data: bytes = b""
) -> None:
    """A gzip file of a header that claims `shape`, of `data`, and of mebibytes of zeros."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(kind)
    header["magic"], header["vox_offset"] = b"n+1", 352
    zeros = gzip.compress(bytes(1 << 20), 9)  # members follow one another in one file
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + data) + zeros * mebibytes)


@pytest.mark.parametrize(
    ("shape", "kind", "mebibytes", "reason"),
    [
        ((512, 512, 512), "float32", 512, r"a decompression bomb \(5.* bytes claim to be 536,871"),
        ((512, 512, 512), "float32", 2, "truncated: claims 536,871,264 bytes, which a gzip file"),
        ((256, 256, 161), "int16", 20, "truncated: claims 21,102,592 bytes of voxels and holds 20"),
    ],
)
def test_gzip_bombs_and_lies(
    tmp_path: Path, shape: tuple[int, int, int], kind: str, mebibytes: int, reason: str
) -> None:
    gzipped_claim(tmp_path / "a.nii.gz", shape, kind, mebibytes)
    tracemalloc.start()
    with pytest.raises(Refused, match=f"^a.nii.gz: {reason}"):
        read(tmp_path / "a.nii.gz", "a.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize(("mebibytes", "reason"), [(0, None), (4096, "inflates to far more than")])
def test_no_more_is_inflated_than_the_header_claims(
    tmp_path: Path, mebibytes: int, reason: str | None
) -> None:
    path = tmp_path / "a.nii.gz"
    gzipped_claim(path, (18, 20, 17), "int16", mebibytes, VOLUME.tobytes("F") + bytes(999))
    tracemalloc.start()
    if reason is None:
        got = read(path, path.name).slices
        assert sorted(got.ravel().tolist()) == sorted(VOLUME.ravel().tolist())
    else:
        with pytest.raises(Refused, match=f"{reason} the 12,592 bytes it claims"):
            read(path, path.name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20  # of the 4 GiB that the file would inflate to


def test_brain_shares_are_of_one_threshold_for_the_volume() -> None:
    slices = np.random.default_rng(0).normal(10, 2, (3, 40, 40)).astype(np.float32)
    slices[1, 10:30, 10:30] += 200  # a quarter
    slices[2, 10:14, 10:14] += 200  # one per cent
    np.testing.assert_allclose(brain_shares(slices), [0, 0.25, 0.01], atol=1e-6)


def test_real_volumes_as_nibabel_reads_them(real_data) -> None:
    root = real_data("nifti")
    with (root / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        image = read(root / row["file"], row["file"])
        stored = nibabel.load(root / row["file"])
        canonical = nibabel.as_closest_canonical(stored)
        expected = canonical.get_fdata(dtype=np.float32)[::-1, ::-1].transpose(2, 1, 0)
        np.testing.assert_allclose(image.slices, expected, rtol=1e-6)
        assert image.mode == f"NIfTI {row['dtype']}"
        # From the positions back to the affine of the closest RAS+ volume
        assert image.positions is not None
        columns, rows_down = to_lps(image.positions[0])[:, 0], to_lps(image.positions[0])[:, 1]
        first, second = (np.array(p.origin) for p in image.positions[:2])
        lps = np.eye(4)
        lps[:3, 0], lps[:3, 1], lps[:3, 2] = -columns[:3], -rows_down[:3], second - first
        _, height, width = image.slices.shape
        lps[:3, 3] = first + (width - 1) * columns[:3] + (height - 1) * rows_down[:3]
        np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ lps, canonical.affine, atol=1e-6)
