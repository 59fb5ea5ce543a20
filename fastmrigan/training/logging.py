"""What a run writes down: metrics.jsonl, one line a step, and the same for TensorBoard.

TensorBoard's writer hands its events to a thread of its own; the loop does not wait for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from fastmrigan.errors import InputRejected
from fastmrigan.files import write_whole


class MetricsLog:
    """Appends to RUN/metrics.jsonl and RUN/tensorboard; use it in a `with` statement.

    `step` is where the run goes on: later lines of an earlier session are dropped from
    metrics.jsonl and hidden in TensorBoard, so that nothing is doubled. `writes` false does
    nothing: of several processes of one run, one writes.
    """

    def __init__(self, run: Path, step: int, *, writes: bool = True) -> None:
        self.run, self.writes = run, writes
        if writes:
            self._open(step)

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # not where only a step is wanted

        path = self.run / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        write_whole(path, "".join(map(as_line, kept)).encode())
        self._file = path.open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(self.run / "tensorboard"), purge_step=step + 1)

    def write(self, rows: list[dict[str, Any]]) -> None:
        """One dict a step, each with `step`; TensorBoard gets their means at the last step."""
        if not self.writes or not rows:
            return
        self._file.write("".join(map(as_line, rows)))
        self._file.flush()
        for key in rows[-1]:
            if key in ("step", "epoch"):
                continue
            mean = sum(row[key] for row in rows) / len(rows)
            self._tensorboard.add_scalar(key, mean, rows[-1]["step"])

    def write_figures(self, step: int, figures: dict[str, float]) -> None:
        """What was measured at one step, for TensorBoard."""
        if self.writes:
            for key, value in figures.items():
                self._tensorboard.add_scalar(f"evaluation/{key}", value, step)

    def drop_after(self, step: int) -> None:
        """Forgets what was written of later steps: the run has gone back."""
        if self.writes:
            self.close()
            self._open(step)

    def close(self) -> None:
        if self.writes:
            self._file.close()
            self._tensorboard.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def as_line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, none where there is no file; a last line cut short is dropped.

    InputRejected for any other line that is no row with a step.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # ValueError: not JSON, or not even text
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise InputRejected(
                f"{path}: line {number} is not a row of metrics; delete the line (its step is then "
                "missing from the curves, nothing else)"
            )
        rows.append(row)
    return rows
