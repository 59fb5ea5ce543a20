"""Arguments of benchmarks, and errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from fastmrigan.errors import EXIT_OK, EXIT_USAGE, FastMriganError


def with_more(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line's options; what stands behind `--` as a list, `more`."""
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:end])
    options.more = given[end + 1 :]
    return options


def positive(text: str) -> int:
    """A whole number of at least 1, as argparse takes types."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1 is needed")
    return number


def in_one_line(run: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """The exit code of `run`; an error of ours, or of the disk, is one line and its own code."""
    try:
        run(options)
    except FastMriganError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    return EXIT_OK
