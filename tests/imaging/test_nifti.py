"""NIfTI volumes made here: orientation, scaling and what must be refused."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from fastmrigan.imaging.nifti import brain_shares
from fastmrigan.imaging.readers import read
from fastmrigan.imaging.walker import Refused

# RAS+: x to the patient's right, y to the front, z up. [X, Y, Z]
VOLUME = np.arange(18 * 20 * 5, dtype=np.int16).reshape(18, 20, 5)


@pytest.mark.parametrize("code", ["RAS", "LPS", "LAS", "SPL", "AIL"])
def test_any_orientation_gives_the_same_axial_slices(tmp_path: Path, code: str) -> None:
    ras = nibabel.Nifti1Image(VOLUME, np.diag([1.0, 1, 2, 1]))
    wanted = nibabel.orientations.axcodes2ornt(code)
    turned = ras.as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), wanted)
    )
    nibabel.save(turned, tmp_path / "a.nii.gz")
    image = read(tmp_path / "a.nii.gz", "a.nii.gz")
    assert image.volume
    assert image.mode == "NIfTI int16"
    assert image.slices.shape == (5, 20, 18)
    # Row 0 is the front, column 0 the patient's right
    assert image.slices[3, 0, 0] == VOLUME[-1, -1, 3]
    assert image.slices[3, -1, 2] == VOLUME[-3, 0, 3]


def test_slope_and_intercept(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOLUME * 0.25 - 7, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    got = read(tmp_path / "a.nii", "a.nii").slices
    expected = (VOLUME * 0.25 - 7)[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_allclose(got, expected, atol=0.02)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.stack([VOLUME] * 2, axis=-1), r"a NIfTI file of shape \(18, 20, 5, 2\)"),
        (VOLUME[..., 0], r"a NIfTI file of shape \(18, 20\)"),
        (np.where(VOLUME == 7, np.nan, VOLUME).astype(np.float32), "holds NaN or infinite"),
        (np.zeros_like(VOLUME), "constant: every pixel is 0"),
        (VOLUME[:9], "9x20 pixels; at least 16x16"),
        (VOLUME.astype(np.complex64), "a NIfTI file of type complex64"),
    ],
)
def test_refused(tmp_path: Path, data: np.ndarray, reason: str) -> None:
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(Refused, match=f"^a.nii: .*{reason}"):
        read(tmp_path / "a.nii", "a.nii")


def test_truncated_and_claimed_sizes(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "a.nii")
    whole = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(whole[:-100])
    with pytest.raises(Refused, match="a broken NIfTI file"):
        read(tmp_path / "a.nii", "a.nii")
    claims = whole[:42] + np.array([30000] * 3, "<i2").tobytes() + whole[48:]
    (tmp_path / "a.nii").write_bytes(claims)
    with pytest.raises(Refused, match=r"claims \(30000, 30000, 30000\) voxels"):
        read(tmp_path / "a.nii", "a.nii")


def test_brain_shares_are_of_one_threshold_for_the_volume() -> None:
    slices = np.random.default_rng(0).normal(10, 2, (3, 40, 40)).astype(np.float32)
    slices[1, 10:30, 10:30] += 200  # a quarter
    slices[2, 10:14, 10:14] += 200  # one per cent
    np.testing.assert_allclose(brain_shares(slices), [0, 0.25, 0.01], atol=1e-6)
