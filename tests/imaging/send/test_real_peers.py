"""What real peers store of what `fastmrigan send` sends: dcmtk's storescp and Orthanc."""

from __future__ import annotations

import hashlib
import io
import json
import statistics
import tarfile
import time
from pathlib import Path

import dicom_servers
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pynetdicom.dsutils import split_dataset

from fastmrigan.imaging.emit.dicom import write_series
from fastmrigan.imaging.emit.header import SeriesHeader
from fastmrigan.imaging.phantom import PhantomSettings
from fastmrigan.imaging.phantom.writer import write_phantom
from fastmrigan.imaging.position import SlicePosition
from fastmrigan.imaging.send import Limits, Peer, SendOptions, echo, send
from fastmrigan.imaging.send.association import Connection
from fastmrigan.imaging.send.source import Found, look
from fastmrigan.imaging.send.transport import QUICK_ACK

pytestmark = pytest.mark.slow
needs_storescp = pytest.mark.skipif(
    dicom_servers.STORESCP is None, reason="storescp " + dicom_servers.ABSENT.format("dcmtk")
)
needs_orthanc = pytest.mark.skipif(
    dicom_servers.ORTHANC is None, reason="Orthanc " + dicom_servers.ABSENT.format("orthanc")
)
OPTIONS = SendOptions(limits=Limits(timeout=20.0))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DICOM of every contrast the phantom has, in four transfer syntaxes."""
    root = tmp_path_factory.mktemp("phantom") / "dicom"
    settings = PhantomSettings(64, ("t1", "t2", "pd", "flair", "ct"), seed=3)
    write_phantom(root, 8, settings, file_format="dicom")
    paths = sorted(root.rglob("*.dcm"))
    assert len(paths) >= 40
    for path, syntax in zip(
        paths,
        (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless) * 4,
        strict=False,
    ):
        data = dcmread(path)
        if syntax == RLELossless:
            data.compress(RLELossless, generate_instance_uid=False)
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(path, enforce_file_format=True)
    assert dcmread(paths[-1]).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    return root


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `imaging.emit` writes: an MR and a CT series as files, an oblique one in a shard."""
    root = tmp_path_factory.mktemp("emitted") / "out"
    rng = np.random.default_rng(5)
    tilted = (np.cos(0.3), np.sin(0.3), 0.0), (-np.sin(0.3), np.cos(0.3), 0.0)
    straight = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    for number, (contrast, (row, column)) in enumerate(
        [("flair", straight), ("ct", straight), ("t1", tilted)], 1
    ):
        places = [
            SlicePosition((0.0, 0.0, 5.0 * i), row, column, (0.9, 0.9), 5.0) for i in range(9)
        ]
        pixels = rng.integers(0, 65536, (9, 48, 40), dtype=np.uint16)
        header = SeriesHeader(
            "run",
            contrast,
            "patient",
            number,
            (48, 40),
            places[0],
            "recipe",
            "0" * 64,
            contrast,
            "x",
        )
        write_series(root / contrast, header, pixels, places)
    with tarfile.open(root / "shard-000000.tar", "w") as tar:
        for path in sorted((root / "t1").iterdir()):
            tar.add(path, path.name)
    return root


def sources(root: Path) -> dict[str, Path]:
    return {str(dcmread(p, stop_before_pixels=True).SOPInstanceUID): p for p in root.rglob("*.dcm")}


def pixels(data: Dataset) -> str:
    return hashlib.sha256(data.pixel_array.tobytes()).hexdigest()


def content(path: Path) -> bytes:
    """The data set as it lies in its file."""
    return path.read_bytes()[split_dataset(path)[1] :]


@needs_storescp
def test_storescp_keeps_every_byte(phantom: Path, tmp_path: Path) -> None:
    with dicom_servers.storescp(tmp_path / "scp") as server:
        peer = Peer.parse(str(server))
        assert echo(peer, OPTIONS.limits) < 20
        result = send(phantom, peer, SendOptions(OPTIONS.limits, state=tmp_path / "state"))
        assert result.refused == []
        assert result.associations == 1  # it takes one at a time; the others went home
    sent, stored = sources(phantom), list((tmp_path / "scp" / "stored").iterdir())
    assert result.sent == len(sent) == len(stored)
    for path in stored:
        data = dcmread(path)
        original = sent[str(data.SOPInstanceUID)]
        assert content(path) == content(original)
        assert pixels(data) == pixels(dcmread(original))


