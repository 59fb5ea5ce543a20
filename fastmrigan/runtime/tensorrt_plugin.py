"""Where the TensorRT plugin is: the shared library that csrc/tensorrt_plugin makes.

An engine built with it can be deserialised only where it is loaded first.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastmrigan import _core
from fastmrigan.errors import UsageError

LIBRARY = "libfastmrigan_tensorrt_plugin.so"
VARIABLE = "FASTMRIGAN_TENSORRT_PLUGIN"


def plugin_library(purpose: str) -> Path:
    """The file that the environment variable VARIABLE names, else the one installed beside the
    native core. purpose: what needs it, for the message.

    Raises UsageError where there is none.
    """
    named = os.environ.get(VARIABLE)
    path = Path(named) if named else Path(_core.__file__).with_name(LIBRARY)
    if path.is_file():
        return path.resolve()
    if named:
        raise UsageError(f"{purpose}: {VARIABLE} names {named}, which is no file")
    raise UsageError(
        f"{purpose} needs {LIBRARY}, which is not installed: install fastmrigan with -C "
        "cmake.define.FASTMRIGAN_TENSORRT_PLUGIN=ON -C cmake.define.TENSORRT_INCLUDE_DIR=…, or "
        f"name the library with {VARIABLE}=…"
    )
