"""The few facts the runtime needs from an .onnx file before it trusts an engine with it.

An ONNX file is one protobuf message. The runtime reads its top-level metadata and looks for
references to external data without the onnx package, whose import (0.2 s, 13 MB) would be a fifth
of the time to the first slice. Field numbers are those of onnx.proto3; the wire format is
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Which fields of a message hold another message that can lead to a tensor.
NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
MODEL_GRAPH, MODEL_METADATA = 7, 14
ENTRY_KEY, ENTRY_VALUE = 1, 2
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 13, 14
MAX_DEPTH = 64


class Malformed(ValueError):
    """The bytes are not a well-formed ONNX model."""


def metadata(data: bytes) -> dict[str, str]:
    """The model's metadata_props. Raises Malformed."""
    entries: dict[str, str] = {}
    has_graph = False
    for number, _, value, _ in _fields(memoryview(data)):
        has_graph |= number == MODEL_GRAPH
        if number == MODEL_METADATA and isinstance(value, memoryview):
            entry = {n: v for n, _, v, _ in _fields(value) if isinstance(v, memoryview)}
            key, text = entry.get(ENTRY_KEY, b""), entry.get(ENTRY_VALUE, b"")
            entries[bytes(key).decode("utf-8", "replace")] = bytes(text).decode("utf-8", "replace")
    if not has_graph:
        raise Malformed("it holds no graph")
    return entries


def graph_sha256(data: bytes) -> str:
    """sha256 of everything but the metadata: each other top-level field, whole, in file order.

    Raises Malformed.
    """
    total = hashlib.sha256()
    message, start = memoryview(data), 0
    for number, _, _, end in _fields(message):
        if number != MODEL_METADATA:
            total.update(message[start:end])
        start = end
    return total.hexdigest()


def has_external_data(data: bytes) -> bool:
    """True where any tensor of the model keeps its values in another file. Raises Malformed."""
    return _external(memoryview(data), "model", 0)


def _external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise Malformed(f"graphs nested deeper than {MAX_DEPTH}")
    for number, wire, value, _ in _fields(message):
        if kind == "tensor":
            if number == TENSOR_EXTERNAL_DATA or (number == TENSOR_DATA_LOCATION and value == 1):
                return True
        elif wire == BYTES and number in NESTED[kind]:
            assert isinstance(value, memoryview)
            if _external(value, NESTED[kind][number], depth + 1):
                return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview, int]]:
    """(field number, wire type, value, where it ends) of each field, in order."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview
        if wire == VARINT:
            value, at = _varint(message, at)
        elif wire in (FIXED64, FIXED32, BYTES):
            if wire == BYTES:
                size, at = _varint(message, at)
            else:
                size = 8 if wire == FIXED64 else 4
            if size > end - at:
                raise Malformed("it ends in the middle of a field")
            value = message[at : at + size]
            at += size
        else:
            raise Malformed(f"unknown wire type {wire}")
        if number == 0:
            raise Malformed("field number 0")
        yield number, wire, value, at


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise Malformed("it ends in the middle of a number")
        byte = message[at]
        result |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return result, at
