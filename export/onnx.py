"""A trained generator to the one .onnx model file of FastMRIGAN.

PyTorch's torch.export-based exporter (`dynamo=True`) is used because it folds batch norm into the
convolutions and leaves 11 nodes for a DCGAN where the older one, deprecated besides, leaves 26.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmrigan.errors import CheckFailed, Interrupted, MissingDependency, UsageError
from fastmrigan.export.parity import ParityReport, check_parity, random_inputs
from fastmrigan.export.rewrites import split_transposed_convolutions
from fastmrigan.files import beside, write_whole
from fastmrigan.interrupt import StopSignal
from fastmrigan.runtime.model_file import INPUT_NAMES, METADATA_KEY, OUTPUT_NAME, ModelMetadata
from fastmrigan.runtime.onnx_wire import graph_sha256, has_external_data

if TYPE_CHECKING:
    import onnx
    import torch

    from fastmrigan.training.checkpoint import LoadedGenerator

OPSET = 18  # the oldest the exporter writes without converting: the most readers take it
TOLERANCE = 1e-4  # max abs error on the [-1, 1] scale; a uint8 grey level is 7.8e-3 wide
LARGEST_TOLERANCE = 0.1  # beyond it two engines need not show the same slice
BATCHES = {"sample": (1, 3, 8, 64), "translate": (1, 3, 8)}


@dataclass(frozen=True)
class GeneratorFacts:
    """What the file says about a generator beyond what is measured while writing it."""

    task: str  # "sample" (latent to slice) or "translate" (slice to slice)
    recipe: str
    slice_size: tuple[int, int]  # (H, W)
    latent_size: int | None = None  # "sample" only
    source_contrast: str | None = None  # "translate" only
    target_contrast: str | None = None  # what comes out
    grading: dict[str, Any] | None = None  # how the training slices came to [-1, 1]
    training_data: dict[str, Any] | None = None  # fingerprint, counts, labels
    training: dict[str, Any] | None = None  # step, ema, seed

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one item, without the batch axis."""
        return (self.latent_size or 0,) if self.task == "sample" else (1, *self.slice_size)


@dataclass(frozen=True)
class Exported:
    """A model file as it stands on disk."""

    path: Path
    size: int  # bytes
    sha256: str  # of the whole file
    parameters: int
    metadata: ModelMetadata
    parity: ParityReport


def export_run(
    run: Path,
    out: Path,
    *,
    step: int | None = None,
    ema: bool = True,
    back: bool = False,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Writes the generator of a run folder's checkpoint (the newest, or `step`) to `out`.

    ema: the averaged weights, where the run has them. back: CycleGAN's generator from target to
    source.

    Raises UsageError for a folder that is no run, has no such checkpoint, an `out` that cannot
    be written or a `tolerance` above 0.1, ModelRefused for a damaged checkpoint, CheckFailed where
    the file would not agree with PyTorch within `tolerance`, Interrupted after Ctrl-C or SIGTERM;
    in all these cases `out` is left as it was.
    """
    _need_packages()
    from fastmrigan.training.checkpoint import load_generator

    _check_tolerance(tolerance)
    out = _writable(out)
    loaded = load_generator(run, step=step, ema=ema, back=back)
    return export_generator(loaded.module, out, facts_of(loaded, back), tolerance=tolerance)


def facts_of(loaded: LoadedGenerator, back: bool = False) -> GeneratorFacts:
    """What a run's checkpoint knows of its generator."""
    recipe, dataset = loaded.recipe, loaded.dataset
    samples = recipe.task == "sample"
    source, target = dataset.get("source_contrast"), dataset.get("contrast")
    grading = dataset.get("grading")  # of what comes out
    if back:
        source, target = target, source
        grading = dataset.get("source", {}).get("grading")
    apart = ("contrast", "grading")
    training = {"step": loaded.step, "ema": loaded.averaged, "seed": recipe.seed}
    return GeneratorFacts(
        task=recipe.task,
        recipe=recipe.name,
        slice_size=(recipe.size, recipe.size),
        latent_size=recipe.generator.latent if samples else None,
        source_contrast=None if samples else source,
        target_contrast=target,
        grading=grading,
        training_data={k: v for k, v in dataset.items() if k not in apart},
        training=training if samples else training | {"back": back},
    )


def export_generator(
    module: torch.nn.Module, out: Path, facts: GeneratorFacts, *, tolerance: float = TOLERANCE
) -> Exported:
    """Writes `module` to `out` once ONNX Runtime and OpenVINO both agree with it.

    module: float32 [N, latent_size] (sample) or [N, 1, H, W] (translate) to [N, 1, H, W] in
    [-1, 1]. It is used in eval mode on the CPU; batch norm statistics are the stored ones.
    Raises CheckFailed (and writes nothing) past `tolerance`, UsageError for an unwritable `out` or
    a `tolerance` above 0.1, Interrupted (nothing written) after Ctrl-C or SIGTERM.
    """
    _need_packages()
    _check_tolerance(tolerance)
    out = _writable(out)
    module = module.cpu().float().eval()
    with _stoppable(out):
        graph = build_graph(module, facts)
        check_graph(graph, facts)
        report = _parity(module, graph, facts)
    if not report.max_abs_error <= tolerance:  # written so that NaN fails
        raise CheckFailed(
            f"{out}: not written, since {report.worst.backend} {report.worst.version} in fp32 is "
            f"{report.max_abs_error:.3g} away from {report.against} (tolerance {tolerance:g}, "
            f"{report.slices} slices): report it with the recipe, or raise --tolerance knowingly"
        )
    digest = graph_sha256(graph.SerializeToString(deterministic=True))
    metadata = _metadata(module, facts, report, tolerance, digest)
    data = with_metadata(graph, metadata.model_dump(mode="json"))
    assert graph_sha256(data) == digest, "the metadata must not change the graph"
    write_whole(out, data)
    return Exported(
        out,
        len(data),
        hashlib.sha256(data).hexdigest(),
        sum(p.numel() for p in module.parameters()),
        metadata,
        report,
    )


def build_graph(module: torch.nn.Module, facts: GeneratorFacts) -> onnx.ModelProto:
    """The ONNX graph: input "latent" or "source", output "slice", batch axis named "batch"."""
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
            verbose=False,
        )
    assert program is not None
    model = _without_traces(program.model_proto)
    split_transposed_convolutions(model)
    return model


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


