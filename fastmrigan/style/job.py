"""The style stage over many slices: one after the other, resumable, every output labelled."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fastmrigan.errors import Interrupted
from fastmrigan.imaging.contact_sheet import contact_sheet, write_png
from fastmrigan.interrupt import StopSignal
from fastmrigan.progress import Progress
from fastmrigan.style.folder import StyleFolder, locked
from fastmrigan.style.transfer import Abandoned, StyleSettings, transfer
from fastmrigan.style.weights import Weights, normalise_activations

NORMALISE_ON = 32  # slices a side, evenly spaced, that the mean activations are taken over
SHEET_ROWS = 32  # slices on the contact sheet

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StyleResult:
    slices: int  # finished in the folder
    made: int  # by this call
    rows: list[dict[str, float]]  # index, content, style and total of every slice
    below: int  # filters scaled as if they fired more than they do


def style_transfer(
    contents: Float32,
    styles: Float32,
    weights: Weights,
    out: Path,
    settings: StyleSettings,
    *,
    dtype: str = "uint8",
    device: str = "cpu",
    resume_command: str = "the same command",
) -> StyleResult:
    """Every content slice in the style of slice i modulo M of `styles`, into the folder `out`.

    contents: float32 [N, size, size], styles: float32 [M, size, size], in [-1, 1]; dtype: uint8
    or uint16, of the PNG files. The weights are normalised here, over at most 32 slices of each
    side. Raises UsageError for a folder of another configuration, CheckFailed where a loss is no
    longer finite, Interrupted after Ctrl-C or SIGTERM with the finished slices kept.
    """
    settings.check()
    request = {
        "settings": asdict(settings) | {"dtype": dtype},
        "content": {"slices": len(contents), "sha256": digest(contents)},
        "style": {"slices": len(styles), "sha256": digest(styles)},
        "weights": weights.facts,
    }
    with locked(out), StopSignal() as signal:
        folder = StyleFolder(out, request, weights.label)
        todo = [index for index in range(len(contents)) if index not in folder.records]
        below = 0
        network = weights.network.to(device)
        if todo:
            both = np.concatenate([spaced(contents), spaced(styles)])
            below = normalise_activations(network, to_tensor(both, device))
            folder.write_facts("running")
        done = (len(contents) - len(todo)) * settings.steps
        total = len(contents) * settings.steps
        with Progress("style-transfer", total, "steps", start=done) as progress:
            for index in todo:
                pair = index % len(styles)
                counted = 0

                def go_on(steps: int) -> bool:
                    nonlocal counted
                    progress.advance(steps - counted)
                    counted = steps
                    return not signal.stopped

                try:
                    made = transfer(
                        network,
                        to_tensor(contents[index : index + 1], device),
                        to_tensor(styles[pair : pair + 1], device),
                        settings,
                        index=index,
                        go_on=go_on,
                    )
                except Abandoned:
                    break
                record = {
                    "style_slice": pair,
                    "steps": made.steps,
                    "start": {name: made.rows[0][name] for name in made.losses},
                    "losses": made.losses,
                }
                folder.finish(index, made.slice[0, 0].cpu().numpy(), made.rows, record)
                progress.advance(settings.steps - counted)  # converged early
        finished = sorted(folder.records)
        if finished:
            write_sheet(folder, contents, styles, finished[:SHEET_ROWS])
        if len(finished) < len(contents):
            folder.write_facts("interrupted")
            raise Interrupted(
                f"{out}: stopped with {len(finished):,} of {len(contents):,} slices finished; "
                f"resume with: {resume_command}"
            )
        if todo:
            folder.write_facts(
                "finished", versions={"torch": torch.__version__}, filters_below_floor=below
            )
        rows = [{"index": index, **folder.records[index]["losses"]} for index in finished]
        return StyleResult(len(finished), len(todo), rows, below)


def write_sheet(
    folder: StyleFolder, contents: Float32, styles: Float32, indices: list[int]
) -> None:
    """content | style | result, a row a slice."""
    tiles = [
        tile
        for i in indices
        for tile in (contents[i], styles[folder.records[i]["style_slice"]], folder.result(i))
    ]
    write_png(folder.out / "contact_sheet.png", contact_sheet(np.stack(tiles), columns=3))


def spaced(slices: Float32) -> Float32:
    """At most 32 of the slices, the first and the last among them."""
    count = min(len(slices), NORMALISE_ON)
    chosen: Float32 = slices[np.linspace(0, len(slices) - 1, count).round().astype(int)]
    return chosen


def to_tensor(slices: Float32, device: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(slices))[:, None].to(device)  # [N, 1, H, W]


def digest(slices: Float32) -> str:
    """sha256 of the slices' bytes: whatever they were read from."""
    return hashlib.sha256(np.ascontiguousarray(slices).tobytes()).hexdigest()
