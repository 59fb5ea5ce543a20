"""Small DICOM files for the tests of `imaging.send`, and what became of them."""

from __future__ import annotations

import io
import json
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)
from pynetdicom.dsutils import split_dataset

from fastmrigan.imaging.send import Limits, Peer, SendOptions, send

QUICK = Limits(timeout=20.0)
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def make(
    path: Path,
    number: int,
    *,
    sop_class: str = MRImageStorage,
    syntax: str = ExplicitVRLittleEndian,
    side: int = 16,
    **attributes: str,
) -> Path:
    """A small slice that says it is synthetic unless `attributes` say otherwise."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = sop_class, uid(number)
    for name, value in (attributes or {"SyntheticData": "YES"}).items():
        setattr(data, name, value)
    data.PatientName, data.PatientID = "Doe^Jane", "1"
    data.Rows = data.Columns = side
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    pixels = np.random.default_rng(number).integers(0, 4096, (side, side), np.uint16)
    data.PixelData = pixels.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    if syntax == RLELossless:
        data.compress(RLELossless, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def uid(number: int) -> str:
    return f"2.25.{1000 + number}"


def folder(root: Path, count: int, **options: str) -> Path:
    for number in range(count):
        make(root / f"{number}.dcm", number, **options)
    return root


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def data_set(path: Path) -> bytes:
    """What follows the file meta information, by pynetdicom's own reader."""
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def sent_to(recorder: object, source: Path, **options: object):
    options.setdefault("limits", QUICK)
    return send(source, Peer.parse(str(recorder)), SendOptions(**options))


def reasons(result) -> dict[str, str]:
    lines = result.rejects.read_text().splitlines() if result.rejects.exists() else []
    listed = {entry["name"]: entry["reason"] for entry in map(json.loads, lines)}
    assert listed == {refused.name: refused.reason for refused in result.refused}
    return listed


def comes_true(condition: Callable[[], object], seconds: float = 300.0) -> bool:
    """True as soon as the condition holds: the server's threads see some things a moment later."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def header(meta: bytes = b"", body: bytes = b"") -> bytes:
    return bytes(128) + b"DICM" + meta + body


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += bytes(len(value) % 2)
    return (
        group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr
        + len(value).to_bytes(2, "little") + value
    )  # fmt: skip


def meta(syntax: str) -> bytes:
    return element(2, 0x10, b"UI", syntax.encode())


def deflated(body: bytes) -> bytes:
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return machine.compress(body) + machine.flush()
