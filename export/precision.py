"""fp16 and bf16 as typed graphs: what strongly typed engines (TensorRT 11) are built from.

Weights and activations are stored in the lower type; input, output and everything in IN_FP32 stay
float32 behind explicit casts. Instance norm in fp16 is the field's most reported accuracy bug
(onnxruntime#10079, TensorRT#2691): its sums of squares leave fp16's range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastmrigan.errors import CheckFailed

if TYPE_CHECKING:
    import onnx

# Statistics, and what a pixel norm makes of them: a square of 256 is beyond fp16 already. Erf,
# since it makes the latents that all else follows from.
IN_FP32 = frozenset(
    (
        "Erf",
        "GlobalAveragePool",
        "InstanceNormalization",
        "Pow",
        "Reciprocal",
        "ReduceMean",
        "ReduceSum",
        "Softmax",
        "Sqrt",
    )
)
OPSETS = {"fp16": 18, "bf16": 22}  # the first in which every operator here takes the type
LARGEST_FP16 = 65504.0


def typed_graph(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """A copy of a float32 graph that computes in `precision`, "fp16" or "bf16".

    Its input and output stay float32; its opset is raised to OPSETS, whose operators mean the same.
    Raises CheckFailed where a weight is beyond fp16's range or is not finite.
    """
    import onnx
    from onnx import TensorProto, helper

    low = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    made.opset_import[0].version = max(made.opset_import[0].version, OPSETS[precision])
    del graph.value_info[:]  # of the float32 graph; inferred anew below
    caster, kept = _Caster(graph, low), _in_fp32(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        exact = node.output[0] in kept
        for place, name in enumerate(node.input):
            if name and caster.is_float(name) and _follows_type(node, place):
                node.input[place] = caster.of(name, TensorProto.FLOAT if exact else low, nodes)
        nodes.append(node)
        for name in node.output:
            caster.types[name] = _output_type(node, TensorProto.FLOAT if exact else low, caster)
    for output in graph.output:
        raw = f"{output.name}.{precision}"
        if caster.types[output.name] == low:
            for node in nodes:
                node.input[:] = [raw if name == output.name else name for name in node.input]
                node.output[:] = [raw if name == output.name else name for name in node.output]
            cast = helper.make_node("Cast", [raw], [output.name], to=TensorProto.FLOAT)
            nodes.append(cast)
    del graph.node[:]
    graph.node.extend(nodes)
    caster.replace_weights()
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def _in_fp32(graph: onnx.GraphProto) -> set[str]:
    """What is computed in float32: the outputs of IN_FP32, and of what stands between two of those,
    such as an epsilon of 1e-8, which is 0 in fp16."""
    weights = {each.name for each in graph.initializer}
    readers: dict[str, set[str]] = {each.name: {"output"} for each in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    kept: set[str] = set()
    for node in graph.node:
        given = {name for name in node.input if name and name not in weights}
        read_by = {each for name in node.output for each in readers.get(name, {"nobody"})}
        if node.op_type in IN_FP32 or (given and given <= kept and read_by <= IN_FP32):
            kept |= set(node.output)
    return kept


class _Caster:
    """Which type each value of a graph has, and the casts between them."""

    def __init__(self, graph: onnx.GraphProto, low: int) -> None:
        from onnx import TensorProto

        self.graph, self.low, self.float = graph, low, TensorProto.FLOAT
        self.weights = {each.name: each for each in graph.initializer}
        self.types: dict[str, int] = {name: each.data_type for name, each in self.weights.items()}
        self.types |= {each.name: each.type.tensor_type.elem_type for each in graph.input}
        self.cast: dict[tuple[str, int], str] = {}

    def is_float(self, name: str) -> bool:
        return self.types[name] in (self.float, self.low)

    def of(self, name: str, wanted: int, nodes: list[onnx.NodeProto]) -> str:
        """The name under which a value is there in the type wanted; a cast is added if need be."""
        from onnx import helper

        if self.types[name] == wanted:
            return name
        if (name, wanted) not in self.cast:
            other = f"{name}.as{wanted}"
            self.cast[name, wanted] = other
            if name not in self.weights:
                nodes.append(helper.make_node("Cast", [name], [other], to=wanted))
            self.types[other] = wanted
        return self.cast[name, wanted]

    def replace_weights(self) -> None:
        """Adds the weights that were asked for in the lower type; drops those nobody reads."""
        for (name, wanted), other in self.cast.items():
            if name in self.weights:
                self.graph.initializer.append(_converted(self.weights[name], wanted, other))
        read = {name for node in self.graph.node for name in node.input}
        kept = [each for each in self.graph.initializer if each.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _converted(weight: onnx.TensorProto, wanted: int, name: str) -> onnx.TensorProto:
    from onnx import TensorProto, helper, numpy_helper

    values: Any = numpy_helper.to_array(weight)
    if wanted == TensorProto.FLOAT16 and not np.abs(values).max(initial=0.0) <= LARGEST_FP16:
        raise CheckFailed(
            f"export: the weight {weight.name} holds values beyond fp16's range of "
            f"{LARGEST_FP16:g}; take bf16"
        )
    low = values.astype(helper.tensor_dtype_to_np_dtype(wanted))
    return numpy_helper.from_array(low, name)


def _follows_type(node: onnx.NodeProto, place: int) -> bool:
    """Whether an input of an operator has the operator's own type; Resize's scales have not."""
    import onnx

    schema = onnx.defs.get_schema(node.op_type)
    own = {schema.inputs[0].type_str, schema.outputs[0].type_str}
    return schema.inputs[min(place, len(schema.inputs) - 1)].type_str in own


def _output_type(node: onnx.NodeProto, computed: int, caster: _Caster) -> int:
    """Of what a node makes: integers or booleans where it makes those, else what it computes in."""
    import onnx
    from onnx import TensorProto, helper

    if node.op_type == "Constant":
        value = next(each for each in node.attribute if each.name.startswith("value"))
        kinds = {"value_int": TensorProto.INT64, "value_ints": TensorProto.INT64}
        return value.t.data_type if value.name == "value" else kinds.get(value.name, caster.float)
    if node.op_type == "Cast":
        return int(helper.get_attribute_value(node.attribute[0]))
    schema = onnx.defs.get_schema(node.op_type)
    made = schema.outputs[0].type_str
    for place, name in enumerate(node.input):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        if name and formal.type_str == made:
            return computed if caster.is_float(name) else caster.types[name]
    if made in ("tensor(int64)", "tensor(bool)"):
        return TensorProto.INT64 if made == "tensor(int64)" else TensorProto.BOOL
    allowed = next(each for each in schema.type_constraints if each.type_param_str == made)
    return computed if "tensor(float)" in allowed.allowed_type_strs else TensorProto.BOOL
