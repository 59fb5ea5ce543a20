"""Label maps carried to slices: by folder and by pattern, tumour and normal by area."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from prepare_inputs import in_process, write_series

from fastmrigan.errors import InputRejected
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)


def volume(seed: int) -> np.ndarray:
    """float32 [32, 32, 5] with a bright centre."""
    rng = np.random.default_rng(seed)
    x = np.zeros((32, 32, 5), np.float32)
    x[6:26, 4:28] = 100 * rng.uniform(1, 2, (20, 24, 5))
    return x


def save(path: Path, x: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(x, affine), path)


def labels() -> np.ndarray:
    """uint8 [32, 32, 5]: 3 voxels of 4 mm² in slice 1, 6 in slice 2, a block in slice 3."""
    y = np.zeros((32, 32, 5), np.uint8)
    y[10:13, 12, 1] = 1
    y[10:16, 12, 2] = 2
    y[8:16, 10:20, 3] = 4
    return y


@pytest.mark.parametrize("wanted", ["{folder}/seg.nii.gz", "{folder}/s*.nii.gz", "FOLDER"])
def test_label_maps(tmp_path: Path, wanted: str) -> None:
    for name in ("p1", "p2"):
        save(tmp_path / "in" / name / "t1.nii.gz", volume(ord(name[1])))
        inside = wanted != "FOLDER"
        path = tmp_path / ("in" if inside else "maps") / name
        save(path / ("seg.nii.gz" if inside else "t1.nii"), labels())
    maps = str(tmp_path / "maps") if wanted == "FOLDER" else wanted
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=32, label_maps=maps))
    assert made.refused == []
    assert made.info.labels == {"normal": 6, "tumour": 4}  # 12 mm² is below 20
    dataset = PreparedDataset.open(tmp_path / "out")
    dataset.check_fingerprint()
    kept = dataset.label_maps("all")
    assert (kept.dtype, kept.shape) == (np.uint8, (10, 32, 32))
    # Rows run from the front to the back and columns from the patient's right to the left
    turned = labels()[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(kept[:5], turned)
    np.testing.assert_array_equal(dataset.label_maps("all", "tumour")[0], turned[2])


@pytest.mark.parametrize(("area", "tumours"), [(0.001, 3), (12.0, 3), (12.1, 2), (300, 1)])
def test_the_area_decides(tmp_path: Path, area: float, tumours: int) -> None:
    save(tmp_path / "in" / "a.nii.gz", volume(0))
    save(tmp_path / "in" / "a_seg.nii.gz", labels())
    options = PrepareOptions(size=48, label_maps="{folder}/{stem}_seg.nii.gz", tumour_area=area)
    made = prepare(tmp_path / "in", tmp_path / "out", options)
    assert made.info.labels == {"normal": 5 - tumours, "tumour": tumours}


def test_labels_follow_the_pixels(tmp_path: Path) -> None:
    """Padded and resampled with the image: the label stays on the bright block it was drawn on."""
    x, y = np.zeros((40, 24, 3), np.float32), np.zeros((40, 24, 3), np.uint8)
    x[4:36, 4:20], x[8:20, 6:12], y[8:20, 6:12] = 1.0, 5.0, 3
    stretched = np.diag([1.0, 2.0, 3.0, 1.0])
    save(tmp_path / "in" / "a.nii", x, stretched)
    save(tmp_path / "in" / "a_seg.nii", y, stretched)
    wanted = {"label_maps": "{folder}/{stem}_seg.nii", "isotropic": "finest"}
    prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=64, grading="minmax", **wanted))
    dataset = PreparedDataset.open(tmp_path / "out")
    assert dataset.records[0].source_size == (48, 40)
    bright = dataset.slices("all")[1] > 0.2
    drawn = dataset.label_maps("all")[1] == 3
    assert drawn.sum() > 200
    assert (bright & drawn).sum() / (bright | drawn).sum() > 0.85
    assert set(np.unique(dataset.label_maps("all"))) == {0, 3}


def test_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("good", "alone", "other", "float", "two"):
        save(root / f"{name}.nii", volume(1))
    save(root / "good_seg.nii", labels())
    save(root / "two_seg.nii", labels())
    save(root / "two_seg2.nii", labels())
    save(root / "other_seg.nii", labels()[:, :, :4])
    save(root / "float_seg.nii", labels() + np.float32(0.5))
    write_series(root / "dicom", 2)
    save(root / "dicom" / "IM001_seg.nii", labels())
    options = PrepareOptions(size=32, label_maps="{folder}/{stem}_seg*")
    made = prepare(root, tmp_path / "out", options)
    assert made.info.count == 5
    told = {each.name: each.reason for each in made.refused}
    assert told.pop("two.nii").startswith("has several label maps: two_seg2.nii, two_seg.nii")
    assert told.pop("alone.nii") == "has no label map in {folder}/{stem}_seg*"
    assert told.pop("other.nii").startswith("its label map other_seg.nii: a label map of 32x32x4")
    assert told.pop("float.nii").startswith("its label map float_seg.nii: holds 0.5; labels are")
    assert told.pop("dicom/IM001") == "label maps are laid on NIfTI volumes alone"
    assert told.pop("dicom/IM002") == "has no label map in {folder}/{stem}_seg*"
    assert told == {}


def test_without_any(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.nii", volume(0))
    with pytest.raises(InputRejected, match=r"a\.nii: has no label map in {folder}/seg"):
        prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(label_maps="{folder}/seg.nii"))


def test_real_label_maps(tmp_path: Path, real_data) -> None:
    """The manual labels of one case, on pixels of 1 mm²."""
    root = real_data("nifti")
    table = tmp_path / "pairs.csv"
    table.write_text("source,target\nbrats2012-hg0015/t1.nii.gz,brats2012-hg0015/t2.nii.gz\n")
    options = PrepareOptions(size=64, pairs=table, label_maps="{folder}/truth.nii.gz", min_brain=0)
    made = prepare(root, tmp_path / "out", options)
    truth = np.asarray(nibabel.load(root / "brats2012-hg0015" / "truth.nii.gz").dataobj)
    wanted = int(((truth > 0).sum(axis=(0, 1)) >= 20).sum())
    assert made.info.labels["tumour"] == wanted
    assert made.refused == []
