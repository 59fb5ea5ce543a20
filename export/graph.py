"""A PyTorch generator as an ONNX graph, and what such a graph must be to become a model file.

PyTorch's torch.export-based exporter (`dynamo=True`) is used because it folds batch norm into the
convolutions and leaves 11 nodes for a DCGAN where the older one, deprecated besides, leaves 26.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from fastmrigan.errors import CheckFailed
from fastmrigan.export.choice import REWRITES, chosen
from fastmrigan.export.facts import GeneratorFacts
from fastmrigan.runtime.model_file import INPUT_NAMES, OUTPUT_NAME
from fastmrigan.runtime.onnx_wire import has_external_data

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 18  # the oldest the exporter writes without converting: the most readers take it


def build_graph(
    module: torch.nn.Module, facts: GeneratorFacts, computed_in: str = "bf16"
) -> onnx.ModelProto:
    """The ONNX graph: input "latent" or "source", output "slice", batch axis named "batch".

    computed_in: as fastmrigan.export.choice.chosen takes it.
    """
    model = exported_graph(module, facts)
    rewrite(model, chosen(facts.task, computed_in))
    return model


def exported_graph(
    module: torch.nn.Module, facts: GeneratorFacts, *, folded: bool = True
) -> onnx.ModelProto:
    """The graph as the exporter leaves it, without its notes. folded: its own optimiser folds the
    batch norms behind convolutions, and most constants."""
    import torch

    from fastmrigan.export.translations import TRANSLATIONS

    example = torch.zeros(2, *facts.input_shape)  # 2, since torch.export treats 0 and 1 apart
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            input_names=[INPUT_NAMES[facts.task]],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            optimize=folded,
            verbose=False,
        )
    assert program is not None
    return _without_traces(program.model_proto)


def rewrite(model: onnx.ModelProto, names: Collection[str]) -> dict[str, int]:
    """Applies the REWRITES named to `model` in place; how many places each changed."""
    return {name: each.change(model) for name, each in REWRITES.items() if name in names}


def norms_folded(module: torch.nn.Module, model: onnx.ModelProto) -> int:
    """How many of the batch norms of `module` its graph is without."""
    from torch.nn.modules.batchnorm import _BatchNorm

    there = sum(isinstance(layer, _BatchNorm) for layer in module.modules())
    kept = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    return max(0, there - kept)  # one layer may be several nodes


def check_graph(model: onnx.ModelProto, facts: GeneratorFacts) -> None:
    """Raises CheckFailed unless `model` is valid ONNX, self-contained, of standard operators only
    and of the shapes the runtime expects."""
    import onnx

    domains = {o.domain for o in model.opset_import} | {n.domain for n in model.graph.node}
    foreign = sorted(domains - {"", "ai.onnx"})
    if foreign or model.functions:
        raise CheckFailed(
            f"export: the graph uses operators outside the ONNX standard "
            f"({', '.join(foreign) or 'model functions'}), which not every engine has"
        )
    if has_external_data(model.SerializeToString()):
        raise CheckFailed(
            "export: the graph keeps weights outside the file, and a model file is one file"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"export: the graph is not valid ONNX: {error}") from error
    expected = [
        (INPUT_NAMES[facts.task], ["batch", *facts.input_shape]),
        (OUTPUT_NAME, ["batch", 1, *facts.slice_size]),
    ]
    came = [_signature(value) for value in (*model.graph.input, *model.graph.output)]
    if came != expected:
        raise CheckFailed(f"export: expected the graph's input and output {expected}, got {came}")


def _signature(value: onnx.ValueInfoProto) -> tuple[str, list[str | int]]:
    dims = value.type.tensor_type.shape.dim
    return value.name, [d.dim_param or d.dim_value for d in dims]


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops the exporter's notes on its source, whose stack traces name this machine's paths."""
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences two remarks of PyTorch's own that no user can act on: torchvision's operators are
    not there to be registered, and torch.export calls a deprecated helper of torch."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        logger.setLevel(before)
