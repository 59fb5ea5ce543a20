"""Fused instance norm in a graph that TensorRT builds from: our operator, which its plugin makes.

TensorRT's ONNX parser takes an operator it does not know for a plugin of that name, whose version
and namespace stand in the attributes plugin_version and plugin_namespace; the other attributes are
the plugin's fields. csrc/tensorrt_plugin has the plugin (compiled, not run on a GPU). Such a graph
is no model file: it is made while an engine is built, and no other engine reads it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastmrigan.errors import MissingDependency, UsageError
from fastmrigan.export.folding import drop_unused

if TYPE_CHECKING:
    import onnx

OPERATOR, VERSION, DOMAIN = "FastmriganInstanceNorm", "1", "fastmrigan"


def swap_in(model: onnx.ModelProto) -> int:
    """Puts OPERATOR in the place of every instance norm in float32, in place; returns how many.

    With it goes the Relu or LeakyRelu that alone reads it. In a typed graph the casts around the
    norm go too: OPERATOR reads and writes float16 or bfloat16, and its statistics are float32.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = model.graph
    around = _Neighbours(onnx.shape_inference.infer_shapes(model).graph)
    swapped: dict[str, onnx.NodeProto] = {}  # by the output of the norm it stands for
    gone: set[str] = set()  # outputs of the nodes it takes in
    for node in graph.node:
        if node.op_type != "InstanceNormalization":
            continue
        x, last = node.input[0], node
        if around.types.get(x) != TensorProto.FLOAT:
            continue
        before, after = around.makers.get(x), around.only_reader(last)
        if before is not None and after is not None and around.is_round_trip(before, after):
            gone.add(last.output[0])
            x, last = before.input[0], after
        activation, slope = "none", 0.0
        after = around.only_reader(last)
        if after is not None and after.op_type in ("Relu", "LeakyRelu"):
            activation = "relu" if after.op_type == "Relu" else "leaky_relu"
            slope = 0.0 if after.op_type == "Relu" else _float(after, "alpha", 0.01)
            gone.add(last.output[0])
            last = after
        gone.add(last.output[0])
        swapped[node.output[0]] = helper.make_node(
            OPERATOR,
            [x, *node.input[1:]],
            [last.output[0]],
            name=node.name,
            domain=DOMAIN,
            epsilon=_float(node, "epsilon", 1e-5),
            activation=activation,
            slope=slope,
            plugin_version=VERSION,
            plugin_namespace=DOMAIN,
        )
    nodes = [
        swapped.get(node.output[0], node)
        for node in graph.node
        if node.output[0] in swapped or node.output[0] not in gone
    ]
    read = {name for node in nodes for name in node.input} | {each.name for each in graph.output}
    del graph.node[:]
    graph.node.extend(n for n in nodes if n.op_type != "Cast" or n.output[0] in read)
    drop_unused(graph)
    if swapped:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return len(swapped)


class _Neighbours:
    """Who makes and who reads each value of a graph, and of what type it is."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto | None]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        for output in graph.output:
            self.readers.setdefault(output.name, []).append(None)
        typed = (*graph.input, *graph.value_info, *graph.output)
        self.types = {each.name: each.type.tensor_type.elem_type for each in typed}
        self.types |= {each.name: each.data_type for each in graph.initializer}

    def only_reader(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The one node that reads a node's output; None where it is read twice or is a result."""
        readers = self.readers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 else None

    def is_round_trip(self, before: onnx.NodeProto, after: onnx.NodeProto) -> bool:
        """Whether two casts lead from a lower type to float32 and back to the same one."""
        from onnx import TensorProto

        if before.op_type != "Cast" or after.op_type != "Cast":
            return False
        low, back = self.types.get(before.input[0]), self.types.get(after.output[0])
        return low == back and low in (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def _float(node: onnx.NodeProto, name: str, default: float) -> float:
    return next((each.f for each in node.attribute if each.name == name), default)


@contextmanager
def graph_for(
    model: Path, library: Path | None
) -> Iterator[tuple[Path, dict[str, str | int] | None]]:
    """The graph to build an engine from, and what its sidecar says of the plugin.

    Without a library that is the model file itself, and None; else a copy with OPERATOR swapped in,
    which is gone afterwards, and the library's name, its sha256 and the number of norms.

    Raises UsageError where there is nothing to swap, MissingDependency without the onnx package.
    """
    if library is None:
        yield model, None
        return
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("onnx", "export", "export --plugin") from error
    graph = onnx.load_model_from_string(model.read_bytes())
    norms = swap_in(graph)
    if norms == 0:
        raise UsageError(f"{model}: has no instance norm in float32; leave --plugin out")
    told = {
        "library": library.name,
        "sha256": hashlib.sha256(library.read_bytes()).hexdigest(),
        "instance_norms": norms,
    }
    with tempfile.TemporaryDirectory(prefix="fastmrigan-") as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(graph.SerializeToString())
        yield path, told
