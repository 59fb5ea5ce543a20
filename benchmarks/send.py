"""`fastmrigan send` on loopback: slices a second into a receiver that counts and drops.

    python benchmarks/send.py [--count 2000] [--rounds 5] [--quick] [--json FILE]

Slices are 256 x 256, 16 bits, MR: files of a folder, and .dcm members of tar shards. Receivers are
dcmtk's storescp, which stores them, Orthanc, which indexes them too (a fresh one each round: what
it holds it would not store again), and pynetdicom's SCP in a process of its own, which counts and
drops them; all with TCP_NODELAY. In every round each side sends all files: ours over 1, 2 and 4
associations, pynetdicom's `send_c_store` with data sets and with paths, dcmtk's storescu, alone and
four at once. Between them the limits: the same bytes over a bare socket, with an answer of one byte
for each file, and the encoding of the messages alone, pynetdicom's and ours. Every time runs from
nothing (headers unread, no association) until the last answer. Checks first that pynetdicom's
receiver got every byte.

The bar: 500 slices/s over our default associations into storescp and into Orthanc. pynetdicom's
receiver is one process of Python: how much of a processor it took is printed beside the rates, and
near 100 % the rate is the receiver's, not the sender's. Exits 6 below the bar.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from json_file import add_json_option, write_json

from fastmrigan.runtime.machine import processor

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
import dicom_servers as servers

BAR = 500.0
SIDE = 256
SHARD = 256
PDU = 1 << 18  # bytes; what `fastmrigan send` takes where the peer allows it
TITLE = "DROP"
STORESCU = shutil.which("storescu")


def receiver() -> None:
    """A process that drops what it is sent; each line on stdin asks for its counts so far."""
    from pynetdicom import AE, _config, evt
    from pynetdicom.sop_class import MRImageStorage, Verification

    _config.LOG_HANDLER_LEVEL = "none"
    counts = {"files": 0, "bytes": 0, "digest": 0}
    lock = threading.Lock()
    check = threading.Event()

    def store(event: evt.Event) -> int:
        content = event.request.DataSet.getbuffer()
        digest = (
            int.from_bytes(hashlib.sha256(content).digest()[:8], "big") if check.is_set() else 0
        )
        with lock:
            counts["files"] += 1
            counts["bytes"] += len(content)
            counts["digest"] ^= digest
        return 0x0000

    def opened(event: evt.Event) -> None:
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    ae = AE(TITLE)
    ae.maximum_pdu_size = 0
    ae.maximum_associations = 100
    ae.add_supported_context(Verification)
    ae.add_supported_context(MRImageStorage)
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_CONN_OPEN, opened)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    bare = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=drop, args=(bare,), daemon=True).start()
    print(server.server_address[1], bare.getsockname()[1], flush=True)
    for line in sys.stdin:
        if line.strip() == "check":
            check.set()
        print(json.dumps(counts), flush=True)
        if line.strip() == "reset":
            counts.update(files=0, bytes=0, digest=0)
            check.clear()
    os._exit(0)


def drop(bare: socket.socket) -> None:
    """Reads files of 8 bytes of length and content; answers each with one byte."""
    buffer = bytearray(1 << 20)
    while True:
        client, _ = bare.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client:
            while size := client.recv(8, socket.MSG_WAITALL):
                left = int.from_bytes(size, "big")
                while left:
                    left -= client.recv_into(buffer, min(left, len(buffer)))
                client.sendall(b"+")


class Receiver:
    """The receiving process, seen from here."""

    def __enter__(self) -> Receiver:
        command = [sys.executable, __file__, "--receive"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port, self.bare_port = map(int, self.process.stdout.readline().split())
        return self

    def ask(self, what: str) -> dict[str, int]:
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(10)


def make(root: Path, count: int) -> tuple[list[Path], list[bytes]]:
    """`count` slices under root/files and, the same ones, in shards under root/shards."""
    from fastmrigan.imaging.phantom.formats import SliceInfo, dicom_bytes
    from fastmrigan.imaging.send.source import Found, look

    rng = np.random.default_rng(1)
    signal = rng.random((SIDE, SIDE), np.float32)
    files, shards = root / "files", root / "shards"
    files.mkdir()
    shards.mkdir()
    paths, contents = [], []
    for first in range(0, count, SHARD):
        with tarfile.open(shards / f"shard-{first // SHARD:06}.tar", "w") as tar:
            for number in range(first, min(first + SHARD, count)):
                info = SliceInfo("benchmark", "t2", 1 + number // 100, number, 0.0, 1.0)
                content = dicom_bytes(signal, info)
                path = files / f"{number:09}.dcm"
                path.write_bytes(content)
                member = tarfile.TarInfo(path.name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                found = Found()
                look(path.name, path, found)
                paths.append(path)
                contents.append(found.items[0].read())
    return paths, contents


def ours(source: Path, to: str, associations: int) -> Callable[[], None]:
    from fastmrigan.imaging.send import Peer, SendOptions, send

    def run() -> None:
        with tempfile.TemporaryDirectory() as state, contextlib.redirect_stderr(io.StringIO()):
            options = SendOptions(associations=associations, state=Path(state))
            done = send(source, Peer.parse(to), options)
        assert not done.refused, done.refused[0]

    return run


def library(paths: list[Path], port: int, *, as_paths: bool) -> Callable[[], None]:
    """pynetdicom's own way: one association, `send_c_store`, TCP_NODELAY."""
    from pydicom import dcmread
    from pynetdicom import AE, _config, evt
    from pynetdicom.sop_class import MRImageStorage

    def opened(event: evt.Event) -> None:
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run() -> None:
        _config.STORE_SEND_CHUNKED_DATASET = as_paths
        ae = AE("LIBRARY")
        ae.add_requested_context(MRImageStorage, "1.2.840.10008.1.2.1")
        handlers = [(evt.EVT_CONN_OPEN, opened)]
        association = ae.associate("127.0.0.1", port, ae_title=TITLE, evt_handlers=handlers)
        for path in paths:
            status = association.send_c_store(path if as_paths else dcmread(path))
            assert status.Status == 0
        association.release()

    return run


