"""Jobs that write DICOM and NIfTI, read back with pydicom and nibabel."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from job_files import digests
from PIL import Image

from fastmrigan.errors import InputRejected, MissingDependency, UsageError
from fastmrigan.imaging.dataset import PreparedDataset, RecordedPosition
from fastmrigan.imaging.geometry import unfit_square
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.translation import translate
from fastmrigan.metrics.translated import read_origins
from fastmrigan.runtime import load

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")

FAULT = Path(__file__).parents[1] / "support" / "fault.py"
DICOM = ["dicom", "dicom-files"]
TAGS = {"SpacingBetweenSlices": 6.0, "PatientPosition": "HFS"}  # that series 0 came with
SERIES = {0: (5, (16, 16), 6.0), 1: (4, (20, 28), 3.5)}  # slices, size and step in mm of each
TURNED = (0.98, 0.0, 0.19899749), (0.0, 1.0, 0.0)  # rows and columns of series 1


def files_of(out: Path) -> list:
    """Every DICOM file of a job, by index, through tarfile and pydicom alone."""
    found = {}
    for path in sorted(out.glob("shard-*")):
        if path.is_dir():
            found |= {int(file.stem): pydicom.dcmread(file) for file in sorted(path.iterdir())}
            continue
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                content = tar.extractfile(name).read()
                if name.endswith(".dcm"):
                    found[int(name[:-4])] = pydicom.dcmread(io.BytesIO(content))
                else:
                    assert json.loads(content)["index"] == int(name[:-5])
    assert list(found) == list(range(len(found)))
    return list(found.values())


def place(series: int, order: int) -> RecordedPosition:
    """Where a slice of a series lies: axial, or tilted; feet first."""
    _, size, step = SERIES[series]
    row, column = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)) if series == 0 else TURNED
    origin = np.array([-100.0, -90.5, 12.25]) + order * step * np.cross(row, column)
    return RecordedPosition(
        origin=tuple(origin.tolist()),
        row=row,
        column=column,
        spacing=(240 / max(size), 1.25),
        thickness=step,
    )


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    """A prepared dataset of 9 PNG slices: 5 of 16x16, 4 of 20 rows and 28 columns."""
    root, dice = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "png").mkdir()
    for series, (count, size, _) in SERIES.items():
        for order in range(count):
            x = dice.integers(0, 4096, size, dtype=np.uint16)
            Image.fromarray(x).save(root / "png" / f"s{series}-{order}.png")
    options = PrepareOptions(size=16, grading="minmax", contrast="t1", label="")
    prepare(root / "png", root / "set", options)
    return root / "set"


@pytest.fixture
def series(flat) -> PreparedDataset:
    """The same, as if the slices were of two series whose places are known; in mixed order."""
    dataset = PreparedDataset.open(flat)
    orders = {16: [3, 0, 4, 1, 2], 28: [2, 3, 0, 1]}
    for number, record in enumerate(dataset.records):
        which = 0 if record.source_size == (16, 16) else 1
        order = orders[record.source_size[1]].pop(0)
        update = {
            "series": which,
            "order": order,
            "position": place(which, order),
            "group": f"patient-{which:04}",
            "tags": TAGS if which == 0 else {},
        }
        dataset.records[number] = record.model_copy(update=update)
    return dataset


@pytest.fixture
def negative(write_model) -> Path:
    document = tiny.metadata(
        task="translate", latent_size=None, source_contrast="t1", target_contrast="t2"
    )
    return write_model(document, tiny.tiny_graph("translate"), "negative.onnx")


def expected(dataset: PreparedDataset) -> list[np.ndarray]:
    """The negative of every slice at its source's size, in the source's unit."""
    made = []
    for x, record in zip(dataset.slices("all"), dataset.records, strict=True):
        share = (1 + unfit_square(-x, *record.source_size).astype(np.float64)) / 2  # 0..1
        grading = record.grading
        made.append(grading.low + share * (grading.high - grading.low))
    return made


@pytest.mark.parametrize("format", DICOM)
def test_sampled_slices_are_a_study_of_invented_series(write_model, tmp_path, format):
    generator, out = load(write_model(), batch=8), tmp_path / "out"
    result = synthesise(generator, JobOptions(out, 37, 7, format, 16))
    assert (result.slices, result.made) == (37, 37)
    made = files_of(out)
    assert len(made) == len({data.SOPInstanceUID for data in made}) == 37
    assert {data.file_meta.MediaStorageSOPInstanceUID for data in made} == {
        data.SOPInstanceUID for data in made
    }
    assert len({data.StudyInstanceUID for data in made}) == 1
    assert len({data.PatientID for data in made}) == 1
    for number, first in enumerate((0, 16, 32)):
        part = made[first : first + 16]
        assert len({data.SeriesInstanceUID for data in part}) == 1
        assert len({data.FrameOfReferenceUID for data in part}) == 1
        assert {data.SeriesNumber for data in part} == {number + 1}
        assert [data.InstanceNumber for data in part] == list(range(1, len(part) + 1))
        heights = [float(data.ImagePositionPatient[2]) for data in part]
        np.testing.assert_allclose(np.diff(heights), 5)
        assert {float(data.SliceThickness) for data in part} == {5}
        assert {list(data.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0] for data in part} == {True}
    assert len({data.SeriesInstanceUID for data in made}) == 3
    grey = np.stack([data.pixel_array for data in made]).astype(int)
    floats = generator.sample(37, seed=7)
    assert np.abs(grey - (floats.astype(np.float64) + 1) * 32767.5).max() <= 0.51
    read = dict(read_slices(out))
    np.testing.assert_array_equal(np.stack(list(read.values())), grey)
    record = json.loads(made[33].ImageComments)
    assert (record["index"], record["seed"], record["synthetic"]) == (33, 7, True)
    assert record["model_sha256"] == generator.model.sha256
    assert "show no common anatomy" in made[0].DerivationDescription
    assert "generative model tiny " in made[0].DerivationDescription


@pytest.mark.parametrize("format", DICOM)
def test_a_resumed_job_makes_the_same_bytes(write_model, tmp_path, format):
    generator, options = load(write_model(), batch=8), JobOptions(tmp_path, 40, 7, format, 16)
    synthesise(generator, options)
    before = digests(tmp_path)
    gone = sorted(tmp_path.glob("shard-000001*"))[0]
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    (tmp_path / "shard-000002.tmp").write_bytes(b"half a shard")
    result = synthesise(generator, options)
    assert (result.slices, result.made) == (40, 16)
    assert digests(tmp_path) == before
    assert "fastmrigan" in json.loads((tmp_path / "run.json").read_text())


def test_every_file_is_on_the_disk_before_its_folder_has_its_name(
    write_model, tmp_path, monkeypatch
):
    synced, fsync = set(), os.fsync

    def record(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    synthesise(load(write_model(), batch=8), JobOptions(tmp_path, 5, 7, "dicom-files", 5))
    (folder,) = tmp_path.glob("shard-*")
    made = [tmp_path, folder, *folder.iterdir()]
    assert len(made) == 7
    assert {path.stat().st_ino for path in made} <= synced


@pytest.mark.slow
@pytest.mark.parametrize("format", DICOM)
@pytest.mark.parametrize("point", ["before-fsync", "before-rename", "before-folder-fsync"])
def test_death_while_writing(write_model, tmp_path, point, format):
    model, whole, out = write_model(), tmp_path / "whole", tmp_path / "out"
    command = ["synth", model, "--out", out, "--count", 60, "--seed", 7, "--shard-size", 16]
    command += ["--batch", 8, "--threads", 1, "--format", format]
    killed = subprocess.run(
        [sys.executable, FAULT, point, "3", *map(str, command)], capture_output=True, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    generator = load(model, batch=8, threads=1, mode="throughput")  # as the command takes it
    options = [JobOptions(folder, 60, 7, format, 16) for folder in (whole, out)]
    synthesise(generator, options[0])
    resumed = synthesise(generator, options[1])
    assert resumed.made == 60 - 16 * (3 if point == "before-folder-fsync" else 2)
    assert digests(out) == digests(whole)


@pytest.mark.parametrize("format", DICOM)
def test_translated_slices_lie_where_their_sources_did(negative, series, tmp_path, format):
    result = translate(load(negative, precision="fp32"), series, Output(tmp_path, format, 4))
    assert result.made == 9
    made = files_of(tmp_path)
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    for name in names:
        by_series = {(r.series, d[name].value) for r, d in zip(series.records, made, strict=True)}
        assert len(by_series) == 2, name
        assert len({value for _, value in by_series}) == 2, name
    for data, record, values in zip(made, series.records, expected(series), strict=True):
        where = record.position
        np.testing.assert_allclose(data.ImagePositionPatient, where.origin, rtol=1e-12)
        orientation = [*where.row, *where.column]
        np.testing.assert_allclose(data.ImageOrientationPatient, orientation, rtol=1e-12)
        np.testing.assert_allclose(data.PixelSpacing, where.spacing, rtol=1e-12)
        assert float(data.SliceThickness) == where.thickness
        assert (data.Rows, data.Columns) == record.source_size
        assert (data.SeriesNumber, data.InstanceNumber) == (record.series, record.order + 1)
        assert data.get("SpacingBetweenSlices") == record.tags.get("SpacingBetweenSlices")
        assert data.PatientPosition == record.tags.get("PatientPosition", "")
        unit = pydicom.pixels.apply_rescale(data.pixel_array, data)
        assert np.abs(unit - values).max() < 0.2  # of 4,096 grey levels
        assert data.RescaleType == "US"
        assert "no unit of this contrast" in data.DerivationDescription
        assert "are those of the source slice" in data.DerivationDescription
        told = json.loads(data.ImageComments)
        assert (told["source"], told["source_index"]) == (record.source, record.index)
    sizes = {x.shape for _, x in read_slices(tmp_path)}
    assert sizes == {(16, 16), (20, 28)}
    origins = read_origins(tmp_path, limit=7)
    assert origins.dataset == series.info.fingerprint
    assert origins.index.tolist() == [record.index for record in series.records[:7]]


@pytest.mark.parametrize("format", DICOM)
def test_sampled_slices_have_no_origins(write_model, tmp_path, format):
    synthesise(load(write_model()), JobOptions(tmp_path, 3, 7, format, 2))
    assert read_origins(tmp_path) is None


@pytest.mark.parametrize("content", [b"x", b"I" * 200, b"\0" * 128 + b"DICM" + b"\xff" * 60])
def test_a_damaged_file_among_origins_is_named(write_model, tmp_path, content):
    synthesise(load(write_model()), JobOptions(tmp_path, 3, 7, "dicom-files", 2))
    (tmp_path / "shard-000001" / "000000002.dcm").write_bytes(content)
    for read in (read_origins, lambda folder: list(read_slices(folder))):
        with pytest.raises(InputRejected, match="shard-000001: not a whole shard"):
            read(tmp_path)


def test_slices_of_unknown_place_are_set_out_like_sampled_ones(negative, flat, tmp_path):
    dataset = PreparedDataset.open(flat)
    translate(load(negative), dataset, Output(tmp_path, "dicom", 4))
    made = files_of(tmp_path)
    for data in made:
        assert "those given here are invented" in data.DerivationDescription
    places = {(d.SeriesInstanceUID, float(d.ImagePositionPatient[2])) for d in made}
    assert len(places) == 9  # none lies over another of its series
    assert len({(d.SeriesInstanceUID, d.Rows, d.Columns) for d in made}) == len(
        {d.SeriesInstanceUID for d in made}
    )


def test_ct_is_said_to_be_ct(write_model, flat, tmp_path):
    document = tiny.metadata(task="translate", latent_size=None, target_contrast="ct")
    model = write_model(document, tiny.tiny_graph("translate"))
    translate(load(model), PreparedDataset.open(flat), Output(tmp_path, "dicom"))
    made = files_of(tmp_path)
    assert {data.SOPClassUID for data in made} == {pydicom.uid.CTImageStorage}
    assert {data.Modality for data in made} == {"CT"}


def test_a_volume_a_source_series(negative, series, tmp_path):
    result = translate(load(negative, precision="fp32"), series, Output(tmp_path, "nifti"))
    assert result.made == 9
    assert [p.name for p in sorted(tmp_path.glob("*.nii.gz"))] == [
        "series-000000.nii.gz",
        "series-000001.nii.gz",
    ]
    for data, record, values in zip(
        series.slices("all"), series.records, expected(series), strict=True
    ):
        assert data.shape == (16, 16)
        image = nibabel.load(tmp_path / f"series-{record.series:06}.nii.gz")
        where = record.position
        volume, inverse = np.asarray(image.dataobj), np.linalg.inv(image.affine)
        for row, column in ((0, 0), (3, 11), (11, 2)):
            lps = np.array(where.origin) + column * where.spacing[1] * np.array(where.row)
            lps = lps + row * where.spacing[0] * np.array(where.column)
            voxel = (inverse @ [-lps[0], -lps[1], lps[2], 1])[:3]
            np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-4)
            found = volume[tuple(np.rint(voxel).astype(int))]
            assert found == pytest.approx(values[row, column], abs=0.2)
    note = json.loads(image.header.extensions[0].get_content().rstrip(b"\0"))
    assert [one["index"] for one in note["slices"]] == [5, 6, 7, 8]
    assert note["contrast"] == "t2"
    with pytest.raises(UsageError, match="holds NIfTI volumes, in units of their sources"):
        next(read_slices(tmp_path))


def test_a_volume_job_resumes(negative, series, tmp_path):
    generator, output = load(negative), Output(tmp_path / "out", "nifti")
    translate(generator, series, output)
    before = digests(output.out)
    (output.out / "series-000000.nii.gz").unlink()
    (output.out / "series-000001.nii.gz.tmp").write_bytes(b"half")
    assert translate(generator, series, output).made == 5
    assert digests(output.out) == before
    gzip.decompress((output.out / "series-000000.nii.gz").read_bytes())  # whole, by its checksum
    other = Output(output.out, "dicom")
    with pytest.raises(UsageError, match="format is 'nifti' there and 'dicom' here"):
        translate(generator, series, other)
    (output.out / "run.json").unlink()
    with pytest.raises(UsageError, match=r"holds shards but no run\.json"):
        translate(generator, series, output)


def test_what_makes_no_volume_is_named(negative, flat, series, tmp_path):
    generator, output = load(negative), Output(tmp_path / "out", "nifti")
    with pytest.raises(UsageError, match=r"slice 0 has no known place in a series.*PNG"):
        translate(generator, PreparedDataset.open(flat), output)
    broken = series.records[0]
    for update, told in (
        ({"position": place(0, 2)}, "series 0: two of its slices lie in one place"),
        ({"series": 1}, "series 1: its slices differ in size"),
    ):
        series.records[0] = broken.model_copy(update=update)
        with pytest.raises(UsageError, match=rf"{told}; leave --format out, or take dicom or png"):
            translate(generator, series, output)
    assert not output.out.exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"format": "nifti"}, "--format nifti: sampled slices each show a head of their own"),
        ({"format": "dicom", "dtype": "uint8"}, "--dtype uint8: --format dicom has 16 bits"),
        ({"format": "dicom-files", "dtype": "uint8"}, "--format dicom-files has 16 bits"),
        ({"format": "DICOM"}, "--format DICOM: unknown; choose one of shard, npz, png, dicom"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, settings, told):
    with pytest.raises(UsageError, match=told):
        JobOptions(tmp_path / "out", 4, **settings).check()


def test_the_default_depth_is_the_formats(tmp_path):
    depths = {fmt: Output(tmp_path, fmt).depth for fmt in ("shard", "npz", "png", *DICOM, "nifti")}
    assert [fmt for fmt, depth in depths.items() if depth == "uint16"] == [*DICOM, "nifti"]
    assert Output(tmp_path, "png", dtype="uint16").depth == "uint16"


@pytest.mark.parametrize(("format", "package"), [("dicom", "pydicom"), ("nifti", "nibabel")])
def test_an_absent_package_is_named_before_the_engine_starts(
    monkeypatch, tmp_path, format, package
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=rf"needs the package {package}"):
        Output(tmp_path, format).check()


@pytest.mark.parametrize("format", ["png", "dicom-files"])
def test_only_a_dicom_format_imports_pydicom(write_model, tmp_path, format):
    code = f"""
import sys
sys.argv = ["fastmrigan", "synth", {str(write_model())!r}, "--count", "3", "--out",
            {str(tmp_path / "out")!r}, "--format", {format!r}]
from fastmrigan.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
    assert ("pydicom" in sys.modules) is {format.startswith("dicom")}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list(read_slices(tmp_path / "out"))) == 3


@pytest.mark.slow
def test_dciodvfy_finds_no_error_in_any_file_of_a_job(write_model, negative, series, tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy absent (Debian: apt install dicom3tools)")
    synthesise(load(write_model()), JobOptions(tmp_path / "a", 9, 7, "dicom-files", 4))
    translate(load(negative), series, Output(tmp_path / "b", "dicom-files", 4))
    files = sorted(tmp_path.glob("[ab]/shard-*/*.dcm"))
    assert len(files) == 18
    for file in files:
        done = subprocess.run(["dciodvfy", file], capture_output=True, text=True, timeout=300)
        said = (done.stdout + done.stderr).splitlines()
        assert "MRImage" in said
        errors = [line for line in said if line.startswith("Error") and "0008,0x001c" not in line]
        assert errors == []
