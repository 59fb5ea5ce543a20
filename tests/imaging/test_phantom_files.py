"""The phantom on disk: layout, round trips through Pillow, nibabel and pydicom, errors."""

import csv
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from fastmrigan.errors import UsageError
from fastmrigan.imaging.phantom import PhantomSettings, phantom_slices
from fastmrigan.imaging.phantom.writer import write_phantom

SETTINGS = PhantomSettings(40, ("t2", "flair", "ct"), tumour=0.5, seed=3)
COUNT = 6


def batch():
    return phantom_slices(COUNT, 40, SETTINGS.contrasts, 0.5, 3)


def stems():
    slices = batch()
    return [
        f"{label}/head{head:04d}_slice{number:02d}"
        for label, head, number in zip(slices.label, slices.head, slices.slice, strict=True)
    ]


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_png_round_trip_and_layout(tmp_path):
    files = write_phantom(tmp_path / "p", COUNT, SETTINGS)
    slices = batch()
    assert files == COUNT * 5
    assert len(list((tmp_path / "p").rglob("*.png"))) == files
    for n, stem in enumerate(stems()):
        for contrast in SETTINGS.contrasts:
            with Image.open(tmp_path / "p" / contrast / f"{stem}.png") as image:
                assert image.mode == "I;16"
                pixels = np.array(image).astype(np.float64)
            if contrast == "ct":
                read, tolerance = pixels - 1024, 0.5
            else:
                read, tolerance = pixels / 65535, 0.5 / 65535
            np.testing.assert_allclose(read, slices.signals[contrast][n], atol=tolerance * 1.01)
        tissue = np.array(Image.open(tmp_path / "p" / "tissue" / f"{stem}.png"))
        np.testing.assert_array_equal(tissue, slices.tissue[n])
        mask = np.array(Image.open(tmp_path / "p" / "tumour_mask" / f"{stem}.png"))
        np.testing.assert_array_equal(mask, slices.tumour_mask[n] * 255)