def dcmtk(folder: Path, port: int, title: str = TITLE) -> Callable[[], None]:
    where = ["127.0.0.1", str(port), str(folder)]
    command = [STORESCU, "-aec", title, "-pdu", "131072", "+sd", *where]
    environment = os.environ | {"TCP_NODELAY": "1"}

    def run() -> None:
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)

    return run


def four_at_once(root: Path, paths: list[Path], port: int) -> Callable[[], None]:
    """storescu four times, a quarter of the files each."""
    environment = os.environ | {"TCP_NODELAY": "1"}
    commands = []
    for number in range(4):
        quarter = root / f"quarter-{number}"
        quarter.mkdir()
        for path in paths[number::4]:
            os.link(path, quarter / path.name)
        where = ["127.0.0.1", str(port), str(quarter)]
        commands.append([STORESCU, "-aec", TITLE, "-pdu", "131072", "+sd", *where])

    def run() -> None:
        started = [
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            for command in commands
        ]
        assert all(process.wait() == 0 for process in started)

    return run


def bare_copy(contents: list[bytes], port: int) -> Callable[[], None]:
    def run() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for content in contents:
                connection.sendall(len(content).to_bytes(8, "big") + content)
                assert connection.recv(1) == b"+"

    return run


def encode_alone(contents: list[bytes]) -> Callable[[], None]:
    """What pynetdicom computes for each message, and no socket."""
    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.pdu import P_DATA_TF

    def run() -> None:
        for content in contents:
            request, message = C_STORE(), C_STORE_RQ()
            request.MessageID, request.Priority = 1, 2
            request.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
            request.AffectedSOPInstanceUID = "1.2.3"
            request.DataSet = io.BytesIO(content)
            message.primitive_to_message(request)
            for part in message.encode_msg(1, PDU):
                P_DATA_TF(part).encode()

    return run


def our_encoding(contents: list[bytes]) -> Callable[[], None]:
    from fastmrigan.imaging.send.message import command_set, request

    def run() -> None:
        for content in contents:
            command = command_set("1.2.840.10008.5.1.4.1.1.4", "1.2.3", 1)
            for _ in request(1, command, content, PDU):
                pass

    return run


def seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def verify(receiver: Receiver, sides: dict[str, Callable[[], None]], contents: list[bytes]) -> None:
    """Every side that speaks DICOM must bring over every byte of every data set, once."""
    digest = 0
    for content in contents:
        digest ^= int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    wanted = {"files": len(contents), "bytes": sum(map(len, contents)), "digest": digest}
    for name, run in sides.items():
        receiver.ask("check")
        run()
        got = receiver.ask("reset")
        if got["files"] != wanted["files"] or (name.startswith("ours") and got != wanted):
            sys.exit(f"{name}: the receiver got {got} instead of {wanted}")


