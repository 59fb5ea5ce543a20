"""The package `tensorrt`: its version without importing it, and a logger that keeps errors."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

VERSION = re.compile(r"""^__version__ = ["']([^"']+)["']""", re.MULTILINE)


def version_on_disk(package: str = "tensorrt") -> str | None:
    """The installed version as `__version__` states it, or None where no file of the package says.

    Importing it loads libraries of a gigabyte, which an engine that is refused for its version
    should not have to wait for. In the wheels of PyPI the module beside, `tensorrt_bindings`, says.
    """
    for module in (package, f"{package}_bindings"):
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            continue
        found = VERSION.search(Path(spec.origin).read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
    return None


def logger(trt: Any) -> Any:
    """One of the package `trt` that keeps the errors, oldest first, in `errors`."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(" ".join(message.split()))

    return Log()
