"""Real DICOM of many makers: every file does what its manifest says. Skips where absent."""

from __future__ import annotations

import csv
import gzip
import hashlib
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut

from fastmrigan.imaging.dicom import open_bounded, preview, read_dicom, read_header
from fastmrigan.imaging.dicom.frames import stored_frames

TWINS = {
    "syntax/MR4": ["MR4_J2KR", "MR4_JLSL", "MR4_JPLL", "MR4_RLE"],
    "syntax/CT2": ["CT2_J2KR", "CT2_RLE"],
    "enhanced/emri": ["emri_small", "emri_small_RLE", "emri_small_jpeg_2k_lossless"],
    "small/MR": ["MR_small", "MR_small_RLE", "MR_small_implicit", "MR_small_bigendian"],
}


def stored(path: Path) -> np.ndarray:
    """The stored pixels as the manifest has hashed them: [N, H, W] without a first 1."""
    frames = np.stack(list(stored_frames(open_bounded(path))))
    return frames[0] if len(frames) == 1 else frames


def sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def test_every_file_behaves_as_its_manifest_expects(tmp_path: Path, real_data) -> None:
    root = real_data("dicom")
    with (root / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    seen = set()
    for row in rows:
        path = root / row["file"]
        if path.suffix == ".gz":  # archives open it; here it is unpacked by hand
            target = tmp_path / path.stem
            target.write_bytes(gzip.decompress(path.read_bytes()))
            path = target
        expect = row["expect"]
        seen.add(expect)
        if expect in ("ok", "ok-inverted", "ok-or-error"):
            pixels = stored(path)
            assert sha256(pixels) == row["pixel_sha256"], row["file"]
            image = read_dicom(path)
            header = read_header(path)
            assert image.slices.shape == (
                header.frames,
                int(row["rows"]),
                int(row["cols"]),
            ), row["file"]
            assert header.syntax == row["transfer_syntax"]
            assert header.modality == row["modality"]
            assert image.positions == header.positions
            assert image.tags == header.tags
            assert header.burned_in in ("no", "yes", "unknown")
            assert preview(path).shape == image.slices.shape
        elif expect == "reject-or-convert":
            with pytest.raises(ValueError, match=r"^colour DICOM \(RGB\)"):
                read_dicom(path)
            assert read_dicom(path, convert_rgb=True).slices.shape == (1, 77, 52)
        else:
            assert expect in ("error", "error-or-forced")
            with pytest.raises(ValueError, match=r"^[^\n]+$"):
                read_dicom(path)
        if expect == "ok-inverted":
            assert np.corrcoef(pixels.ravel(), image.slices.ravel())[0, 1] < -0.99
    assert seen == {
        "ok", "ok-inverted", "ok-or-error", "reject-or-convert", "error", "error-or-forced"
    }  # fmt: skip


@pytest.mark.parametrize("group", TWINS)
def test_lossless_twins_are_equal(real_data, group: str) -> None:
    folder = real_data("dicom") / group.split("/")[0]
    first, *others = [read_dicom(folder / f"{name}.dcm") for name in TWINS[group]]
    for other in others:
        np.testing.assert_array_equal(other.slices, first.slices)
        assert other.positions == first.positions


def test_slope_and_intercept_of_real_ct(real_data) -> None:
    path = real_data("dicom/syntax/693_J2KR.dcm")
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    padding = dataset.get("PixelPaddingValue")
    image = read_dicom(path).slices[0]
    real = dataset.pixel_array != padding if padding is not None else np.ones(image.shape, bool)
    np.testing.assert_array_equal(image[real], expected[real].astype(np.float32))
    assert np.all(image[~real] == image[real].min())


def test_enhanced_frames_of_real_scanners(tmp_path: Path, real_data) -> None:
    header = read_header(real_data("dicom/enhanced/xa10_6_1.dcm"))
    assert header.frames == 6
    assert header.positions is not None
    assert len({position.origin for position in header.positions}) == 6
    assert header.tags["MagneticFieldStrength"] == pytest.approx(3, abs=0.2)
    philips = tmp_path / "philips.dcm"
    packed = real_data("dicom/enhanced/philips_mprage_zeros.dcm.gz").read_bytes()
    philips.write_bytes(gzip.decompress(packed))
    header = read_header(philips)
    assert header.frames == 176
    assert header.positions is not None
    steps = np.diff([position.along_normal for position in header.positions])
    assert np.allclose(np.abs(steps), np.abs(steps[0]), atol=1e-3)
    image = read_dicom(philips)
    assert image.volume
    assert not image.slices.any()


def test_pydicoms_own_files_are_read_as_pydicom_reads_them() -> None:
    """Against pydicom's arrays, where no decoder of another library is involved."""
    compared, reasons = 0, []
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm")):
        try:
            image = read_dicom(path)
        except ValueError as error:
            reasons.append(str(error))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            pixels = dataset.pixel_array
        if "PixelPaddingValue" in dataset or dataset.PhotometricInterpretation != "MONOCHROME2":
            continue
        expected = np.asarray(apply_modality_lut(pixels, dataset), np.float32)
        if "PerFrameFunctionalGroupsSequence" in dataset:
            continue
        np.testing.assert_array_equal(image.slices.squeeze(), expected, err_msg=path.name)
        compared += 1
    assert compared >= 12
    assert not any("\n" in reason for reason in reasons)
