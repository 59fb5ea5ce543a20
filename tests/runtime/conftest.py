"""Model files small enough to write, compile and run in a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from tiny_model import metadata, tiny_graph


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """write_model(document, graph=…) writes a model file; document None leaves metadata out."""

    def write(
        document: object = "default",
        graph: onnx.ModelProto | None = None,
        name: str = "tiny.onnx",
    ) -> Path:
        model = graph or tiny_graph()
        if document is not None:
            entry = model.metadata_props.add()
            entry.key = "fastmrigan"
            text = metadata() if document == "default" else document
            entry.value = text if isinstance(text, str) else json.dumps(text)
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return write