def test_manifest_lists_every_slice(tmp_path):
    write_phantom(tmp_path, COUNT, SETTINGS)
    with (tmp_path / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    slices = batch()
    assert [f"{row['label']}/{row['stem']}" for row in rows] == stems()
    for n, row in enumerate(rows):
        area = slices.tumour_mask[n].sum() * (224 / 40) ** 2
        assert float(row["tumour_area_mm2"]) == pytest.approx(area, abs=0.06)
        assert float(row["pixel_mm"]) == pytest.approx(5.6)
        assert row["seed"] == "3"


def test_nifti_round_trip(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    write_phantom(tmp_path, COUNT, SETTINGS, file_format="nifti")
    slices = batch()
    for n, stem in enumerate(stems()):
        image = nibabel.load(tmp_path / "t2" / f"{stem}.nii.gz")
        assert image.shape == (40, 40, 1)
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.header.get_zooms() == pytest.approx((5.6, 5.6, 5.0))
        middle = image.affine @ [19.5, 19.5, 0, 1]
        np.testing.assert_allclose(middle[:3], [0, 0, slices.level_mm[n]], atol=1e-4)
        data = np.asarray(image.dataobj)
        np.testing.assert_array_equal(data[:, :, 0].T, slices.signals["t2"][n])
        ct = np.asarray(nibabel.load(tmp_path / "ct" / f"{stem}.nii.gz").dataobj)
        assert ct.dtype == np.int16
        np.testing.assert_allclose(ct[:, :, 0].T, slices.signals["ct"][n], atol=0.51)
        tissue = np.asarray(nibabel.load(tmp_path / "tissue" / f"{stem}.nii.gz").dataobj)
        np.testing.assert_array_equal(tissue[:, :, 0].T, slices.tissue[n])


def test_dicom_round_trip(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    write_phantom(tmp_path, COUNT, SETTINGS, file_format="dicom")
    slices = batch()
    instances, frames = set(), {}
    for n, stem in enumerate(stems()):
        for contrast in SETTINGS.contrasts:
            data = pydicom.dcmread(tmp_path / contrast / f"{stem}.dcm")
            pixels = data.pixel_array.astype(np.float64)
            if contrast == "ct":
                assert data.SOPClassUID == pydicom.uid.CTImageStorage
                read = pixels * data.RescaleSlope + data.RescaleIntercept
                np.testing.assert_allclose(read, slices.signals["ct"][n], atol=0.51)
            else:
                assert data.SOPClassUID == pydicom.uid.MRImageStorage
                assert list(data.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
                np.testing.assert_allclose(
                    pixels / 65535, slices.signals[contrast][n], atol=0.51 / 65535
                )
            assert ("InversionTime" in data) == (contrast == "flair")
            assert data.SyntheticData == "YES"
            assert data.PatientName == f"PHANTOM^HEAD{slices.head[n]:04d}"
            assert list(data.PixelSpacing) == [5.6, 5.6]
            assert data.SOPInstanceUID.startswith("2.25.")
            assert data.SOPInstanceUID.is_valid
            instances.add(data.SOPInstanceUID)
            frames.setdefault(int(slices.head[n]), set()).add(data.FrameOfReferenceUID)
    assert len(instances) == COUNT * 3
    assert all(len(uids) == 1 for uids in frames.values())


@pytest.mark.parametrize("file_format", ["png", "nifti", "dicom"])
def test_the_same_settings_write_the_same_bytes_again(tmp_path, file_format):
    if file_format != "png":
        pytest.importorskip("nibabel" if file_format == "nifti" else "pydicom")
    settings = PhantomSettings(32, ("t2", "ct"), seed=1)
    write_phantom(tmp_path / "a", 3, settings, file_format=file_format)
    write_phantom(tmp_path / "b", 3, settings, file_format=file_format)
    once = digests(tmp_path / "a")
    assert once == digests(tmp_path / "b")
    (tmp_path / "a" / "manifest.csv").unlink()  # as an interrupted run leaves it
    next((tmp_path / "a" / "t2").rglob("head*")).unlink()
    write_phantom(tmp_path / "a", 3, settings, file_format=file_format)
    assert digests(tmp_path / "a") == once


def test_a_folder_of_other_settings_is_refused_and_left_alone(tmp_path):
    settings = PhantomSettings(32)
    write_phantom(tmp_path / "p", 2, settings)
    before = digests(tmp_path / "p")
    for other in (PhantomSettings(32, seed=1), PhantomSettings(33)):
        with pytest.raises(UsageError, match=r"p: not empty, and not made with these settings"):
            write_phantom(tmp_path / "p", 2, other)
    with pytest.raises(UsageError, match="not empty, and not made with these settings"):
        write_phantom(tmp_path / "p", 3, settings)
    assert digests(tmp_path / "p") == before

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="notes: not empty"):
        write_phantom(tmp_path / "notes", 2, settings)


def test_an_unusable_output_is_named(tmp_path):
    settings = PhantomSettings(32)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: is a file; --out must name a folder"):
        write_phantom(tmp_path / "file", 1, settings)
    with pytest.raises(UsageError, match=r"below: cannot be written \(Not a directory\)"):
        write_phantom(tmp_path / "file" / "below", 1, settings)
    with pytest.raises(UsageError, match="unknown format 'gif', expected one of png, nifti, dicom"):
        write_phantom(tmp_path / "gif", 1, settings, file_format="gif")
    with pytest.raises(UsageError, match="count is 0"):
        write_phantom(tmp_path / "none", 0, settings)
    assert not (tmp_path / "none").exists()


def test_command_line(tmp_path, capsys):
    from fastmrigan.cli.phantom import phantom

    phantom(count=2, out=tmp_path / "p", size=32, contrast="t1, t2")
    said = capsys.readouterr().out
    assert "2 slices of 32x32 in t1, t2" in said
    assert "(8 files)" in said
    with Image.open(io.BytesIO(next((tmp_path / "p" / "t1").rglob("*.png")).read_bytes())) as image:
        assert image.size == (32, 32)
    with pytest.raises(UsageError, match="unknown contrast 't9'"):
        phantom(count=2, out=tmp_path / "q", contrast="t9")
