"""Loads the TensorRT plugin through a package's own registry and makes plugins, one for each list
of fields; prints as JSON what came of it. In a process of its own, since a fault ends it.

    python plugin_registry.py PACKAGE LIBRARY '[[["epsilon", "float32", 1e-3]], …]'
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

import numpy as np

from fastmrigan.export.plugin import DOMAIN, OPERATOR, VERSION


def field(trt: Any, name: str, kind: str, value: Any) -> Any:
    """kind: "text" or a NumPy type."""
    if kind == "text":
        data = np.frombuffer(value.encode(), np.int8)
        return trt.PluginField(name, data, trt.PluginFieldType.CHAR)
    return trt.PluginField(
        name, np.array([value], kind), getattr(trt.PluginFieldType, kind.upper())
    )


def main(package: str, library: str, lists: str) -> None:
    trt = import_module(package)
    registry = trt.get_plugin_registry()  # no Runtime: without a driver TensorRT makes a bad one
    told: dict[str, Any] = {"version": trt.__version__}
    told["loaded"] = registry.load_library(library) is not None
    creator = registry.get_creator(OPERATOR, VERSION, DOMAIN)
    told["found"] = creator is not None
    if creator is not None:
        told["fields"] = [each.name for each in creator.field_names]
        told["made"] = [made(trt, creator, fields) for fields in json.loads(lists)]
    print(json.dumps(told))


def made(trt: Any, creator: Any, fields: list[list[Any]]) -> str | None:
    """The plugin's name, version and namespace as it tells them itself; None where none is made."""
    given = trt.PluginFieldCollection([field(trt, *each) for each in fields])
    plugin = creator.create_plugin("norm1", given, trt.TensorRTPhase.RUNTIME)
    if plugin is None:
        return None
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    return f"{core.plugin_namespace}::{core.plugin_name} {core.plugin_version}"


if __name__ == "__main__":
    main(*sys.argv[1:])
