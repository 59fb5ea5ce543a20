"""One file to slices in its own numbers, whatever its format; the content decides, not the name.

`read` raises `Refused` with the reason for everything that cannot be used.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from fastmrigan.imaging.position import SlicePosition
from fastmrigan.imaging.walker import VOLUME_SUFFIXES, Refused, printable, suffix

Float32 = npt.NDArray[np.float32]

MIN_SIDE = 16
MAX_PIXELS = 8192 * 8192  # of one slice; below the size at which Pillow itself refuses
MAX_VOXELS = 1 << 28  # of one volume: 1 GiB as float32

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

TRANSPARENT = ("RGBA", "LA", "PA", "P")  # a palette may hold transparent colours
COLOUR = (*TRANSPARENT, "1", "RGB", "RGBX", "YCbCr", "CMYK")
BAND = 64  # rows


@dataclass(frozen=True)
class ReadImage:
    """What one file holds."""

    slices: Float32  # [N, H, W], the source's own numbers, finite
    mode: str  # format and pixel type, e.g. "PNG I;16"
    patient: str | None = None  # tells patients apart in memory; never written anywhere
    volume: bool = False  # neighbouring slices of one volume rather than a single slice
    positions: tuple[SlicePosition, ...] | None = None  # [N], where each slice lies, if known
    tags: Mapping[str, str | float] = field(default_factory=dict)  # technical, from an allow-list


def read(path: Path, name: str) -> ReadImage:
    """Reads PNG, JPEG or TIFF (grey or colour), DICOM (every frame) or 3-D NIfTI.

    name: what a refusal calls the file. Colour becomes luminance (ITU-R BT.601), transparency is
    laid on black. Raises Refused for a file that cannot be used and MissingDependency where
    pydicom or nibabel is not installed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(352)
    except OSError as error:
        raise Refused(name, f"cannot be read ({error.strerror})") from error
    try:
        image = decode(path, suffix(name), head)
        check(image.slices)
    except ValueError as error:
        raise Refused(name, printable(" ".join(str(error).split()))) from error
    except MemoryError as error:
        raise Refused(name, "needs more memory to decode than there is") from error
    return image


def decode(path: Path, kind: str, head: bytes) -> ReadImage:
    """Picks the reader by the first bytes; every refusal is a ValueError with its reason."""
    if not head:
        raise ValueError("an empty file")
    if head[128:132] == b"DICM":
        from fastmrigan.imaging.dicom import read_dicom

        return read_dicom(path)
    is_nifti = head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")
    if is_nifti or kind in VOLUME_SUFFIXES:
        from fastmrigan.imaging.nifti import read_nifti

        return read_nifti(path)
    if kind in DICOM_SUFFIXES:
        raise ValueError("not a DICOM file (no DICM mark at byte 128)")
    return read_picture(path)


def read_picture(path: Path) -> ReadImage:
    """PNG, JPEG or TIFF through Pillow. Raises ValueError with the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata; a bomb is refused all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
                check_size(image.height, image.width)
                if has_pages(image):
                    raise ValueError("holds several pages; one image a file is read")
                mode = f"{image.format} {image.mode}"
                if image.mode.startswith("I") and white_is_zero(image):
                    raise ValueError("a TIFF of more than 8 bits whose zero is white; invert it")
                ImageOps.exif_transpose(image, in_place=True)
                return ReadImage(grey(image)[None], mode)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError("a decompression bomb (more pixels than any slice has)") from error
        except UnidentifiedImageError as error:
            raise ValueError("not a PNG, JPEG, TIFF, DICOM or NIfTI image") from error
        except (ValueError, MemoryError):
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on broken data
            raise ValueError(f"a broken image ({type(error).__name__}: {error})") from error


def has_pages(image: Image.Image) -> bool:
    """Whether there is more than one; a TIFF's pages are not counted, which takes long for many."""
    if not isinstance(image, TiffImageFile):
        return getattr(image, "n_frames", 1) != 1
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def white_is_zero(image: Image.Image) -> bool:
    """TIFF's WhiteIsZero, which Pillow turns over for 8 bits but not for more."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0


def grey(image: Image.Image) -> Float32:
    """The pixels of a Pillow image as one grey channel, float32 [H, W]."""
    deep = image.mode.startswith("I")  # more than 8 bits, which no conversion keeps
    if deep and isinstance(clear := image.info.get("transparency"), int):
        stored = np.asarray(image)
        return np.where(stored == clear, 0, stored).astype(np.float32)
    if image.mode in COLOUR or "transparency" in image.info:
        image = luminance(image)
    elif image.mode not in ("L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
        raise ValueError(f"Pillow's mode {image.mode} is not read; save it as grey or RGB")
    return np.asarray(image).astype(np.float32)


def luminance(image: Image.Image) -> Image.Image:
    """Colour as "L", transparency laid on black.

    A band of rows at a time: the steps between would each hold the whole picture at 4 bytes a
    pixel.
    """
    laid = Image.new("L", image.size)
    for top in range(0, image.height, BAND):
        band = image.crop((0, top, image.width, min(top + BAND, image.height)))
        if band.mode in TRANSPARENT or "transparency" in band.info:
            black = Image.new("RGBA", band.size, (0, 0, 0, 255))
            band = Image.alpha_composite(black, band.convert("RGBA"))
        laid.paste(band.convert("RGB").convert("L"), (0, top))
    return laid


def check_size(height: int, width: int) -> None:
    """Raises ValueError for a slice too small to show anything or too large to be one."""
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"{width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed",
        )
    if height * width > MAX_PIXELS:
        raise ValueError(f"claims {width}x{height} pixels; at most {MAX_PIXELS:,} are read")


def check(slices: Float32) -> None:
    """Raises ValueError for slices that hold nothing to learn from. [N, H, W]"""
    check_size(*slices.shape[1:])
    least, most = float(slices.min()), float(slices.max())  # NaN where any value is NaN
    if not (math.isfinite(least) and math.isfinite(most)):
        raise ValueError("holds NaN or infinite values")
    if least == most:
        raise ValueError(f"constant: every pixel is {least:g}")
