"""What the program says of itself."""

from __future__ import annotations

import re

import fastmrigan as package
from fastmrigan.cli import COMMANDS


def test_without_a_command_the_help_is_printed_as_it_stands(fastmrigan):
    bare, asked = fastmrigan(), fastmrigan("--help")
    assert (bare.returncode, asked.returncode) == (2, 0)
    assert (bare.stdout, bare.stderr) == (asked.stdout, "")
    for name in (*COMMANDS, "--version"):
        assert re.search(rf"^  {name} +[A-Z]", bare.stdout, re.MULTILINE), name


def test_the_version(fastmrigan):
    told = fastmrigan("--version")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == f"fastmrigan {package.__version__}\n"
