"""Contrast by dcm2niix: what it says, how that is translated, and what happens when it fails."""

from __future__ import annotations

import builtins
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from fastmrigan.errors import MissingDependency, UsageError
from fastmrigan.imaging import contrast
from fastmrigan.imaging.contrast import Silent, guess_contrast, guess_contrasts
from fastmrigan.imaging.options import CONTRASTS


@pytest.mark.parametrize(
    ("guess", "expected"),
    [
        (("anat", "_acq-tfl3p2_run-5_T1w"), "t1"),
        (("anat", "_acq-tfl3_run-2_echo-3_T1w"), "t1"),
        (("derived", "_acq-tfl3_run-2_T1w"), "t1"),
        (("anat", "_acq-tfl3_run-2_UNIT1"), "t1"),
        (("anat", "_acq-tse2_run-3_T2w"), "t2"),
        (("anat", "_acq-tse2_run-3_PDw"), "pd"),
        (("anat", "_acq-spcir2p2_run-5_FLAIR"), "flair"),
        (("dwi", "_acq-epse2_dir-AP_run-9_dwi"), "dwi"),
        (("anat", "_acq-fl3_run-4_part-mag_T2starw"), "unknown"),
        (("dwi", "_run-9_ADC"), "unknown"),
        (("dwi", "_run-9_sbref"), "unknown"),
        (("func", "_acq-epfid2_dir-AP_run-7_bold"), "unknown"),
        (("discard", "_acq-fl2_run-1_localizer"), "unknown"),
        (("discard", "_acq-fl2_run-1_T1w"), "unknown"),
        (("anat", "T1w"), "t1"),
        (("", ""), "unknown"),
        (("anat", "_acq-T1w_run-1_angio"), "unknown"),
    ],
)
def test_what_bids_calls_it(guess: tuple[str, str], expected: str) -> None:
    assert contrast.contrast_of(guess) == expected


def test_every_answer_is_a_known_contrast() -> None:
    assert set(contrast.CONTRAST_OF_SUFFIX.values()) | {contrast.UNKNOWN, "ct"} <= set(CONTRASTS)


@pytest.mark.parametrize(
    ("several", "expected"),
    [
        ([], "unknown"),
        (["t1", "t1"], "t1"),
        (["pd", "t2"], "unknown"),
        (["t1", "unknown"], "unknown"),
    ],
)
def test_images_of_one_series_must_agree(several: list[str], expected: str) -> None:
    assert contrast.agreed(several) == expected


def write_series(folder: Path, count: int = 3, **elements: object) -> tuple[str, list[Path]]:
    """Small DICOM slices of one series; returns its UID and the files."""
    folder.mkdir(parents=True, exist_ok=True)
    uid, study, frame = (generate_uid() for _ in range(3))
    paths = []
    for z in range(count):
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = uid, study
        dataset.FrameOfReferenceUID = frame
        dataset.Modality, dataset.Manufacturer = "MR", "SIEMENS"
        dataset.PatientID, dataset.PatientName = "0042", "Doe^Jane"
        dataset.SeriesNumber, dataset.InstanceNumber = 4, z + 1
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        dataset.MagneticFieldStrength, dataset.RepetitionTime, dataset.EchoTime = "3", "9000", "90"
        dataset.Rows = dataset.Columns = 32
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.PixelSpacing, dataset.SliceThickness = ["1", "1"], "5"
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        dataset.ImagePositionPatient = ["0", "0", str(5 * z)]
        dataset.PixelData = np.arange(32 * 32, dtype=np.uint16).tobytes()
        for name, value in elements.items():
            setattr(dataset, name, value)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / f"{z}")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return uid, paths


def test_series_are_told_apart_and_keep_their_own_contrast(tmp_path: Path) -> None:
    weighted = {"SequenceName": "*tse2d1_7", "SequenceVariant": "SK", "ScanningSequence": "SE"}
    t2, t2_files = write_series(tmp_path / "a", **weighted)
    pd, pd_files = write_series(tmp_path / "b", **weighted | {"EchoTime": "11"})
    t1, t1_files = write_series(tmp_path / "c", SequenceName="*tfl3d1_ns", ScanningSequence="GR")
    other, other_files = write_series(tmp_path / "d", Manufacturer="Nobody", EchoTime=None)
    ct, ct_files = write_series(tmp_path / "e", Modality="CT")
    (tmp_path / "notes.txt").write_text("no image")
    mixed = [f for z in range(3) for f in (t2_files[z], pd_files[z], t1_files[z], ct_files[z])]
    lines: list[str] = []
    guessed = guess_contrasts([tmp_path / "notes.txt", *mixed, *other_files], report=lines.append)
    assert guessed == {t2: "t2", pd: "pd", t1: "t1", other: "unknown", ct: "ct"}
    assert lines == []


def program(folder: Path, script: str) -> str:
    """Something that stands in for dcm2niix; $OUT is the folder for sidecars, $IN that of files."""
    path = folder / "dcm2niix"
    path.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib, sys, time\n"
        "OUT, IN = (pathlib.Path(p) for p in sys.argv[-2:])\n" + script
    )
    path.chmod(0o700)
    return str(path)


def says(**document: object) -> str:
    return f"(OUT / 'guess.json').write_text({json.dumps(document)!r})\n"


