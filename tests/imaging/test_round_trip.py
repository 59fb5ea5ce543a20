"""Real series and volumes in, through a model that changes nothing, and out again.

What went in and what came out are read by pydicom, nibabel and dcm2niix, not by our own readers.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tiny_model as tiny
from onnx import ModelProto, TensorProto, helper

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.translation import translate
from fastmrigan.runtime import load

MM = 1e-6  # how far positions, spacings and affines may be off
LEVEL = 1.0  # grey levels of the source

SERIES = {"brainix_flair": (288, 288), "hanke_t1w": (384, 274)}  # rows, columns
SLOW = pytest.mark.slow
VOLUMES = {  # and the side of the square that loses nothing
    "tcga-fg-6692/t1": 240,
    "tcga-fg-6692/t2": 240,
    "brats2012-hg0015/t1": 216,
    "brats2012-hg0015/t2": 216,
    "spm-avg152/avg152T1": 109,
    "spm-avg152/avg152T2": 109,
}


def identity(size: int) -> ModelProto:
    shape = ["batch", 1, size, size]
    source, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("source", "slice")
    )
    node = helper.make_node("Identity", ["source"], ["slice"])
    graph = helper.make_graph([node], "identity", [source], [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def round_trip(tmp_path: Path, write_model) -> Callable[..., Path]:
    """round_trip(source, size, format) prepares, translates and returns the folder of the output.

    Graded from lowest to highest value, so that nothing is clipped; no slice is left out but those
    without a bright pixel.
    """

    def run(source: Path, size: int, format: str) -> Path:
        options = PrepareOptions(
            size=size,
            grading="minmax",
            min_brain=0,
            test_fraction=0,
            allow_burned_in="unknown",
            workers=1,
        )
        prepare(source, tmp_path / "set", options)
        document = tiny.metadata(task="translate", latent_size=None, slice_size=[size, size])
        model = write_model(document, identity(size), "identity.onnx")
        generator = load(model, precision="fp32", batch=4)
        out = tmp_path / format
        translate(generator, PreparedDataset.open(tmp_path / "set"), Output(out, format))
        return out

    return run


def emitted(folder: Path) -> Iterator[pydicom.Dataset]:
    """Every DICOM file of a job, in files or in tar shards."""
    for path in sorted(folder.rglob("*.dcm")):
        yield pydicom.dcmread(path)
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if member.name.endswith(".dcm") and file is not None:
                    yield pydicom.dcmread(io.BytesIO(file.read()))


def stored_levels(values: np.ndarray, source: pydicom.Dataset) -> np.ndarray:
    """Values back to the grey levels of the file they came from (PS3.3 C.11.1.1.2).

    Of Philips scanners, values are the precise ones, displayed / (slope * scale slope):
    Chenevert et al. 2014, PMC3998685.
    """
    slope = float(source.get("RescaleSlope", 1))
    intercept = float(source.get("RescaleIntercept", 0))
    if source.Manufacturer.startswith("Philips") and (0x2005, 0x100E) in source:
        values = values * slope * float(source[0x2005, 0x100E].value)
    return (values - intercept) / slope


def levels_unit(source: pydicom.Dataset) -> float:
    """How much one grey level is, in the unit of values."""
    zero, one = stored_levels(np.array([0.0, 1.0]), source)
    return float(1 / (one - zero))


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("format", ["dicom-files", pytest.param("dicom", marks=SLOW)])
def test_a_dicom_series_keeps_its_geometry_and_its_grey_levels(
    real_data, round_trip, name: str, format: str
) -> None:
    folder = real_data(f"dicom/series/{name}")
    made = list(emitted(round_trip(folder, max(SERIES[name]), format)))
    sources = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    assert len(made) == len(sources)
    assert len({dataset.SOPInstanceUID for dataset in made}) == len(made)
    assert {(d.SeriesInstanceUID, d.FrameOfReferenceUID) for d in made} == {
        (made[0].SeriesInstanceUID, made[0].FrameOfReferenceUID)
    }
    numbers = sorted(made, key=lambda dataset: int(dataset.InstanceNumber))
    row, column = np.reshape([float(x) for x in made[0].ImageOrientationPatient], (2, 3))
    along = [np.cross(row, column) @ np.array(d.ImagePositionPatient, float) for d in numbers]
    assert (np.diff(along) > 0).all()
    for source in sources:
        origin = np.array(source.ImagePositionPatient, float)
        distances = [np.linalg.norm(np.array(d.ImagePositionPatient, float) - origin) for d in made]
        twin = made[int(np.argmin(distances))]
        assert min(distances) < MM
        assert (twin.Rows, twin.Columns) == (source.Rows, source.Columns) == SERIES[name]
        for keyword in ("ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            got, expected = (np.array(d[keyword].value, float) for d in (twin, source))
            np.testing.assert_allclose(got, expected, rtol=0, atol=MM, err_msg=keyword)
        values = twin.pixel_array * float(twin.RescaleSlope) + float(twin.RescaleIntercept)
        off = np.abs(stored_levels(values, source) - source.pixel_array)
        assert off.max() < LEVEL
        assert twin.SyntheticData == "YES"
        assert twin.get("PatientName") != source.PatientName
        assert twin.SOPInstanceUID != source.SOPInstanceUID


@pytest.mark.slow
@pytest.mark.parametrize("name", SERIES)
def test_a_dicom_series_as_nifti_lies_where_dcm2niix_puts_it(
    tmp_path: Path, real_data, round_trip, name: str
) -> None:
    dcm2niix = pytest.importorskip("dcm2niix")
    folder = real_data(f"dicom/series/{name}")
    (made,) = round_trip(folder, max(SERIES[name]), "nifti").glob("*.nii.gz")
    (tmp_path / "theirs").mkdir()
    command = [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "x", "-o", tmp_path / "theirs", folder]
    subprocess.run(command, check=False, capture_output=True, timeout=300)
    (theirs,) = (tmp_path / "theirs").glob("*.nii")
    ours, reference = (nibabel.as_closest_canonical(nibabel.load(p)) for p in (made, theirs))
    assert ours.shape == reference.shape
    np.testing.assert_allclose(ours.affine, reference.affine, rtol=0, atol=2e-4)  # both float32
    one = pydicom.dcmread(next(folder.glob("*.dcm")))
    off = np.abs(ours.get_fdata() - reference.get_fdata())
    assert off.max() < LEVEL * levels_unit(one)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if "spm" in name else SLOW) for name in VOLUMES]
)
def test_a_nifti_volume_keeps_its_affine_and_its_grey_levels(
    real_data, round_trip, name: str
) -> None:
    path = real_data(f"nifti/{name}.nii.gz")
    (made,) = round_trip(path, VOLUMES[name], "nifti").glob("*.nii.gz")
    source, back = (nibabel.as_closest_canonical(nibabel.load(p)) for p in (path, made))
    np.testing.assert_allclose(
        nibabel.load(made).affine, source.affine, rtol=1e-6, atol=MM, err_msg="affine"
    )
    data = source.get_fdata()  # [X, Y, Z]
    got = np.full_like(data, data.min())
    got[..., : back.shape[2]] = back.get_fdata()
    blank = np.ptp(got, axis=(0, 1)) == 0  # [Z]: left out for want of any bright pixel
    assert blank.mean() < 0.25
    assert data[..., blank].max(initial=0) < 0.5 * data.max()
    slope = float(nibabel.load(path).dataobj.slope)  # one grey level
    assert np.abs(got - data)[..., ~blank].max() < LEVEL * slope


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcga-fg-6692/t1", "spm-avg152/avg152T1"])
def test_a_nifti_volume_as_dicom_lies_where_its_affine_says(real_data, round_trip, name) -> None:
    path, size = real_data(f"nifti/{name}.nii.gz"), VOLUMES[name]
    source = nibabel.load(path)
    data, to_voxel = source.get_fdata(), np.linalg.inv(source.affine)
    slope = float(source.dataobj.slope)
    made = list(emitted(round_trip(path, size, "dicom")))
    assert len(made) > data.shape[2] / 2
    for dataset in made:
        row, column = np.reshape([float(x) for x in dataset.ImageOrientationPatient], (2, 3))
        down, across = (float(mm) for mm in dataset.PixelSpacing)
        c, r = np.meshgrid(np.arange(dataset.Columns), np.arange(dataset.Rows))  # each [H, W]
        lps = (
            np.array(dataset.ImagePositionPatient, float)
            + c[..., None] * row * across
            + r[..., None] * column * down
        )
        ras = lps * (-1, -1, 1)
        voxels = ras @ to_voxel[:3, :3].T + to_voxel[:3, 3]  # [H, W, 3]
        whole = np.rint(voxels).astype(int)
        assert np.abs(voxels - whole).max() < 1e-5
        expected = data[whole[..., 0], whole[..., 1], whole[..., 2]]
        values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert np.abs(values - expected).max() < LEVEL * slope
