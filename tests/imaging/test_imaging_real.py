"""The whole room on real slices, series and volumes; skips where they are absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.grading import Grading, grade, ungrade
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.quantise import to_float, to_uint16
from fastmrigan.imaging.readers import read


def linked(source: Path, target: Path, step: int) -> Path:
    target.mkdir(parents=True)
    for path in sorted(source.iterdir())[::step]:
        (target / path.name).symlink_to(path)
    return target


def test_yesno_of_every_size_and_mode(tmp_path: Path, real_data) -> None:
    source = real_data("yesno-253/yes")
    made = prepare(source, tmp_path / "out", PrepareOptions(size=64, label="tumour"))
    assert made.refused == []
    dataset = PreparedDataset.open(tmp_path / "out")
    modes = {record.mode for record in dataset.records}
    assert {"JPEG L", "JPEG RGB"} <= modes
    slices = dataset.slices("all")
    assert np.all(slices.min(axis=(1, 2)) < -0.8)
    assert np.all(slices.max(axis=(1, 2)) > 0.5)
    exact = [r.exact_group for r in dataset.records]
    assert len(set(exact) - {None}) > 3
    for number in set(exact) - {None}:
        assert len({r.split for r in dataset.records if r.exact_group == number}) == 1


def test_t2_tumour(tmp_path: Path, real_data) -> None:
    source = linked(real_data("t2-tumour-nontumour/tumour"), tmp_path / "in" / "tumour", 12)
    made = prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(contrast="t2"))
    assert made.info.labels == {"tumour": len(list(source.iterdir()))}
    slices = PreparedDataset.open(tmp_path / "out").slices("all")
    assert np.median(slices) < -0.5  # most of a T2 frame is air and dark tissue
    assert 0.0005 < (slices > 0.9).mean() < 0.1


def test_registered_ct_and_mr_by_case(tmp_path: Path, real_data) -> None:
    root = real_data("ctmri-paired-aanlib")
    options = PrepareOptions(pairs=root / "MRI", contrast="ct", group_pattern=r"^(\d+)\d{3}\.")
    made = prepare(root / "CT", tmp_path / "out", options)
    dataset = PreparedDataset.open(tmp_path / "out")
    assert made.refused == []
    assert len({record.group for record in dataset.records}) == 8
    assert dataset.info.split.by == "patient"
    assert dataset.targets("test").shape == dataset.slices("test").shape


def test_grading_of_real_dicom_is_undone(real_data) -> None:
    plain = read(real_data("dicom/small/MR_small.dcm"), "a").slices
    grading = Grading("minmax", float(plain.min()), float(plain.max()))
    back = ungrade(to_float(to_uint16(grade(plain, grading))), grading)
    assert np.abs(back - plain).max() < 1


def test_registered_volumes(tmp_path: Path, real_data) -> None:
    root = real_data("nifti")
    for side in ("t1", "t2"):
        (tmp_path / side).mkdir()
        for case in ("tcga-fg-6692", "brats2012-hg0015"):
            (tmp_path / side / f"{case}.nii.gz").symlink_to(root / case / f"{side}.nii.gz")
    options = PrepareOptions(pairs=tmp_path / "t2", contrast="t1", target_contrast="t2")
    made = prepare(tmp_path / "t1", tmp_path / "out", options)
    assert made.refused == []
    assert made.info.split.by == "patient"
    assert 240 < made.info.count < 280  # 261 have more than 5 % brain by its manual masks
    assert made.empty > 50
    dataset = PreparedDataset.open(tmp_path / "out")
    assert set(dataset.info.split.counts) == {"train", "test"}
    both = dataset.slices("all") > -0.9, dataset.targets("all") > -0.9
    overlap = (both[0] & both[1]).sum() / (both[0] | both[1]).sum()
    assert overlap > 0.85  # registered