def _parity(
    module: torch.nn.Module, graph: onnx.ModelProto, facts: GeneratorFacts, seed: int = 0
) -> ParityReport:
    import torch

    inputs = random_inputs(facts.task, facts.input_shape, BATCHES[facts.task], seed)
    with torch.inference_mode():
        expected = [module(torch.from_numpy(x)).numpy() for x in inputs]
    against = f"PyTorch {torch.__version__.split('+')[0]} fp32"
    return check_parity(graph.SerializeToString(), inputs, expected, against)


def _metadata(
    module: torch.nn.Module,
    facts: GeneratorFacts,
    report: ParityReport,
    tolerance: float,
    digest: str,
) -> ModelMetadata:
    import onnx
    import torch

    import fastmrigan

    return ModelMetadata(
        task=facts.task,
        recipe=facts.recipe,
        source_contrast=facts.source_contrast,
        target_contrast=facts.target_contrast,
        latent_size=facts.latent_size,
        slice_size=facts.slice_size,
        grading=facts.grading or {},
        precision="fp32",
        weights_sha256=weights_sha256(module),
        graph_sha256=digest,
        training_data=facts.training_data or {},
        training=facts.training or {},
        parity=report.as_metadata(tolerance),
        versions={
            "fastmrigan": fastmrigan.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "opset": str(OPSET),
        },
    )


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


@contextlib.contextmanager
def _stoppable(out: Path) -> Iterator[None]:
    """Raises Interrupted after Ctrl-C or SIGTERM, once the work in the `with` statement is done:
    torch.export makes an error of its own of an exception that a signal raises inside it."""
    with StopSignal() as signal:
        try:
            yield
        except Exception:
            if not signal.stopped:
                raise
    if signal.stopped:
        raise Interrupted(f"{out}: not written, stopped by a signal; run the same command again")


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance <= LARGEST_TOLERANCE:  # written so that NaN fails
        raise UsageError(
            f"--tolerance {tolerance:g}: expected 0 to {LARGEST_TOLERANCE:g} on the [-1, 1] scale; "
            f"{TOLERANCE:g} is the usual one"
        )


def _need_packages() -> None:
    import importlib.util

    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(package, "export", "exporting a model file")


def _writable(out: Path) -> Path:
    """`out`, known to be writable before minutes are spent on it."""
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; name the model file to write, e.g. {out}/model.onnx")
    if out.suffix != ".onnx":
        raise UsageError(f"{out}: a model file's name ends in .onnx; use --out {out.name}.onnx")
    probe = beside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)  # what is there already is not ours to delete
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{out}: cannot be written ({error.strerror}); name a place you can write to"
        ) from error
    return out
