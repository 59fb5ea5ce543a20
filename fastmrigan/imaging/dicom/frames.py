"""Stored pixel values, frame by frame, from every transfer syntax that is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from fastmrigan.imaging.dicom.bounded import brief, claims
from fastmrigan.imaging.dicom.elements import text, whole
from fastmrigan.imaging.worker import unclocked

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.pixels.decoders.base import Decoder

Stored = npt.NDArray[Any]  # uint8, int8, uint16, int16, float32 or float64

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
NEITHER = ("PALETTE COLOR", "XYB", "HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420")

PLAIN = (  # implicit, explicit, deflated, big endian
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
RLE = "1.2.840.10008.1.2.5"
JPEG = ("pylibjpeg", "pylibjpeg-libjpeg")
JPEG_2000 = ("pylibjpeg", "pylibjpeg-openjpeg")

# pydicom's name of each decoder, in order of preference, and the packages that bring the first.
# All give a lossless syntax's own values. Pillow and GDCM are passed over: Pillow scales what is
# not of 8 or 16 bits, and one decoder a lossy syntax gives everyone the same numbers.
DECODERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    RLE: (("pydicom",), ("pydicom",)),  # pylibjpeg-rle panics on some broken data
    "1.2.840.10008.1.2.4.50": (("pylibjpeg",), JPEG),  # JPEG baseline, 8 bit
    "1.2.840.10008.1.2.4.51": (("pylibjpeg",), JPEG),  # JPEG extended, 12 bit
    "1.2.840.10008.1.2.4.57": (("pylibjpeg",), JPEG),  # JPEG lossless
    "1.2.840.10008.1.2.4.70": (("pylibjpeg",), JPEG),  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": (("pyjpegls", "pylibjpeg"), ("pyjpegls",)),  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": (("pyjpegls", "pylibjpeg"), ("pyjpegls",)),  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90": (("pylibjpeg",), JPEG_2000),  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": (("pylibjpeg",), JPEG_2000),  # JPEG 2000
    "1.2.840.10008.1.2.4.201": (("pylibjpeg",), JPEG_2000),  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202": (("pylibjpeg",), JPEG_2000),  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.203": (("pylibjpeg",), JPEG_2000),  # HTJ2K
}

# JPEG's and JPEG-LS's start-of-frame markers (ISO 10918-1 B.1.1.3, ISO 14495-1 C.1.1)
START_OF_FRAME = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
END_OF_IMAGE = b"\xff\xd9"  # the last of JPEG and JPEG-LS (ISO 10918-1 B.1.1.3)
CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: SOC, then SIZ (ISO 15444-1 A.4, A.5)


def stored_frames(dataset: Dataset) -> Iterator[Stored]:
    """The stored values of each frame: [H, W], or [H, W, 3] in RGB where the image is in colour.

    Signed as PixelRepresentation says, bits beyond BitsStored cleared, in native byte order.
    Raises ValueError for a syntax that is not read or whose decoder is not installed (and says
    which package brings it), for pixels that are no 8 to 16-bit integers or floats, for compressed
    frames whose own size is not the header's, for too few frames, and for broken data.
    """
    with unclocked():
        from pydicom.pixels.decoders.base import get_decoder

    check_pixels(dataset)
    _, _, count = claims(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = ""
    if syntax in DECODERS:
        plugin = choose(get_decoder(syntax), syntax)
        check_codestreams(dataset)
    elif syntax not in PLAIN:
        known = f"{syntax.name} ({syntax})" if syntax.is_valid else "that is no UID"
        raise ValueError(f"transfer syntax {known} is not read; rewrite it")
    try:
        made = get_decoder(syntax).iter_array(
            dataset, decoding_plugin=plugin, allow_excess_frames=False
        )
        found = 0
        for frame, _ in made:
            if found == count:
                break
            found += 1
            yield frame.astype(frame.dtype.newbyteorder("="), copy=False)
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ValueError(f"its pixels cannot be decoded ({brief(error)})") from error
    if found < count:
        raise ValueError(f"its pixels end after {found} of {count} frames")


def check_pixels(dataset: Dataset) -> None:
    """Raises ValueError for a kind of pixels that is not read, before any is decoded."""
    floating = [name for name in ("FloatPixelData", "DoubleFloatPixelData") if name in dataset]
    if "PixelData" not in dataset and not floating:
        raise ValueError("DICOM without pixels")
    if not floating and not dataset.PixelData:
        raise ValueError("its pixels are empty")
    photometric = text(dataset, "PhotometricInterpretation")
    samples = whole(dataset, "SamplesPerPixel") or 1
    if samples != (3 if photometric in COLOUR else 1):
        raise ValueError(f"{samples} samples a pixel of {named(photometric)}")
    if floating:
        return
    needed = ("BitsAllocated", "BitsStored", "PixelRepresentation")
    missing = [name for name in needed if name not in dataset]
    if missing:
        raise ValueError(f"DICOM without {', '.join(missing)}")
    allocated, bits = whole(dataset, "BitsAllocated"), whole(dataset, "BitsStored")
    if allocated not in (8, 16):
        raise ValueError(f"pixels of {allocated} bits; 8 to 16-bit integers and floats are read")
    if bits is None or not 1 <= bits <= allocated:
        raise ValueError(f"claims {bits} stored bits in {allocated} allocated ones")
    high = whole(dataset, "HighBit")
    if high is not None and high != bits - 1:  # PS3.3 C.7.6.3.1.2; decoders take it for granted
        raise ValueError(f"{bits} stored bits of which bit {high} is the highest; rewrite it")


def named(photometric: str | None) -> str:
    """A photometric interpretation, if it is one of DICOM's: a file may say anything, even who."""
    if photometric is None or photometric not in GREY + COLOUR + NEITHER:
        return "an unknown photometric interpretation"
    return photometric


