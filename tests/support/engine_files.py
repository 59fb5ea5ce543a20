"""Engine files as export writes them, of bytes that are no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastmrigan.export.tensorrt import EngineOptions, sidecar
from fastmrigan.runtime.engine_file import rendered, sidecar_path
from fastmrigan.runtime.model_file import read_model_file

VERSION, COMPUTE = "11.1.0.106", "9.0"
MAGIC = b"stand-in engine"


def engine_bytes(size: int = 4096) -> bytes:
    return MAGIC + np.random.default_rng(0).bytes(size - len(MAGIC))


def write_engine(
    model: Path,
    *,
    size: int = 4096,
    buckets: tuple[int, ...] = (1, 4),
    version_compatible: bool = False,
    **facts: Any,
) -> Path:
    """MODEL.engine and its sidecar, beside the model file; `facts` replace what it would say."""
    engine = engine_bytes(size)
    options = EngineOptions("tensorrt", buckets, version_compatible=version_compatible)
    told = {"version": VERSION, "compute": COMPUTE}
    document = sidecar(read_model_file(model), engine, options, told) | facts
    out = model.with_suffix(".engine")
    for path, content in ((out, engine), (sidecar_path(out), rendered(document))):
        path.write_bytes(content)
        path.chmod(0o600)
    return out
