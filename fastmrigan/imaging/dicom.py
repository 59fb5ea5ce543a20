"""Single-frame greyscale DICOM through pydicom. Identity stays out: only pixels are kept."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.readers import Float32, ReadImage, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

DEFLATED = "1.2.840.10008.1.2.1.99"


def read_dicom(path: Path) -> ReadImage:
    """One slice in the modality's unit: LUT or rescale applied, MONOCHROME1 turned dark-to-bright.

    The patient of the result is PatientID, else StudyInstanceUID: to keep a patient on one side
    of a split, never to be written. Raises ValueError with the reason (no pixels, several frames,
    colour, a codec that is absent, broken data) and MissingDependency.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
        from pydicom.filereader import read_file_meta_info
    except ModuleNotFoundError as error:
        raise MissingDependency("pydicom", "dicom", f"reading DICOM ({path.name})") from error

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd values in elements that are not used
        try:
            # Inflating is unbounded in pydicom, so the syntax is read before anything else
            if read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED:
                raise ValueError(
                    "deflated DICOM is not read; rewrite it uncompressed (dcmconv +te)",
                )
            dataset = pydicom.dcmread(path)
            check_header(dataset)
            pixels = modality_pixels(dataset)  # [H, W]
            mode = f"DICOM {dataset.PhotometricInterpretation} {dataset.BitsStored} bit"
            patient = str(dataset.get("PatientID") or dataset.get("StudyInstanceUID") or "")
        except (ValueError, MemoryError):
            raise
        except InvalidDicomError as error:
            raise ValueError("not a DICOM file") from error
        except Exception as error:
            raise ValueError(f"broken DICOM ({type(error).__name__}: {brief(error)})") from error
    return ReadImage(pixels[None], mode, patient or None)


def check_header(dataset: Dataset) -> None:
    """Raises ValueError where the header rules out one grey slice, before anything is decoded."""
    if "PixelData" not in dataset:
        floating = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
        raise ValueError("DICOM with floating-point pixels" if floating else "DICOM without pixels")
    missing = [
        name
        for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation")
        if dataset.get(name) is None
    ]
    if missing:
        raise ValueError(f"DICOM without {', '.join(missing)}")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ValueError(f"multi-frame DICOM ({frames} frames); one frame a file is read")
    if dataset.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"colour DICOM ({dataset.PhotometricInterpretation}); grey is read")
    check_size(int(dataset.Rows), int(dataset.Columns))


def modality_pixels(dataset: Dataset) -> Float32:
    """Stored values through the modality transform (PS3.3 C.11.1), float32 [H, W]."""
    from pydicom.pixels.processing import apply_modality_lut

    try:
        stored = dataset.pixel_array  # signedness follows PixelRepresentation
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        if "missing dependencies" in str(error):
            syntax = dataset.file_meta.TransferSyntaxUID.name
            raise ValueError(
                f"no installed package decodes {syntax}; pip install pylibjpeg pylibjpeg-libjpeg "
                "pylibjpeg-openjpeg, or rewrite it uncompressed"
            ) from error
        raise ValueError(f"its pixels cannot be decoded ({brief(error)})") from error
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        # Turned over within the range of the stored type, so that all slices of a series agree
        signed = dataset.PixelRepresentation == 1
        stored = (-1 if signed else (1 << dataset.BitsStored) - 1) - stored.astype(np.int64)
    return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)


def brief(error: Exception) -> str:
    """The fact at the head of pydicom's messages, without the guesses behind it."""
    return " ".join(str(error).split(" - ")[0].split())[:160]
