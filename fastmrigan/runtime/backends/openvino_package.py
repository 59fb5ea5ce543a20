"""Importing openvino without its model converter."""

from __future__ import annotations

import sys
from typing import Any

CONVERTER = "openvino.tools.ovc"


def openvino_package() -> Any:
    """The package openvino; `openvino.convert_model` is imported when it is first asked for.

    openvino imports its converter at once, and goes on without where that is not installed. The
    converter takes two thirds of the import (2026.4) of a process that should show its first
    slice in 0.6 s, so while openvino is imported it is told that there is none.
    """
    if "openvino" in sys.modules or CONVERTER in sys.modules:
        import openvino

        return openvino
    sys.modules[CONVERTER] = None  # type: ignore[assignment]  # how Python says "not there"
    try:
        import openvino
    finally:
        del sys.modules[CONVERTER]
    if not hasattr(openvino, "convert_model"):
        openvino.__getattr__ = _converter
    return openvino


def _converter(name: str) -> Any:
    """What module openvino answers for a name that it does not have (PEP 562)."""
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    import openvino
    from openvino.tools.ovc import convert_model

    openvino.convert_model = convert_model
    return convert_model
