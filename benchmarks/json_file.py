"""The --json FILE of a benchmark: the figures that it prints."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", type=_writable, metavar="FILE", help="write the figures there too"
    )


def _writable(text: str) -> Path:
    """Asked before anything is measured: an hour's figures must not be lost to a wrong name."""
    path = Path(text)
    try:
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"{text}: is a folder; name a file in it")
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"{path.parent}: no such folder; make it first")
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}; name another") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{path.parent}: cannot be written to; name another")
    return path


def write_json(path: Path | None, document: object) -> None:
    """Whole or not at all; called after every row, so that a run cut short keeps what it has."""
    if path is None:
        return
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(aside, path)
