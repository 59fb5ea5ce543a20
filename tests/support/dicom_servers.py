"""DICOM peers for tests and benchmarks: dcmtk's storescp and Orthanc, on free loopback ports.

Each is a context manager over a process of its own that keeps everything in one folder and is
ended for certain: with the block, and by the kernel should the starting process die first.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STORESCP = shutil.which("storescp")
ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
ABSENT = "not installed (Debian: apt-get install {})"
START_SECONDS = 30.0
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class Server:
    """A running peer."""

    title: str
    port: int
    folder: Path  # of its own: what it stores, its log
    http_port: int = 0  # Orthanc's REST interface

    def __str__(self) -> str:
        return f"{self.title}@127.0.0.1:{self.port}"

    def get(self, path: str) -> bytes:
        """Orthanc's answer to GET `path`. Past any proxy of the environment."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"Orthanc: GET {path}: {answer.status}")
            return content
        finally:
            connection.close()

    def stored(self) -> list[bytes]:
        """The files that Orthanc holds, as it gives them out."""
        numbers = json.loads(self.get("/instances"))
        return [self.get(f"/instances/{number}/file") for number in numbers]


@contextmanager
def storescp(folder: Path, *options: str, title: str = "STORESCP") -> Iterator[Server]:
    """dcmtk's storescp: keeps each data set as it came (+B), of every transfer syntax (+xa).

    What it has stored lies in `folder`/stored. It takes one association at a time unless `options`
    say --fork.
    """
    assert STORESCP is not None, "ask STORESCP first"
    stored = folder / "stored"
    stored.mkdir(parents=True)
    port = free_port()
    keep = ["--aetitle", title, "+xa", "+B", "-od", str(stored)]
    with process([STORESCP, *keep, *options, str(port)], folder, port):
        yield Server(title, port, folder)


@contextmanager
def orthanc(folder: Path, title: str = "ORTHANC") -> Iterator[Server]:
    """Orthanc with its store and index in `folder`, no plugins, no other host let in."""
    assert ORTHANC is not None, "ask ORTHANC first"
    folder.mkdir(parents=True, exist_ok=True)
    port, http_port = free_port(), free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "TemporaryDirectory": str(folder),
        "Plugins": [],
        "DicomAet": title,
        "DicomPort": port,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowStore": True,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "WebDavEnabled": False,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    with process([ORTHANC, str(path)], folder, port, http_port):
        yield Server(title, port, folder, http_port)


@contextmanager
def process(command: Sequence[str], folder: Path, *ports: int) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server until the block ends; it is up once it listens on all its ports."""
    log = folder / "log.txt"
    with log.open("wb") as output:
        running = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TCP_NODELAY": "1"},  # dcmtk leaves Nagle's delays in otherwise
            start_new_session=True,  # a group of its own, which its children share
            preexec_fn=die_with_parent,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        for port in ports:
            while not listens(port):
                if running.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} does not start: {log.read_text()[-2000:]}")
                time.sleep(0.02)
        yield running
    finally:
        end(running)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def end(running: subprocess.Popen[bytes]) -> None:
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGTERM)  # the children that --fork makes too
        try:
            running.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """True where something listens: told by the kernel, so that no server is disturbed."""
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            if state == "0A" and local.endswith(wanted):
                return True
    return False
