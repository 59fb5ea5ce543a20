"""The JSON document of a model file: what is said of the graph beside it."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmrigan.export.facts import GeneratorFacts
from fastmrigan.runtime.model_file import METADATA_KEY, ModelMetadata

if TYPE_CHECKING:
    import onnx
    import torch


def metadata_of(
    module: torch.nn.Module,
    facts: GeneratorFacts,
    parity: dict[str, Any],
    digest: str,
    *,
    precision: str,
    opset: int,
    rewrites: dict[str, int],
) -> ModelMetadata:
    """parity: the figures against PyTorch. digest: sha256 of the graph without metadata. rewrites:
    how many places of the graph each changed."""
    import onnx
    import torch

    import fastmrigan

    nncf = {"nncf": version("nncf")} if precision == "int8" else {}
    return ModelMetadata(
        task=facts.task,
        recipe=facts.recipe,
        source_contrast=facts.source_contrast,
        target_contrast=facts.target_contrast,
        latent_size=facts.latent_size,
        slice_size=facts.slice_size,
        grading=facts.grading or {},
        precision=precision,
        weights_sha256=weights_sha256(module),
        graph_sha256=digest,
        rewrites=rewrites,
        training_data=facts.training_data or {},
        training=facts.training or {},
        parity=parity,
        versions={
            "fastmrigan": fastmrigan.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "opset": str(opset),
            **nncf,
        },
    )


def with_metadata(model: onnx.ModelProto, document: dict[str, Any]) -> bytes:
    """The file's bytes: `model` with `document` as JSON under the metadata key "fastmrigan"."""
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(document, allow_nan=False)})
    return model.SerializeToString(deterministic=True)


def weights_sha256(module: torch.nn.Module) -> str:
    """sha256 over every entry of `module.state_dict()` in its order, buffers included: the line
    "<name> <dtype> <shape>\\n" in UTF-8 (e.g. "stem.weight torch.float32 (100, 512, 4, 4)"), then
    the values as little-endian bytes in C order. It names the weights PyTorch had, before batch
    norm was folded."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
