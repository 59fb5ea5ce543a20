"""fastmrigan info: what a model file, an engine, or a DICOM file's header says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.progress import counted

if TYPE_CHECKING:
    from fastmrigan.runtime.engine_file import EngineFile
    from fastmrigan.runtime.model_file import ModelFile, ModelMetadata


def info(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Model file (.onnx), engine (.engine) or DICOM file."),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document instead of lines.")
    ] = False,
    preview: Annotated[
        Path | None,
        typer.Option(help="Write a DICOM file's middle slice, windowed, as this PNG."),
    ] = None,
) -> None:
    """Print what a model file or an engine says about itself, or a DICOM header's technical facts.

    Of a DICOM file nothing is printed that tells who, when or where.
    """
    if is_dicom(file):
        facts, told = about_dicom(file)
        if preview is not None:
            write_preview(file, preview)
    elif preview is not None:
        raise UsageError(f"{file}: not a DICOM file; --preview shows a slice of one")
    else:
        facts, told = about_model(file)
    if as_json:
        import json

        print(json.dumps(facts, indent=2))
    else:
        width = max(16, *(len(label) for label, _ in told))
        for label, text in told:
            print(f"{label:<{width}} {text}")


def is_dicom(file: Path) -> bool:
    """By the mark at byte 128 (PS3.10 7.1); what cannot be opened is left to the model reader."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def about_dicom(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The facts of a DICOM header, as one document and as (label, text) of every line."""
    from fastmrigan.imaging.dicom import assemble, read_header
    from fastmrigan.imaging.dicom.frames import named
    from fastmrigan.imaging.dicom.series import check_stacks

    try:
        header = read_header(path)
        check_stacks(header)
    except ValueError as error:
        raise InputRejected(f"{path}: {error}") from error
    photometric, frames = named(header.photometric), counted(header.frames, "frame")
    stacks = [
        {
            "slices": len(series.frames),
            "plane": series.plane,
            "step_mm": series.step_mm,
            "notes": [note for note in series.notes if "SeriesInstanceUID" not in note],
        }
        for series in assemble([(path.name, header)])
    ]
    facts = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "class": uid_name(header.sop_class),
        "transfer_syntax": uid_name(header.syntax),
        "rows": header.rows,
        "columns": header.columns,
        "frames": header.frames,
        "photometric": photometric,
        "burned_in_annotation": header.burned_in,
        "stacks": stacks,
        "tags": dict(header.tags),
    }
    lines = [
        ("file", str(path)),
        ("size", f"{facts['bytes']:,} bytes"),
        ("class", str(facts["class"])),
        ("transfer syntax", str(facts["transfer_syntax"])),
        ("pixels", f"{header.columns}x{header.rows}, {frames}, {photometric}"),
        ("burned-in text", header.burned_in),
        *(("stack", stack_line(stack)) for stack in stacks),
        *(("  note", note) for stack in stacks for note in stack["notes"]),
        *(
            (name, f"{value}" if isinstance(value, str) else f"{value:g}")
            for name, value in header.tags.items()
        ),
    ]
    return facts, lines


def uid_name(uid: str) -> str:
    """What DICOM calls a UID; one that it does not know may be a maker's, or say anything."""
    from pydicom.uid import UID_dictionary

    known = UID_dictionary.get(uid)
    return known[0] if known is not None else "unknown to DICOM"


def stack_line(stack: dict[str, Any]) -> str:
    """`10 axial slices, 6.6 mm apart`."""
    step = f", {stack['step_mm']:g} mm apart" if stack["step_mm"] is not None else ""
    plane = "" if stack["plane"] == "unknown" else f"{stack['plane']} "
    return counted(stack["slices"], f"{plane}slice") + step


