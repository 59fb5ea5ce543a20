"""What `PreparedDataset.open` refuses, and what it hands out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset, SliceWriter
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.quantise import to_uint16


@pytest.fixture
def made(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    prepare(tmp_path, tmp_path / "set", PrepareOptions(size=32, label="a", test_fraction=0.2))
    return tmp_path / "set"


def change(**fields: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        document = json.loads((path / "dataset.json").read_text())
        for name, value in fields.items():
            document[name] = value
            if value is None:
                del document[name]
        (path / "dataset.json").write_text(json.dumps(document))

    return edit


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(data)


def save(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path / "slices.npy", array)


def cut_index(path: Path) -> None:
    lines = (path / "index.jsonl").read_text().splitlines(keepends=True)
    (path / "index.jsonl").write_text("".join(lines[:-1]))


def swap_index(path: Path) -> None:
    lines = (path / "index.jsonl").read_text().splitlines(keepends=True)
    (path / "index.jsonl").write_text("".join(lines[::-1]))


@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (lambda p: (p / "dataset.json").unlink(), UsageError, "not a prepared data set"),
        (change(schema=2), InputRejected, "schema 2, newer than the 1 known here; update"),
        (change(schema=None), InputRejected, "schema is missing"),
        (change(count="many"), InputRejected, "dataset.json: count: Input should be"),
        (change(surprise=1), InputRejected, "dataset.json: surprise: Extra inputs"),
        (write("dataset.json", b"{"), InputRejected, "damaged data set"),
        (write("dataset.json", b"[]"), InputRejected, "damaged data set"),
        (lambda p: (p / "slices.npy").unlink(), InputRejected, "slices.npy is missing"),
        (change(paired=True), InputRejected, "targets.npy is missing"),
        (lambda p: (p / "index.jsonl").unlink(), InputRejected, "index.jsonl is missing"),
        (save(np.zeros((5, 32, 32), np.uint8)), InputRejected, "slices.npy is uint8"),
        (save(np.zeros((4, 32, 32), np.uint16)), InputRejected, r"\(4, 32, 32\), expected uint16"),
        (save(np.array([{}])), InputRejected, "slices.npy: "),
        (write("slices.npy", b"junk"), InputRejected, "slices.npy: "),
        (write("slices.npy", b""), InputRejected, "slices.npy: "),
        (cut_index, InputRejected, "index.jsonl has 4 records, not 5"),
        (swap_index, InputRejected, "index.jsonl, line 1: index 4"),
        (write("index.jsonl", b"{}\n" * 5), InputRejected, "index.jsonl, line 1: index: Field"),
    ],
)
def test_refused(made: Path, harm: Callable, error: type[Exception], message: str) -> None:
    harm(made)
    with pytest.raises(error, match=message) as caught:
        PreparedDataset.open(made)
    assert str(caught.value).startswith(str(made))
    assert "\n" not in str(caught.value)


def test_fingerprint_covers_the_pixels(made: Path) -> None:
    dataset = PreparedDataset.open(made)
    dataset.check_fingerprint()
    array = np.load(made / "slices.npy")
    array[2, 3, 4] ^= 1
    np.save(made / "slices.npy", array)
    with pytest.raises(InputRejected, match="not those of its fingerprint"):
        PreparedDataset.open(made).check_fingerprint()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.slices("validation"), "unknown split 'validation'; train, test"),
        (lambda d: d.slices("train", "b"), "no label 'b'; it has 'a'"),
        (lambda d: d.targets(), "not a paired data set"),
    ],
)
def test_wrong_questions(made: Path, call: Callable, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(PreparedDataset.open(made))


def test_select_agrees_with_slices(made: Path) -> None:
    dataset = PreparedDataset.open(made)
    both = np.concatenate([dataset.select("train"), dataset.select("test")])
    assert sorted(both.tolist()) == list(range(5))
    tested = dataset.slices("all")[dataset.select("test")]
    np.testing.assert_array_equal(tested, dataset.slices("test"))
    assert len(dataset.slices("guard")) == 0


def test_writer_makes_what_numpy_would(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (300, 16, 16)).astype(np.float32)
    writer = SliceWriter(tmp_path / "a.npy", 16)
    for s in x:
        writer.append(s)
    writer.close()
    got = np.load(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", got)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    np.testing.assert_array_equal(got, to_uint16(x))
