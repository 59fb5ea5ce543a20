"""Small inputs of `prepare`, and a way to run it in one process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastmrigan.imaging.geometry import resize
from fastmrigan.imaging.walker import Refused


class InProcess:
    """DecodePool without processes or limits: for tests that are not about those."""

    def __init__(self, function: Callable[..., Any], **_: object) -> None:
        self.function = function

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, tasks: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Any]:
        for _, args in tasks:
            try:
                result = self.function(*args)
            except Refused as error:
                result = error
            yield result


def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the second that starting worker processes takes."""
    monkeypatch.setattr("fastmrigan.imaging.prepare.DecodePool", InProcess)


def picture(seed: int, height: int = 48, width: int = 40) -> np.ndarray:
    """A smooth bright blob pattern on black, uint8 [height, width]."""
    rng = np.random.default_rng(seed)
    x = resize(rng.uniform(0, 255, (7, 6)).astype(np.float32), height, width)
    x[:4], x[-4:], x[:, :4], x[:, -4:] = 0, 0, 0, 0
    return np.clip(x, 0, 255).astype(np.uint8)


def folder(root: Path, count: int, start: int = 0) -> Path:
    """`count` pictures of two labels, two of each head."""
    for i in range(count):
        side = root / ("tumour" if i % 3 else "normal")
        side.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(start + i)).save(side / f"head{i // 2}_slice{i}.png")
    return root


def contents(path: Path) -> dict[str, str]:
    """sha256 of every file of a folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(path.iterdir())}


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    *,
    series: str = "2.25.1",
    patient: str = "P1",
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (2.0, 1.0),
    burned_in: str | None = "NO",
    rgb: bool = False,
    instance: int = 1,
) -> Path:
    """One MR slice, uint16 [H, W] (or uint8 [H, W, 3])."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID = series, "2.25.9"
    data.PatientID, data.PatientName, data.Modality = patient, "Name^Secret", "MR"
    data.InstanceNumber = instance
    if burned_in is not None:
        data.BurnedInAnnotation = burned_in
    data.EchoTime, data.StudyDate = "90", "20200101"
    data.ImagePositionPatient, data.ImageOrientationPatient = list(origin), list(orientation)
    data.PixelSpacing, data.SliceThickness = list(spacing), "5"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 3 if rgb else 1
    data.PhotometricInterpretation = "RGB" if rgb else "MONOCHROME2"
    if rgb:
        data.PlanarConfiguration = 0
    bits = 8 if rgb else 16
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, 0
    data.PixelData = pixels.astype(np.uint8 if rgb else "<u2").tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(root: Path, count: int, step: float = 6.0, start: int = 0, **options: Any) -> Path:
    """Axial slices `step` mm apart, whose names and InstanceNumbers run from the head downwards."""
    for i in range(count):
        x = picture(start + i).astype(np.uint16) * (10 + i)
        path = root / f"IM{count - i:03}"
        write_dicom(path, x, (0.0, 0.0, i * step), instance=count - i, **options)
    return root
