"""What is read of a run folder's files, whole, being written, or damaged."""

import json

import numpy as np
import pytest
import yaml

from fastmrigan.training.run_files import read_columns, read_document, read_evaluations

GOOD = b'{"step": 1, "loss": 0.5, "note": "text", "flag": true}\n{"step": 3, "loss": NaN}\n'


@pytest.mark.parametrize(
    ("content", "steps", "missing"),
    [
        (GOOD, [1], []),  # NaN is no point of a curve
        (GOOD + b'{"step": 4, "loss', [1], []),  # being written
        (b"", [], ["metrics.jsonl holds no step yet."]),
        (GOOD + b"[]\n\xff\n{}\n", [1], ["metrics.jsonl: unreadable lines left out: 3."]),
        (GOOD + b'{"step": 1.5}\n', [1], ["metrics.jsonl: unreadable lines left out: 1."]),
        (GOOD + b'{"step": 4, "loss": 1%s}\n' % (b"0" * 400), [1], []),  # not in 64 bits
        (GOOD + b"[" * 100_000 + b"\n", [1], ["metrics.jsonl: unreadable lines left out: 1."]),
    ],
)
def test_columns(tmp_path, content, steps, missing):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    said = []
    columns = read_columns(path, said)
    assert said == missing
    assert columns.keys(r".*") == (["loss"] if steps else [])
    if steps:
        found, values = columns.series("loss")
        np.testing.assert_array_equal(found, steps)
        np.testing.assert_array_equal(values, [0.5])


def test_no_metrics(tmp_path):
    said = []
    assert read_columns(tmp_path / "metrics.jsonl", said).last == {}
    assert said == ["metrics.jsonl is not there yet."]


@pytest.mark.parametrize(
    ("parse", "content", "document", "missing"),
    [
        (json.loads, b'{"a": 1}', {"a": 1}, []),
        (yaml.safe_load, b"a: {b: 2}", {"a": {"b": 2}}, []),
        (json.loads, None, {}, ["file is not there yet."]),
        (json.loads, b'{"a": ', {}, ["file cannot be read (JSONDecodeError)."]),
        (json.loads, b"\xff", {}, ["file cannot be read (UnicodeDecodeError)."]),
        (yaml.safe_load, b"a: [", {}, ["file cannot be read (ParserError)."]),
        (yaml.safe_load, b"", {}, ["file cannot be read (it holds no fields)."]),
    ],
)
def test_documents(tmp_path, parse, content, document, missing):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    said = []
    assert read_document(path, parse, said) == document
    assert said == missing


def test_evaluations(tmp_path):
    path, said = tmp_path / "evaluation.jsonl", []
    assert read_evaluations(path, said) == []
    assert said == []  # a run need not have any
    path.write_text('{"step": 1, "ssim": 0.5}\n')
    assert read_evaluations(path, said) == [{"step": 1, "ssim": 0.5}]
    path.write_text("[[\n")
    assert read_evaluations(path, said) == []
    assert said == ["evaluation.jsonl cannot be read (InputRejected)."]
