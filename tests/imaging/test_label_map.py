"""Label maps carried to slices: by place in the patient, not by order in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_volumes import CODES, oblique, turned

from fastmrigan.imaging.label_map import read_label_map
from fastmrigan.imaging.nifti import read_nifti
from fastmrigan.imaging.position import SlicePosition
from fastmrigan.imaging.readers import ReadImage

SHAPE = (18, 20, 17)  # [X, Y, Z]
AFFINE = oblique((1.0, 1.5, 2.25))
DICE = np.random.default_rng(0)
VOLUME = DICE.integers(0, 999, SHAPE, dtype=np.int16)
LABELS = DICE.integers(0, 5, SHAPE, dtype=np.uint8)
SHOWN = LABELS[::-1, ::-1].transpose(2, 1, 0)  # as displayed: [Z, Y, X]


@pytest.fixture
def volume(tmp_path: Path) -> ReadImage:
    nibabel.save(nibabel.Nifti1Image(VOLUME, AFFINE), tmp_path / "volume.nii")
    return read_nifti(tmp_path / "volume.nii")


def save(path: Path, data: np.ndarray = LABELS, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


@pytest.mark.parametrize("code", ["RAS", "LPS", "LAS", "SPL", "AIL"])
def test_labels_follow_the_volume_in_any_order(tmp_path, volume, code):
    nibabel.save(turned(nibabel.Nifti1Image(LABELS, AFFINE), code), tmp_path / "labels.nii.gz")
    laid = read_label_map(tmp_path / "labels.nii.gz", volume)
    assert laid.dtype == np.uint8
    np.testing.assert_array_equal(laid, SHOWN)


@pytest.mark.parametrize("code", CODES[::5])
def test_slices_of_any_plane_take_the_labels_where_they_lie(tmp_path, code):
    """Slices as a scanner sends them, e.g. sagittal: along the axes of a volume kept as `code`."""
    kept = turned(nibabel.Nifti1Image(LABELS, AFFINE), code)
    lps = np.diag([-1.0, -1, 1, 1]) @ kept.affine  # (i, j, k) to LPS
    mm = np.linalg.norm(lps[:3, :3], axis=0)
    row, column, _ = (lps[:3, :3] / mm).T
    like = ReadImage(
        np.zeros(kept.shape[::-1], np.float32),  # slices [k, j, i]
        "DICOM",
        positions=tuple(
            SlicePosition(
                tuple((lps @ (0, 0, k, 1))[:3]), tuple(row), tuple(column), (mm[1], mm[0])
            )
            for k in range(kept.shape[2])
        ),
    )
    laid = read_label_map(save(tmp_path / "labels.nii"), like)
    np.testing.assert_array_equal(laid, np.asanyarray(kept.dataobj).transpose(2, 1, 0))


def test_whole_numbers_of_any_type_and_scaling(tmp_path, volume):
    for data in (LABELS.astype(np.float32), LABELS.astype(np.int16)):
        laid = read_label_map(save(tmp_path / "labels.nii", data), volume)
        np.testing.assert_array_equal(laid, SHOWN)
    image = nibabel.Nifti1Image(LABELS * 7, AFFINE)
    image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / "scaled.nii")
    laid = read_label_map(tmp_path / "scaled.nii", volume)
    np.testing.assert_array_equal(laid, SHOWN * 14 + 1)


def test_an_affine_rounded_as_quaternions_still_fits(tmp_path, volume):
    rounded = AFFINE.copy()
    rounded[:3] += DICE.normal(0, 1e-4, (3, 4))
    laid = read_label_map(save(tmp_path / "labels.nii", affine=rounded), volume)
    np.testing.assert_array_equal(laid, SHOWN)


def moved(by: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += by
    return affine


@pytest.mark.parametrize(
    ("data", "affine", "reason"),
    [
        (LABELS[1:], AFFINE, "17x20x17 voxels, slices of 18x20x17; both must lie on one grid"),
        (LABELS, moved(0.4), r"on another grid: 0\.\d+ voxels beside the slices' own"),
        (LABELS, AFFINE @ np.diag([2, 2, 2, 1]), "on another grid"),
        (LABELS, AFFINE @ np.diag([1.02, 1, 1, 1]), "on another grid"),
        (LABELS.transpose(1, 0, 2), AFFINE, "on another grid: the slices reach beyond it"),
        (LABELS + np.float32(0.5), AFFINE, r"holds \d.5; labels are whole numbers from 0 to 255"),
        (LABELS.astype(np.int16) - 1, AFFINE, "holds -1; labels"),
        (LABELS.astype(np.int16) * 100, AFFINE, "holds [34]00; labels"),
        (np.where(LABELS == 1, np.nan, LABELS).astype(np.float32), AFFINE, "holds nan; labels"),
    ],
)
def test_refused(tmp_path, volume, data, affine, reason):
    path = save(tmp_path / "labels.nii", data, affine)
    with pytest.raises(ValueError, match=reason):
        read_label_map(path, volume)


def test_slices_without_a_place_and_files_that_are_absent(tmp_path, volume):
    with pytest.raises(ValueError, match="unknown position"):
        read_label_map(save(tmp_path / "labels.nii"), replace(volume, positions=None))
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        read_label_map(tmp_path / "absent.nii", volume)


@pytest.mark.parametrize(
    ("case", "labels", "values"),
    [("tcga-fg-6692", "seg", {0, 1, 2, 4}), ("brats2012-hg0015", "truth", {0, 1, 2})],
)
def test_real_tumours_lie_in_the_brain(real_data, case, labels, values):
    folder = real_data("nifti") / case
    brain = read_nifti(folder / "t1.nii.gz")
    laid = read_label_map(folder / f"{labels}.nii.gz", brain)
    stored = np.asanyarray(nibabel.load(folder / f"{labels}.nii.gz").dataobj)
    numbers, counts = np.unique(laid, return_counts=True)
    assert set(numbers.tolist()) == values
    np.testing.assert_array_equal(counts, np.unique(stored, return_counts=True)[1])
    assert (brain.slices[laid > 0] > 0).mean() > 0.99  # the skull is stripped: air is 0
