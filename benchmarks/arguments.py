"""Arguments of a benchmark that has a command of ours run with further options."""

from __future__ import annotations

import argparse
import sys


def with_more(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line's options; what stands behind `--` as a list, `more`."""
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:end])
    options.more = given[end + 1 :]
    return options
