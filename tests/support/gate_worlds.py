"""A generator whose slices the gate must refuse for each of its reasons, and what came of them."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import onnx
import tiny_model as tiny
from onnx import TensorProto, helper, numpy_helper

from fastmrigan.jobs import receipts
from fastmrigan.jobs.gate import GateOptions
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.runtime import load
from fastmrigan.runtime.latents import normal_latents

SIDE = 32
COUNT, SHARD = 60, 16
# What the model makes of a latent, by which of its 8 numbers is the largest
MAKES = ("head", "head", "blank", "saturated", "outlier", "copy", "head", "copy")


def stretched(x: np.ndarray) -> np.ndarray:
    """Each slice [N, H, W] to the whole of [-1, 1], as `prepare` does with --grading minmax."""
    low, high = x.min(axis=(1, 2), keepdims=True), x.max(axis=(1, 2), keepdims=True)
    return (2 * (x - low) / (high - low) - 1).astype(np.float32)


def bank_graph(bank: np.ndarray) -> onnx.ModelProto:
    """latent -> bank[argmax(latent)], a slice of the bank [8, H, W]."""
    side = bank.shape[-1]
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", tiny.LATENT])]
    output = helper.make_tensor_value_info("slice", TensorProto.FLOAT, ["batch", 1, side, side])
    nodes = [
        helper.make_node("ArgMax", ["latent"], ["which"], axis=1, keepdims=0),
        helper.make_node("Gather", ["bank", "which"], ["slice"], axis=0),
    ]
    graph = helper.make_graph(
        nodes, "bank", inputs, [output], [numpy_helper.from_array(bank[:, None], "bank")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def model_of(write_model, world, **changes: object) -> Path:
    facts = {"slice_size": [SIDE, SIDE], "target_contrast": "t2"}
    facts["training_data"] = {"fingerprint": world.dataset.info.fingerprint}
    return write_model(tiny.metadata(**(facts | changes)), bank_graph(world.bank), "bank.onnx")


def expected(seed: int, count: int) -> list[int]:
    """Which slice of the bank each slice is."""
    return normal_latents(seed, 0, count, tiny.LATENT).argmax(axis=1).tolist()


def refused(seed: int = 7, count: int = COUNT) -> dict[int, str]:
    return {i: MAKES[k] for i, k in enumerate(expected(seed, count)) if MAKES[k] != "head"}


def members(folder: Path) -> dict[str, bytes]:
    """What lies in the shards of a folder, by name, without our readers."""
    found = {}
    for path in sorted(folder.glob("shard-*")):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                found |= {m.name: tar.extractfile(m).read() for m in tar}
        elif path.is_dir():
            found |= {file.name: file.read_bytes() for file in sorted(path.iterdir())}
        else:
            with np.load(path) as arrays:
                slices = zip(arrays["index"].tolist(), arrays["slices"], strict=True)
                found |= {str(index): x.tobytes() for index, x in slices}
    return found


def everything(folder: Path) -> dict[str, str]:
    """sha256 of every file of a job's folder, but for the lock and what tells of a run's times."""
    passed_over = {".lock", "status.json", "log.jsonl", "job.html"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in passed_over
    }


def verdicts(folder: Path, action: str = "drop") -> dict[int, str]:
    found: dict[int, str] = {}
    for path in sorted((folder / "receipts").glob("*.json")):
        receipt = receipts.read(path)
        kept, other = (receipt.left_out, receipt.flagged)[:: 1 if action == "drop" else -1]
        assert not other
        found |= kept
    return found


def make(model: Path, out: Path, gate: GateOptions | None, **settings: object) -> Path:
    given = {"seed": 7, "shard_size": SHARD} | settings
    synthesise(load(model, precision="fp32", batch=8), JobOptions(out, COUNT, **given), gate)
    return out


def negative(write_model, **changes: object) -> Path:
    document = tiny.metadata(task="translate", latent_size=None, **changes)
    return write_model(document, tiny.tiny_graph("translate"), "negative.onnx")