GOOD = {"BidsGuess": ["anat", "_T2w"], "ConversionSoftwareVersion": "v1.0.20260724"}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "print('Error: bad file'); sys.exit(1)",
            r"dcm2niix: it failed \(exit 1\): Error: bad file",
        ),
        ("sys.exit(2)", r"it finds no image it can read \(exit 2\)$"),
        (says(**GOOD) + "sys.exit(4)", r"it finds a corrupt file \(exit 4\)$"),
        ("sys.exit(77)", r"it failed \(exit 77\)$"),
        ("os.kill(os.getpid(), 11)", r"it was killed \(SIGSEGV\)$"),
        ("time.sleep(60)", "took more than 1 s"),
        ("x = bytearray(3 << 30)", r"it failed \(exit 1\): MemoryError"),
        ("while True: print('Warning: ' + 'x' * 9999)", r"it failed \(exit \d+\): Warning: x"),
        ("(OUT / 'a.json').write_text('no JSON')", "a sidecar that cannot be read"),
        ("(OUT / 'a.json').write_text('[1]')", "a sidecar that cannot be read"),
        ("(OUT / 'a.json').write_text('[' * 100000)", "a sidecar that cannot be read"),
        ("print(f'Error in {OUT.parent}/x'); sys.exit(1)", "Error in x$"),
    ],
)
def test_a_failure_is_reported_and_leaves_the_contrast_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    stand_in = program(tmp_path, script)
    monkeypatch.setattr(contrast, "find_program", lambda: stand_in)
    uid, files = write_series(tmp_path / "series")
    seconds = 1.0 if "sleep" in script else 30.0
    began = time.monotonic()
    with pytest.raises(Silent, match=reason):
        guess_contrast(files, seconds=seconds)
    assert time.monotonic() - began < 20
    lines: list[str] = []
    assert guess_contrasts(files, seconds=seconds, report=lines.append) == {uid: "unknown"}
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {files[0]} and its series: contrast unknown: ")


@pytest.mark.parametrize("code", [0, 8, 10])
def test_sidecars_count_after_exit_codes_that_leave_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    stand_in = program(tmp_path, says(**GOOD) + f"sys.exit({code})")
    monkeypatch.setattr(contrast, "find_program", lambda: stand_in)
    assert guess_contrast(write_series(tmp_path / "series")[1]) == "t2"


def test_it_sees_links_under_our_names_and_none_of_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen.json"
    script = (
        f"seen = pathlib.Path({str(seen)!r})\n"
        "names = sorted(os.listdir(IN))\n"
        "targets = [str((IN / n).resolve()) for n in names]\n"
        "seen.write_text(json.dumps([sys.argv[1:-3], names, targets, os.environ['HOME']]))\n"
    )
    stand_in = program(tmp_path, script + says(**GOOD))
    monkeypatch.setattr(contrast, "find_program", lambda: stand_in)
    folder = tmp_path / "odd name\nwith -o options"
    _, files = write_series(folder)
    monkeypatch.chdir(folder)
    assert guess_contrast([Path(file.name) for file in files]) == "t2"
    options, names, targets, home = json.loads(seen.read_text())
    assert options == ["-b", "o", "-ba", "y", "-d", "0", "-z", "n", "-f", "guess"]
    assert names == ["000000.dcm", "000001.dcm", "000002.dcm"]
    assert targets == [str(file) for file in files]
    assert home != os.environ.get("HOME")
    assert not Path(home).exists()


def test_a_dcm2niix_too_old_to_guess_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = says(ConversionSoftwareVersion="v1.0.20220720")
    stand_in = program(tmp_path, old)
    monkeypatch.setattr(contrast, "find_program", lambda: stand_in)
    _, files = write_series(tmp_path / "series")
    with pytest.raises(UsageError, match=r"v1\.0\.20220720 does not tell contrasts, versions"):
        guess_contrasts(files)


def test_a_dcm2niix_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dcm2niix").touch()
    monkeypatch.setattr(contrast, "find_program", lambda: str(tmp_path / "dcm2niix"))
    with pytest.raises(UsageError, match=r"dcm2niix: cannot be run \(Permission denied\): pip"):
        guess_contrast(write_series(tmp_path / "series")[1])


def test_without_dcm2niix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: object, **keywords: object) -> object:
        if name == "dcm2niix":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"contrast of DICOM series needs .* dcm2niix"):
        contrast.find_program()
    expected = program(tmp_path, "")
    assert contrast.find_program() == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("brainix_flair", "unknown"), ("hanke_t1w", "unknown"), ("dwv_mprage_sag", "t1")],
)
def test_real_series(real_data, name: str, expected: str) -> None:
    """dcm2niix has no word for the first (Philips, IR) nor for the second (no Manufacturer)."""
    files = sorted(real_data(f"dicom/series/{name}").glob("*.dcm"))
    series = {str(pydicom.dcmread(f, stop_before_pixels=True).SeriesInstanceUID) for f in files}
    assert guess_contrasts(files) == dict.fromkeys(series, expected)


def test_real_ct(real_data) -> None:
    path = real_data("dicom/syntax/693_J2KR.dcm")
    assert list(guess_contrasts([path]).values()) == ["ct"]
