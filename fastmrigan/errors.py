"""The errors a user can meet, each with the exit code the command line ends with.

Every message is one line that names the file (or option), the fact and the remedy.
"""

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_SOME_REJECTED = 3
EXIT_DISK_FULL = 4
EXIT_MODEL_REFUSED = 5
EXIT_CHECK_FAILED = 6
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141  # `fastmrigan … | head`, as a shell says it


class FastMriganError(Exception):
    """Base of every expected error; `exit_code` is what the process ends with."""

    exit_code = EXIT_USAGE


class UsageError(FastMriganError):
    """A wrong option, an unreadable or unwritable path, an unknown name."""

    exit_code = EXIT_USAGE


class InputRejected(FastMriganError):
    """An input image, series or data set that cannot be used."""

    exit_code = EXIT_SOME_REJECTED


class DiskFull(FastMriganError):
    """The target ran out of space; the same command resumes once there is room."""

    exit_code = EXIT_DISK_FULL


class ModelRefused(FastMriganError):
    """A model file, checkpoint or engine that must not be used."""

    exit_code = EXIT_MODEL_REFUSED


class CheckFailed(FastMriganError):
    """A parity, verification, budget or quality check that did not hold."""

    exit_code = EXIT_CHECK_FAILED


class Interrupted(FastMriganError):
    """Stopped by Ctrl-C or SIGTERM with everything finished so far kept."""

    exit_code = EXIT_INTERRUPTED


class MissingDependency(UsageError):
    """An optional package is absent; the message carries the line that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: "
            f"pip install 'fastmrigan[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[UsageError], tuple[object, ...]]:
        """To another process it comes as what it is to a user."""
        return UsageError, self.args