@needs_storescp
@pytest.mark.skipif(QUICK_ACK is None, reason="the kernel has no TCP_QUICKACK")
def test_no_answer_is_held_back(emitted: Path, tmp_path: Path) -> None:
    found, seconds = Found(), []
    look("shard-000000.tar", emitted / "shard-000000.tar", found)
    with dicom_servers.storescp(tmp_path / "scp") as server:  # Nagle's algorithm is on there
        connection = Connection(Peer.parse(str(server)), [found.items[0].context], OPTIONS.limits)
        connection.open()
        for item in found.items:
            began = time.monotonic()
            assert connection.store(item, item.read()).stored
            seconds.append(time.monotonic() - began)
        connection.close()
    assert statistics.median(seconds) < 0.03  # a delayed acknowledgement takes 0.04


@needs_storescp
def test_storescp_keeps_what_emit_writes(emitted: Path, tmp_path: Path) -> None:
    with dicom_servers.storescp(tmp_path / "scp", "--fork") as server:
        state = tmp_path / "state"
        for source in ("flair", "ct", "shard-000000.tar"):
            options = SendOptions(OPTIONS.limits, state=state)
            assert send(emitted / source, Peer.parse(str(server)), options).refused == []
    stored = list((tmp_path / "scp" / "stored").iterdir())
    kept = {str(dcmread(path).SOPInstanceUID): content(path) for path in stored}
    assert kept == {instance: content(path) for instance, path in sources(emitted).items()}
    assert len(kept) == 27


@needs_orthanc
def test_orthanc_stores_what_emit_writes(emitted: Path, tmp_path: Path) -> None:
    with dicom_servers.orthanc(tmp_path / "orthanc") as server:
        result = send(
            emitted, Peer.parse(str(server)), SendOptions(OPTIONS.limits, state=tmp_path / "state")
        )
        stored = [dcmread(io.BytesIO(file)) for file in server.stored()]
        counts = json.loads(server.get("/statistics"))
    assert result.refused == []
    assert result.sent == 36  # the nine of the shard lie beside it as files too
    sent = {instance: pixels(dcmread(path)) for instance, path in sources(emitted).items()}
    assert {str(data.SOPInstanceUID): pixels(data) for data in stored} == sent
    assert (counts["CountSeries"], counts["CountInstances"]) == (3, 27)


@needs_storescp
def test_storescp_with_several_associations(phantom: Path, tmp_path: Path) -> None:
    """A second for each file: or the first association sends all before the last stands."""
    with dicom_servers.storescp(tmp_path / "scp", "--fork", "--sleep-after", "1") as server:
        options = SendOptions(OPTIONS.limits, associations=3, state=tmp_path / "state")
        result = send(phantom, Peer.parse(str(server)), options)
    assert result.sent == len(list((tmp_path / "scp" / "stored").iterdir()))
    assert result.associations == 3


@needs_storescp
def test_storescp_that_refuses_some(phantom: Path, tmp_path: Path) -> None:
    with dicom_servers.storescp(tmp_path / "scp", "+x=") as server:  # uncompressed only
        state = tmp_path / "state"
        result = send(phantom, Peer.parse(str(server)), SendOptions(OPTIONS.limits, state=state))
    syntaxes = {dcmread(p).file_meta.TransferSyntaxUID for p in phantom.rglob("*.dcm")}
    assert RLELossless in syntaxes
    for refused in result.refused:
        assert "it does not take this transfer syntax" in refused.reason
    kept = {dcmread(p).file_meta.TransferSyntaxUID for p in (tmp_path / "scp/stored").iterdir()}
    assert RLELossless not in kept
    assert result.sent + len(result.refused) == len(sources(phantom))


@needs_orthanc
def test_orthanc_stores_the_same_pixels(phantom: Path, tmp_path: Path) -> None:
    with dicom_servers.orthanc(tmp_path / "orthanc") as server:
        peer = Peer.parse(str(server))
        assert echo(peer, OPTIONS.limits) < 20
        result = send(phantom, peer, SendOptions(OPTIONS.limits, state=tmp_path / "state"))
        assert result.refused == []
        stored = [dcmread(io.BytesIO(file)) for file in server.stored()]
        counts = json.loads(server.get("/statistics"))
    sent = sources(phantom)
    assert result.sent == len(sent) == len(stored) == counts["CountInstances"]
    assert counts["CountSeries"] == len({dcmread(p).SeriesInstanceUID for p in sent.values()})
    for data in stored:
        original = dcmread(sent[str(data.SOPInstanceUID)])
        assert data.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert pixels(data) == pixels(original)
        assert data.SyntheticData == "YES"


@needs_orthanc
def test_orthanc_refuses_another_title(tmp_path: Path) -> None:
    with dicom_servers.orthanc(tmp_path / "orthanc") as server:
        peer = Peer.parse(f"WRONG@127.0.0.1:{server.port}")
        with pytest.raises(Exception, match="Called AE title not recognised"):
            echo(peer, OPTIONS.limits)
