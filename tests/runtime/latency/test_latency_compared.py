"""Two runs of the bench beside each other: `bench --compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastmrigan.cli.bench import bench as bench_command
from fastmrigan.cli.bench_compare import compared
from fastmrigan.errors import UsageError


def test_two_runs_beside_each_other(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, other = (json.loads(json.dumps(document)) for _ in "AB")
    document["machine"]["governor"], other["machine"]["governor"] = "performance", "powersave"
    gone = other["measurements"].pop()
    first = other["measurements"][0]
    first["call_ms"]["p50"] = 3 * document["measurements"][0]["call_ms"]["p50"]
    for turn in first["rounds"]:
        turn["p50_ms"] += 1000
    files = (tmp_path / "a.json", tmp_path / "b.json")
    for file, side in zip(files, (document, other), strict=True):
        file.write_text(json.dumps(side))
    bench_command(compare=files)
    lines = capsys.readouterr().out.splitlines()
    assert "differs: governor: performance in A, powersave in B" in lines
    rows = [line for line in lines if line.startswith(("openvino fp32", "onnxruntime fp32"))]
    assert len(rows) == 15
    assert rows[0].split()[8] == "3.00"
    assert "=" not in rows[0]
    assert all("= " in line for line in rows[1:])
    assert lines[-1].startswith("in A alone: backend onnxruntime")
    assert f"rate {gone['rate']}" in lines[-1]
    assert max(map(len, compared(document, other))) <= 150


def test_unlike_runs_are_told_by_what_differs_first(document: dict[str, Any]) -> None:
    first, second = (json.loads(json.dumps(document)) for _ in "AB")
    second["machine"]["governor"] = None  # not readable there
    rows = second["measurements"]
    second["measurements"] = [m for m in rows if m["backend"] == "openvino" and m["batch"] == 1]
    first["measurements"] += [m | {"batch": n} for n in range(10, 60) for m in rows]
    second["measurements"] += [m | {"threads": 64} for m in rows if m["rate"] is None]
    lines = compared(first, second)
    assert not any("None" in line for line in lines)
    (alone_a,) = (line for line in lines if line.startswith("in A alone: "))
    (alone_b,) = (line for line in lines if line.startswith("in B alone: "))
    assert alone_b == "in B alone: threads 64 (8 rows)"
    shown = "; ".join(f"batch {n} (8 rows)" for n in range(10, 14))
    assert alone_a == f"in A alone: {shown}; and {46 * 8 + 12} rows more"
    assert max(map(len, lines)) <= 150


def test_a_backend_that_one_run_lacks_has_no_version_there(document: dict[str, Any]) -> None:
    second = json.loads(json.dumps(document))
    second["measurements"] = [m for m in second["measurements"] if m["backend"] == "openvino"]
    for a, b, letter in ((document, second, "A"), (second, document, "B")):
        lines = compared(a, b)
        assert not any(line.startswith("differs: ") for line in lines)
        assert lines[-1] == f"in {letter} alone: backend onnxruntime (8 rows)"


def test_runs_without_a_row_in_common(document: dict[str, Any]) -> None:
    second = json.loads(json.dumps(document))
    for measured in second["measurements"]:
        measured["threads"] = 2
    assert compared(document, second)[1:] == [
        "",
        "no row is in both",
        "in A alone: threads 1 (16 rows)",
        "in B alone: threads 2 (16 rows)",
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"a\.json: cannot be read: No such file"),
        ("[1]", r"a\.json: is no report of kind fastmrigan-bench"),
        ("x", r"a\.json: is no report of kind"),
        (
            '{"kind": "fastmrigan-bench", "schema_version": 1}',
            r"schema version 1, .* measure again",
        ),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=text):
        bench_command(compare=(path, path))