def choose(decoder: Decoder, syntax: str) -> str:
    """The decoder to use. Raises ValueError with the packages to install where there is none."""
    wanted, packages = DECODERS[syntax]
    for name in wanted:
        if name in decoder.available_plugins:
            return name
    raise ValueError(
        f"no installed package decodes {decoder.UID.name}; pip install {' '.join(packages)}, or "
        "rewrite it uncompressed"
    )


def check_codestreams(dataset: Dataset) -> None:
    """Raises ValueError where a compressed frame is not what the header announces.

    Decoders take the size from the frame itself: a small image may carry a code of 60000x60000.
    """
    from pydicom.encaps import generate_frames

    rows, columns, count = claims(dataset)
    samples = whole(dataset, "SamplesPerPixel") or 1
    plain = rows * columns * samples * (whole(dataset, "BitsAllocated") or 0) // 8  # bytes
    rle = dataset.file_meta.TransferSyntaxUID == RLE
    table = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    encoded = generate_frames(
        dataset.PixelData,
        number_of_frames=count,
        extended_offsets=table if all(table) else None,
    )
    for code in encoded:
        if len(code) > 2 * plain + (1 << 16):
            raise ValueError(f"a frame of {columns}x{rows} pixels takes {len(code):,} bytes")
        if code[:2] == b"\xff\xd8" and END_OF_IMAGE not in code[-64:]:  # libjpeg makes up the rest
            raise ValueError("a compressed frame that is cut short (no end of image)")
        height, width = (rows, columns) if rle else codestream_size(code)
        if (height, width) != (rows, columns):
            raise ValueError(
                f"the header has {columns}x{rows} pixels, the compressed frame {width}x{height}"
            )


def codestream_size(code: bytes) -> tuple[int, int]:
    """Rows and columns by the frame's own word. Raises ValueError where it has none."""
    if code[:2] == b"\xff\xd8":  # JPEG, JPEG-LS
        at = 2
        while at + 9 <= len(code) and code[at] == 0xFF:
            if code[at + 1] in START_OF_FRAME:
                return big(code[at + 5 : at + 7]), big(code[at + 7 : at + 9])
            at += 2 + big(code[at + 2 : at + 4])
    at = code[:4096].find(CODESTREAM)  # bare, or inside the boxes of a JP2 file
    if 0 <= at <= len(code) - 24:
        right, bottom, left, top = (big(code[at + i : at + i + 4]) for i in (8, 12, 16, 20))
        return bottom - top, right - left
    raise ValueError("a compressed frame that is neither JPEG, JPEG-LS nor JPEG 2000")


def big(data: bytes) -> int:
    return int.from_bytes(data, "big")
