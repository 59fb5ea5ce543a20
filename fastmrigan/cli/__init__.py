"""The command line: one command a file, each a function named like its command.

Heavy imports stand inside the commands, so that `fastmrigan --help` and `fastmrigan info` are
quick and the torch-free commands stay torch-free.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from importlib import import_module
from typing import NoReturn

from fastmrigan.errors import (
    EXIT_BUG,
    EXIT_DISK_FULL,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PIPE_CLOSED,
    EXIT_USAGE,
    FastMriganError,
)
from fastmrigan.files import is_full

COMMANDS = (
    "phantom",
    "prepare",
    "deidentify",
    "train",
    "export",
    "info",
    "synth",
    "translate",
    "run",
    "verify",
    "send",
    "bench",
    "evaluate",
    "style-transfer",
    "demo",
)

ISSUES = "https://github.com/fastmrigan/fastmrigan/issues"


def build_app():  # type: ignore[no-untyped-def]
    import typer

    from fastmrigan.cli.version import before_any_command

    app = typer.Typer(
        name="fastmrigan",
        help="Synthetic brain-MRI slices, from training to bulk generation. "
        "For research; not for diagnosis.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(before_any_command)
    for name in COMMANDS:
        function = name.replace("-", "_")
        module = import_module(f"fastmrigan.cli.{function}")
        app.command(name)(getattr(module, function))
    return app


def main() -> None:
    """Runs the command line and turns every expected error into one line and an exit code."""
    import typer

    # The class of all of typer's own complaints (typer carries click inside or beside it).
    complaint = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a command may do better
    words = sys.argv[1:]
    try:
        code = build_app()(words or ["--help"], standalone_mode=False) or EXIT_OK
        if not words:
            code = EXIT_USAGE  # no command was given
        sys.stdout.flush()
    except FastMriganError as error:
        fail(said_by(error), error.exit_code)
    except complaint as error:  # type: ignore[misc]
        helped = " ".join(["fastmrigan", *(word for word in sys.argv[1:2] if word in COMMANDS)])
        fail(f"{one_line(error.format_message())} (see `{helped} --help`)", EXIT_USAGE)
    except (BrokenPipeError, SystemExit):  # typer leaves by SystemExit on a closed pipe alone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush
        sys.exit(EXIT_PIPE_CLOSED)
    except OSError as error:
        if is_full(error):
            fail(f"{where(error)}no space left; free some and run the same command", EXIT_DISK_FULL)
        if error.filename is None:
            fail_as_bug(error)
        fail(f"{where(error)}{error.strerror}; name a place you can read and write", EXIT_USAGE)
    except Exception as error:
        if str(error).startswith("FASTMRIGAN_ISA="):
            fail(str(error), EXIT_USAGE)
        fail_as_bug(error)
    if code == EXIT_INTERRUPTED:  # typer has caught the KeyboardInterrupt
        fail("interrupted; the same command does what is missing", code)
    sys.exit(code)


def where(error: OSError) -> str:
    return f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""


def said_by(error: FastMriganError) -> str:
    """Its message, in which what a library said over several lines is one."""
    cause = str(error.__cause__ or "")
    return str(error).replace(cause, one_line(cause)) if cause else str(error)


def one_line(text: str) -> str:
    """What a library says, without the line breaks and columns it says it in."""
    return " ".join(text.split())


def fail_as_bug(error: BaseException) -> NoReturn:
    if os.environ.get("FASTMRIGAN_DEBUG"):
        traceback.print_exception(error)
    fail(
        f"unexpected {type(error).__name__}: {one_line(str(error))} (a bug of ours: run again with "
        f"FASTMRIGAN_DEBUG=1 and report what it prints at {ISSUES})",
        EXIT_BUG,
    )


def fail(message: str, code: int) -> NoReturn:
    """Ends the process with one line, whatever names of files stand in it."""
    from fastmrigan.imaging.walker import printable

    print(f"fastmrigan: {printable(message)}", file=sys.stderr)
    sys.exit(code)
