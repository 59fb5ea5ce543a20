"""What a feature network in an .onnx file takes and gives, checked before an engine runs it."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.runtime import onnx_wire
from fastmrigan.runtime.backends.base import reason
from fastmrigan.runtime.backends.openvino import the_core

PROBE_SIDES = (64, 96)  # slice sizes a network without a fixed one is asked about


def read_graph(path: Path) -> bytes:
    """The bytes of an .onnx file in one piece. Raises UsageError or ModelRefused."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--features {path}: cannot be read: {error.strerror}") from error
    try:
        onnx_wire.metadata(data)
        external = onnx_wire.has_external_data(data)
    except onnx_wire.Malformed as error:
        raise ModelRefused(f"{path}: not a whole ONNX file ({error}); export it again") from error
    if external:
        raise ModelRefused(
            f"{path}: keeps weights in another file (ONNX external data), which is never loaded; "
            "save it again as one file"
        )
    return data


@dataclass(frozen=True)
class Face:
    """What goes into and comes out of a feature network."""

    batch: int | None  # None: any
    channels: int  # 1 or 3
    height: int | None  # None: any
    width: int | None
    dimension: int


def face_of(path: Path, data: bytes) -> Face:
    """Raises ModelRefused where the graph is no feature network, with what it is instead."""

    def refuse(fact: str) -> ModelRefused:
        return ModelRefused(
            f"{path}: no feature network ({fact}); expected one float32 input [N, 1 or 3, H, W] "
            "and one float32 output [N, …]"
        )

    try:
        graph = the_core().read_model(io.BytesIO(data))
    except Exception as error:  # the engine raises its own kinds
        raise ModelRefused(f"{path}: cannot be opened: {reason(error)}") from error
    if (len(graph.inputs), len(graph.outputs)) != (1, 1):
        raise refuse(f"it has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    for name, port in (("input", graph.input(0)), ("output", graph.output(0))):
        kind = port.get_element_type().get_type_name()
        if kind != "f32":
            raise refuse(f"its {name} is {kind}")
    shape = graph.input(0).partial_shape
    if shape.rank.is_dynamic or len(shape) != 4:
        raise refuse(f"its input is {shape}")
    fixed = [None if each.is_dynamic else each.get_length() for each in shape]
    batch, channels, height, width = fixed
    if channels not in (1, 3):
        raise refuse(f"its input is {shape}")
    found = set()
    for side in PROBE_SIDES:
        asked = [batch or 2, channels, height or side, width or side]
        try:
            graph.reshape({graph.input(0): asked})
        except Exception as error:
            raise refuse(f"it takes no input {asked}: {reason(error)}") from error
        out = graph.output(0).partial_shape
        if out.is_dynamic or len(out) < 2 or out[0].get_length() != asked[0]:
            raise refuse(f"its output is {out} for an input {asked}")
        found.add(math.prod(each.get_length() for each in list(out)[1:]))
    if len(found) != 1:
        raise refuse("it makes more features of larger slices; give its input a fixed size")
    return Face(batch, channels, height, width, found.pop())
