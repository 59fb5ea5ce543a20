"""The output folder of the style stage: what it was begun with, and which slices are finished.

- shard-000000/<index, 9 digits>.png: the results, as `fastmrigan synth --format png` lays them out
- style.json: settings, weights, sources, and the losses of every finished slice
- losses.jsonl: the losses on the way, a line every few steps
- contact_sheet.png: content | style | result
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fastmrigan import NOTICE, __version__
from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.files import write_whole
from fastmrigan.imaging.quantise import to_float, to_uint8, to_uint16

Float32 = npt.NDArray[np.float32]

SCHEMA = 1
KIND = "style-transfer"
SLICES = "shard-000000"
QUANTISERS: dict[str, Callable[[Float32], Any]] = {"uint8": to_uint8, "uint16": to_uint16}


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Makes the folder and holds it for one writer; UsageError while another writes there."""
    try:
        (out / SLICES).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{out}: a file is in the way; name a folder for --out") from error
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{out}: another process is writing here") from error
        yield


class StyleFolder:
    """An output folder opened for writing; use it inside `locked`.

    request: all that the slices depend on, plain JSON values. Raises UsageError where the folder
    holds another request's slices (named by what differs) or foreign files, InputRejected where
    its style.json cannot be read.
    """

    def __init__(self, out: Path, request: dict[str, Any], label: str) -> None:
        self.out, self.label = out, label  # label: of the weights, for every PNG
        self.request: dict[str, Any] = json.loads(json.dumps(request))
        self.records: dict[int, dict[str, Any]] = self._finished()
        self._cut_losses()

    def _finished(self) -> dict[int, dict[str, Any]]:
        path = self.out / "style.json"
        if not path.exists():
            foreign = sorted(
                {path.name for path in self.out.iterdir()} - {SLICES, ".lock", "losses.jsonl"}
            )
            if foreign:
                raise UsageError(
                    f"{self.out}: holds {foreign[0]}, which is no part of a style transfer; name a "
                    "new or empty folder"
                )
            return {}
        try:
            document = json.loads(path.read_bytes())
            begun, records = document["request"], document["slices"]
            finished = {int(record["index"]): dict(record) for record in records}
        except (ValueError, KeyError, TypeError) as error:
            raise InputRejected(
                f"{path}: not the style.json of a style transfer ({type(error).__name__}); name "
                "another folder"
            ) from error
        found = differences(begun, self.request)
        if found:
            raise UsageError(
                f"{self.out}: holds a style transfer of another configuration "
                f"({'; '.join(found)}); give the same one to resume it, or another --out"
            )
        return {index: record for index, record in finished.items() if self.path(index).is_file()}

    def _cut_losses(self) -> None:
        """Leaves the lines of finished slices alone in losses.jsonl."""
        path = self.out / "losses.jsonl"
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line cut short
                if json.loads(line)["slice"] in self.records:
                    kept.append(line + "\n")
        write_whole(path, "".join(kept).encode())

    def path(self, index: int) -> Path:
        return self.out / SLICES / f"{index:09}.png"

    def finish(
        self, index: int, x: Float32, rows: list[dict[str, float]], record: dict[str, Any]
    ) -> None:
        """Puts one result on the disk; x: float32 [H, W] in [-1, 1]. style.json is the last."""
        with (self.out / "losses.jsonl").open("a", encoding="utf-8") as log:
            log.write("".join(json.dumps({"slice": index, **row}) + "\n" for row in rows))
        note = {
            "filters": self.label,
            "index": index,
            "notice": NOTICE,
            "synthetic": True,
            "version": __version__,
        }
        label = PngInfo()
        label.add_text("fastmrigan", json.dumps(note, sort_keys=True))
        quantise = QUANTISERS[self.request["settings"]["dtype"]]
        buffer = io.BytesIO()
        Image.fromarray(quantise(x)).save(buffer, "png", pnginfo=label)
        write_whole(self.path(index), buffer.getvalue())
        self.records[index] = {"index": index, **record}
        self.write_facts("running")

    def write_facts(self, status: str, **facts: object) -> None:
        document = {
            "schema": SCHEMA,
            "kind": KIND,
            "notice": NOTICE,
            "version": __version__,
            "status": status,
            "filters": self.label,
            "request": self.request,
            **facts,
            "slices": [self.records[index] for index in sorted(self.records)],
        }
        text = json.dumps(document, indent=2) + "\n"
        write_whole(self.out / "style.json", text.encode())

    def result(self, index: int) -> Float32:
        """A finished slice as it was written, float32 [H, W] in [-1, 1]."""
        with Image.open(self.path(index)) as image:
            return to_float(np.asarray(image))


def differences(begun: Any, asked: Any, name: str = "") -> list[str]:
    """Where two requests differ, as `settings.steps: 100 -> 200`."""
    if isinstance(begun, dict) and isinstance(asked, dict):
        found = []
        for key in [*begun, *(key for key in asked if key not in begun)]:
            inner = f"{name}.{key}" if name else str(key)
            found += differences(begun.get(key), asked.get(key), inner)
        return found
    return [] if begun == asked else [f"{name}: {begun} -> {asked}"]