def processor_seconds(process: int) -> float:
    """That a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def into_orthanc(root: Path, files: Path, associations: int) -> float:
    """Seconds into a fresh Orthanc."""
    with servers.orthanc(Path(tempfile.mkdtemp(dir=root))) as server:
        return seconds(ours(files, str(server), associations))


def main() -> int:
    from fastmrigan.imaging.send import SendOptions

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="100 slices, one round")
    add_json_option(parser)
    parser.add_argument("--folder", help="where the files lie; default: the temporary folder")
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        receiver()
    count, rounds = (100, 1) if options.quick else (options.count, options.rounds)
    usual = SendOptions().associations
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder))
        there = stack.enter_context(Receiver())
        root = Path(folder)
        paths, contents = make(root, count)
        files, to = root / "files", f"{TITLE}@127.0.0.1:{there.port}"
        name_of_ours, held = f"ours, {usual} at once", []
        sides: dict[str, Any] = {
            f"ours, {n} at once": ours(files, to, n) for n in sorted({1, 2, 4, usual})
        }
        sides[f"{name_of_ours}, shards"] = ours(root / "shards", to, usual)
        sides["send_c_store, data sets"] = library(paths, there.port, as_paths=False)
        sides["send_c_store, paths"] = library(paths, there.port, as_paths=True)
        if STORESCU is not None:
            sides["dcmtk's storescu"] = dcmtk(files, there.port)
            sides["dcmtk's storescu, 4 at once"] = four_at_once(root, paths, there.port)
        verify(there, sides, contents)
        if STORESCU is not None and servers.STORESCP is not None:
            storescp = stack.enter_context(servers.storescp(root / "storescp", "--fork"))
            held.append(f"{name_of_ours}, to storescp")
            sides[held[-1]] = ours(files, str(storescp), usual)
            sides["dcmtk's storescu, to storescp"] = dcmtk(files, storescp.port, storescp.title)
        sides["limit: bare socket"] = bare_copy(contents, there.bare_port)
        sides["pynetdicom's encoding alone"] = encode_alone(contents)
        sides["our encoding alone"] = our_encoding(contents)
        to_orthanc = f"{name_of_ours}, to Orthanc"
        times: dict[str, list[float]] = {name: [] for name in sides}
        busy: dict[str, list[float]] = {name: [] for name in sides}  # the receiver's, of one core
        for number in range(rounds):
            for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
                before = processor_seconds(there.process.pid)
                times[name].append(seconds(sides[name]))
                used = processor_seconds(there.process.pid) - before
                busy[name].append(used / times[name][-1])
            if servers.ORTHANC is not None:
                times.setdefault(to_orthanc, []).append(into_orthanc(root, files, usual))
        if to_orthanc in times:
            held.append(to_orthanc)
    size = len(contents[0])
    print(f"{count:,} data sets of {size:,} bytes, {rounds} rounds, {os.cpu_count()} CPUs")
    rates = {name: [count / taken for taken in each] for name, each in times.items()}
    for name, each in rates.items():
        middle = statistics.median(each)
        share = statistics.median(busy.get(name, [0.0]))
        taken = f", {100 * share:.0f} % of a core of the receiver" if share > 0.02 else ""
        print(
            f"{name:30} median {middle:8,.0f} slices/s ({min(each):,.0f} to {max(each):,.0f}), "
            f"{middle * size / 1e6:8,.1f} MB/s{taken}"
        )
    missed = not held
    if missed:
        print(
            "neither storescp nor Orthanc is here (Debian: dcmtk, orthanc): nothing to hold it to"
        )
    for name in held:
        rate = statistics.median(rates[name])
        missed |= rate < BAR
        verdict = "met" if rate >= BAR else "MISSED"
        print(f"{name}: {rate:,.0f} slices/s, at least {BAR:.0f}: {verdict}")
    document = {"benchmark": "send", "cpu": processor(), "bytes": size, "bar": BAR, "held": held}
    write_json(options.json, document | {"slices_per_second": rates, "receiver_busy": busy})
    return 6 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