def write_preview(path: Path, target: Path) -> None:
    """The middle slice through its window, as an 8-bit PNG."""
    from fastmrigan.imaging.contact_sheet import write_png
    from fastmrigan.imaging.dicom import preview

    try:
        slices = preview(path)  # [N, H, W]
    except ValueError as error:
        raise InputRejected(f"{path}: {error}") from error
    write_png(target, slices[len(slices) // 2])


def about_model(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A model or engine file's facts, as one document and as (label, text) of every line."""
    from fastmrigan.runtime.engine_file import EngineFile, read_model

    file = read_model(path)
    if isinstance(file, EngineFile):
        size = len(file.data)  # held against its sha256
        facts = {"file": str(file.path), "bytes": size, **file.sidecar.model_dump(mode="json")}
        return facts, engine_lines(file, size)
    facts = {"file": str(file.path), "bytes": len(file.data), "sha256": file.sha256}
    return facts | file.metadata.model_dump(mode="json"), model_lines(file)


def engine_lines(file: EngineFile, size: int) -> list[tuple[str, str]]:
    """(label, text) of every line that `info` prints of an engine."""
    facts = file.sidecar
    later = " or later" if facts.version_compatible else ""
    batches = ", ".join(map(str, facts.buckets))
    return [
        ("file", str(file.path)),
        ("size", f"{size:,} bytes"),
        ("engine sha256", facts.engine_sha256),
        ("engine", f"of {facts.package} {facts.version}{later}, batches {batches}"),
        ("GPU", f"compute capability {facts.compute_capability}"),
        ("model sha256", file.sha256),
        *lines(file.metadata),
    ]


def model_lines(file: ModelFile) -> list[tuple[str, str]]:
    """(label, text) of every line that `info` prints of a model file."""
    return [
        ("file", str(file.path)),
        ("size", f"{len(file.data):,} bytes"),
        ("sha256", file.sha256),
        *lines(file.metadata),
    ]


def lines(meta: ModelMetadata) -> list[tuple[str, str]]:
    """(label, text) of what a model file's metadata says."""
    height, width = meta.slice_size
    contrast = meta.target_contrast or "contrast not stated"
    if meta.task == "sample":
        job = f"samples {height}x{width} slices ({contrast}) from latents of {meta.latent_size}"
    else:
        source = meta.source_contrast or "source not stated"
        job = f"translates {height}x{width} slices, {source} to {contrast}"
    return [
        ("task", job),
        ("recipe", meta.recipe),
        ("precision", meta.precision),
        ("rewrites", rewrites(meta)),
        ("weights sha256", meta.weights_sha256),
        ("grading", flat(meta.grading)),
        ("training data", flat(meta.training_data)),
        ("training", flat(meta.training)),
        *parity_lines(meta.parity),
        ("versions", ", ".join(f"{k} {v}" for k, v in meta.versions.items())),
        ("schema", str(meta.schema_version)),
        ("notice", meta.notice),
    ]


def rewrites(meta: ModelMetadata) -> str:
    """`batch norms (4), transposed convolutions (4)`: what changed the exported graph, where."""
    return ", ".join(f"{name} ({places:,})" for name, places in meta.rewrites.items()) or "none"


def parity_lines(parity: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures against PyTorch, an engine a line."""
    if not parity:
        return [("parity", "not stated")]
    engines = {name: value for name, value in parity.items() if isinstance(value, dict)}
    overall = {name: value for name, value in parity.items() if name not in engines}
    return [("parity", flat(overall)), *((f"  {n}", engine_line(v)) for n, v in engines.items())]


def engine_line(figures: dict[str, Any]) -> str:
    if "psnr_db" not in figures or "max_abs_error" not in figures:
        return flat(figures)
    ssim = f", SSIM {figures['ssim']}" if figures.get("ssim") is not None else ""
    return (
        f"max abs error {figures['max_abs_error']}, PSNR {figures['psnr_db']} dB{ssim} "
        f"({figures['device']}, version {figures['version']})"
    )


def flat(values: dict[str, Any]) -> str:
    """A small dict on one line: `a 1, b 2, c (d 3)`."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return f"({flat(value)})"
        if isinstance(value, list):
            return f"[{', '.join(map(text, value))}]"
        if isinstance(value, bool) or value is None:
            return {True: "yes", False: "no", None: "none"}[value]
        return f"{value:,}" if isinstance(value, int) else str(value)

    return ", ".join(f"{k.replace('_', ' ')} {text(v)}" for k, v in values.items()) or "not stated"
