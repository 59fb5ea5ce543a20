"""What a file system can hold besides files: the walk names it and gets to its end."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import hostile_pictures

from fastmrigan.imaging.walker import walk

PICTURE = hostile_pictures.encoded(hostile_pictures.NOISE)
ODD_NAMES = (b"two\nlines.png", b"\x1b[31mred\x1b[0m.png", b"latin-\xe9.png", b"'; rm -r *.png")


def hostile_folder(root: Path) -> tuple[set[str], set[str]]:
    """Fills a folder; the names that a walk must refuse, and those it must find."""
    (root / "x.dcm").mkdir(parents=True)
    (root / "x.dcm" / "inside.png").write_bytes(PICTURE)
    (root / "loop").symlink_to(root)
    (root / "x.dcm" / "up").symlink_to("..")
    (root / "self.png").symlink_to("self.png")
    (root / "one.png").symlink_to("two.png")
    (root / "two.png").symlink_to("one.png")
    (root / "dead.dcm").symlink_to("/nowhere/at/all")
    os.mkfifo(root / "fifo.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(root)  # a socket's path may be 107 bytes long
        try:
            listener.bind("socket.dcm")
        finally:
            os.chdir(here)
    (root / "device.png").symlink_to("/dev/zero")
    found = {"x.dcm/inside.png"}
    for name in ODD_NAMES:
        (root / os.fsdecode(name)).write_bytes(PICTURE)
        found.add(os.fsdecode(name))
    refused = {"self.png", "one.png", "two.png", "dead.dcm", "fifo.png", "socket.dcm", "device.png"}
    if os.geteuid() != 0:  # root reads every folder
        (root / "shut").mkdir(mode=0)
        refused.add("shut")
    return refused, found


def test_the_walk_names_what_is_no_file(tmp_path: Path) -> None:
    refused, found = hostile_folder(tmp_path / "in")
    walked = walk(tmp_path / "in")
    assert {one.name for one in walked.refused} == refused
    assert {name for name, _ in walked.files} == found
    assert walked.ignored == {"linked folder": 2}
    assert all(str(one).isprintable() for one in walked.refused)


def test_folders_within_folders(tmp_path: Path) -> None:
    """1,200 of them are walked; 2,100 make paths that no system call takes: refused by name."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for depth in range(2100):
        if depth in (0, 1200):
            os.close(os.open("a.png", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    walked = walk(tmp_path)
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # deeper than pytest can clear away
    assert {name for name, _ in walked.files} == {"a.png", "d/" * 1200 + "a.png"}
    (refused,) = walked.refused
    assert refused.reason == "a folder that cannot be read (File name too long)"
