"""The reader against other people's encoders and readers: dcmtk, dcm2niix."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import STORED, at, mr

from fastmrigan.imaging.dicom import open_bounded, read_dicom, read_header
from fastmrigan.imaging.dicom.elements import Frames
from fastmrigan.imaging.dicom.pixels import scale

pytestmark = pytest.mark.slow

DCMTK = {  # the tool and its options: the transfer syntax that comes out
    ("dcmconv", "+ti"): "1.2.840.10008.1.2",
    ("dcmconv", "+te"): "1.2.840.10008.1.2.1",
    ("dcmconv", "+tb"): "1.2.840.10008.1.2.2",
    ("dcmconv", "+td"): "1.2.840.10008.1.2.1.99",
    ("dcmcrle",): "1.2.840.10008.1.2.5",
    ("dcmcjpeg", "+e1"): "1.2.840.10008.1.2.4.70",
    ("dcmcjpeg", "+el"): "1.2.840.10008.1.2.4.57",
    ("dcmcjpls",): "1.2.840.10008.1.2.4.80",
}


def tool(name: str) -> str:
    beside = str(Path(sys.executable).parent)  # of this Python, where pip puts dcm2niix
    found = shutil.which(name) or shutil.which(name, path=beside)
    if found is None:
        pytest.skip(f"{name} is not installed (apt install dcmtk; pip install dcm2niix)")
    return found


def run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


SOURCES = [
    "series/brainix_flair/IM-0001-0010.dcm",
    "series/hanke_t1w/N2D_0254.dcm",
    "syntax/CT2_RLE.dcm",
    "enhanced/emri_small.dcm",
    "small/MR_small.dcm",
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("command", DCMTK)
def test_what_dcmtk_encodes(
    tmp_path: Path, real_data, source: str, command: tuple[str, ...]
) -> None:
    plain = tmp_path / "plain.dcm"
    original = pydicom.dcmread(real_data(f"dicom/{source}"))
    if original.file_meta.TransferSyntaxUID.is_compressed:
        original.decompress(generate_instance_uid=False)
    original.save_as(plain)
    target = tmp_path / "a.dcm"
    run(tool(command[0]), *command[1:], plain, target)
    assert read_header(target).syntax == DCMTK[command]
    image, expected = read_dicom(target), read_dicom(plain)
    np.testing.assert_array_equal(image.slices, expected.slices)
    assert image.positions == expected.positions
    assert image.tags == expected.tags


@pytest.mark.parametrize("name", ["dcmdjpeg", "dcmdjpls"])
def test_what_dcmtk_decodes(tmp_path: Path, real_data, name: str) -> None:
    source = real_data(f"dicom/syntax/MR4_{'JPLL' if name == 'dcmdjpeg' else 'JLSL'}.dcm")
    run(tool(name), source, tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_dicom(tmp_path / "a.dcm").slices, read_dicom(source).slices)


def nifti(folder: Path) -> np.ndarray:
    """What dcm2niix makes of a folder's one series: [N, H, W] in DICOM's order of rows."""
    import nibabel

    run(tool("dcm2niix"), "-b", "y", "-z", "n", "-f", "made", "-o", folder, folder)
    assert json.loads((folder / "made.json").read_text())["Manufacturer"] == "Philips"
    volume = np.asarray(nibabel.load(folder / "made.nii").dataobj)  # [X, Y, Z], rows flipped
    return volume[:, ::-1].transpose(2, 1, 0)


def philips(dataset: pydicom.Dataset, scale_slope: float) -> None:
    dataset.Manufacturer = "Philips"
    block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    block.add_new(0x0E, "FL", scale_slope)


def test_philips_precise_values_are_those_of_dcm2niix(tmp_path: Path) -> None:
    for i in range(3):
        made = mr(
            STORED + i,
            RescaleSlope=1.5,
            RescaleIntercept=-12,
            SeriesInstanceUID="1.2.3",
            StudyInstanceUID="1.2.4",
            InstanceNumber=i + 1,
            SeriesNumber=1,
            **at(4.0 * i),
        )
        philips(made, 0.0125)
        made.save_as(tmp_path / f"{i}.dcm", enforce_file_format=True)
    ours = np.concatenate([read_dicom(tmp_path / f"{i}.dcm").slices for i in range(3)])
    np.testing.assert_allclose(nifti(tmp_path), ours, rtol=1e-5, atol=1e-2)


def test_the_scale_slope_of_a_real_enhanced_object(tmp_path: Path, real_data) -> None:
    packed = real_data("dicom/enhanced/philips_mprage_zeros.dcm.gz").read_bytes()
    (tmp_path / "a.dcm").write_bytes(gzip.decompress(packed))
    run(tool("dcm2niix"), "-b", "o", "-f", "made", "-o", tmp_path, tmp_path)
    said = json.loads((tmp_path / "made.json").read_text())
    frames = Frames(open_bounded(tmp_path / "a.dcm"))
    precise, shown = scale(frames, 0, precise=True), scale(frames, 0, precise=False)
    assert precise[0] == pytest.approx(1 / said["PhilipsScaleSlope"], rel=1e-4)
    assert shown[0] == pytest.approx(said["PhilipsRescaleSlope"], rel=1e-4)
