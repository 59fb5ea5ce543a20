"""Every transfer syntax of one image gives the same pixels, or says what is missing."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from dicom_files import STORED, dicom, enhanced, mr
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from fastmrigan.imaging.dicom import read_dicom, read_header
from fastmrigan.imaging.dicom.frames import DECODERS

PLAIN = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big-endian": "1.2.840.10008.1.2.2",
}
PACKED = {"RLE": RLELossless, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless}
LARGE = np.tile(STORED, (4, 3))  # [80, 72]: JPEG 2000's encoder wants 32 and more
KINDS = {  # bits allocated, bits stored, signed
    "8": (8, 8, 0),
    "12 in 16": (16, 12, 0),
    "16": (16, 16, 0),
    "signed 16": (16, 16, 1),
    "signed 12 in 16": (16, 12, 1),
}
HTJ2K = "1.2.840.10008.1.2.4.201"


def noise(bits: int, signed: int) -> np.ndarray:
    low = -(1 << (bits - 1)) if signed else 0
    return np.random.default_rng(bits).integers(low, low + (1 << bits), (67, 69))  # odd sizes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*PLAIN, *PACKED])
def test_lossless_syntaxes_keep_every_value(tmp_path: Path, name: str, kind: str) -> None:
    allocated, bits, signed = KINDS[kind]
    stored = noise(bits, signed)
    tags = {
        "BitsAllocated": allocated,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": signed,
    }
    path = tmp_path / "a.dcm"
    if name in PLAIN:
        dicom(path, stored, syntax=PLAIN[name], **tags)
    else:
        made = mr(stored, **tags)
        made.compress(PACKED[name])
        made.save_as(path, enforce_file_format=True)
    assert read_header(path).syntax == PLAIN.get(name) or PACKED.get(name)
    np.testing.assert_array_equal(read_dicom(path).slices[0], stored)


@pytest.mark.parametrize("name", PACKED)
def test_frames_of_a_compressed_enhanced_object(tmp_path: Path, name: str) -> None:
    stored = np.stack([LARGE, LARGE[::-1] + 1, LARGE * 3])
    made = enhanced(stored, (0, 4, 8))
    made.compress(PACKED[name])
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom(tmp_path / "a.dcm").slices, stored)


def high_throughput(code: bytes) -> bytes:
    """A JPEG 2000 code of empty packets as a high-throughput one (ISO 15444-15 A.2, A.4)."""
    size, style = code.index(b"\xff\x51"), code.index(b"\xff\x52")
    length = struct.unpack(">H", code[size + 2 : size + 4])[0]
    capabilities = b"\xff\x50" + struct.pack(">HIH", 8, 1 << 17, 0)
    code = bytearray(code)
    code[size + 4] |= 0x40  # Rsiz: extended capabilities are listed
    code[style + 12] |= 0x40  # code blocks in the high-throughput style
    end = size + 2 + length
    return bytes(code[:end]) + capabilities + bytes(code[end:])


def test_high_throughput_jpeg_2000(tmp_path: Path) -> None:
    """No encoder is at hand: all coefficients of a mid-grey image are 0, so its packets are empty.

    test_dicom_peers.py reads real ones.
    """
    made = mr(LARGE * 0 + 2048)
    made.compress(JPEG2000Lossless)
    (code,) = generate_frames(made.PixelData, number_of_frames=1)
    made.PixelData = encapsulate([high_throughput(code)])
    made.file_meta.TransferSyntaxUID = HTJ2K
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.all(read_dicom(tmp_path / "a.dcm").slices == 2048)


@pytest.mark.parametrize("syntax", DECODERS)
def test_a_missing_decoder_is_named_with_its_package(
    tmp_path: Path, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mr(STORED)
    made.compress(RLELossless)
    made.file_meta.TransferSyntaxUID = syntax
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    monkeypatch.setattr(Decoder, "available_plugins", ("gdcm", "pillow"))
    package = DECODERS[syntax][1][-1]
    reason = f"^no installed package decodes .*; pip install .*{package}, or rewrite"
    with pytest.raises(ValueError, match=reason):
        read_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize("name", ["JPEG-LS", "JPEG 2000"])
def test_a_code_larger_than_its_header_is_not_decoded(tmp_path: Path, name: str) -> None:
    large = mr(np.zeros((900, 1000), int))
    large.compress(PACKED[name])
    large.Rows, large.Columns = 64, 64
    large.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match=r"has 64x64 pixels, the compressed frame 1000x900$"):
        read_dicom(tmp_path / "a.dcm")


def test_a_code_without_its_end_is_not_decoded(tmp_path: Path) -> None:
    """libjpeg and CharLS would make up the rest of the picture."""
    made = mr(noise(12, 0))
    made.compress(JPEGLSLossless)
    (code,) = generate_frames(made.PixelData, number_of_frames=1)
    made.PixelData = encapsulate([code[: len(code) // 2]])
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match=r"frame that is cut short \(no end of image\)$"):
        read_dicom(tmp_path / "a.dcm")


def test_fewer_frames_than_announced(tmp_path: Path) -> None:
    made = enhanced(np.stack([STORED] * 3), (0, 4, 8))
    made.compress(RLELossless)
    made.NumberOfFrames = 4
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match="frames"):
        read_dicom(tmp_path / "a.dcm")


def test_broken_codes_are_refused_in_one_line(tmp_path: Path) -> None:
    reasons = []
    for name, syntax in PACKED.items():
        made = mr(noise(12, 0))
        made.compress(syntax)
        made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        data = (tmp_path / "a.dcm").read_bytes()
        at = data.rindex(b"\xe0\x7f\x10\x00") + 60
        (tmp_path / "b.dcm").write_bytes(data[:at] + bytes(200) + data[at + 200 :])
        try:
            slices = read_dicom(tmp_path / "b.dcm").slices
        except ValueError as error:
            reasons.append(str(error))
        else:  # a code may be damaged without notice
            assert slices.shape == (1, 67, 69), name
    assert reasons
    assert not any("\n" in reason for reason in reasons)


def test_the_data_set_can_be_written_again(tmp_path: Path) -> None:
    """What `open_bounded` gives is a whole pydicom data set, in its own syntax."""
    from fastmrigan.imaging.dicom import open_bounded

    for name, syntax in PLAIN.items():
        path = dicom(
            tmp_path / f"{name}.dcm",
            syntax=syntax,
            PatientName="Müller^Ä",
            SpecificCharacterSet="ISO_IR 100",
        )
        open_bounded(path).save_as(tmp_path / "again.dcm", enforce_file_format=True)
        assert dcmread(tmp_path / "again.dcm") == dcmread(path)
