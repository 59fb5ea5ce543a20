"""What `PreparedDataset.open` refuses, and what it hands out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prepare_inputs import in_process

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.array_file import ArrayFile
from fastmrigan.imaging.dataset import (
    PreparedDataset,
    SliceWriter,
    fingerprint,
    read_info,
    write_info,
)
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.quantise import to_uint16


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_process(monkeypatch)
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    prepare(tmp_path, tmp_path / "set", PrepareOptions(size=32, label="a", test_fraction=0.2))
    return tmp_path / "set"


def change(**fields: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        document = json.loads((path / "dataset.json").read_text())
        del document["checksum"]  # which would show any change
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


def swap(old: bytes, new: bytes) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = (path / "dataset.json").read_bytes()
        assert old in text
        (path / "dataset.json").write_bytes(text.replace(old, new))

    return edit


def wrong_labels(path: Path) -> None:
    np.save(path / "labels.npy", np.zeros((5, 32, 32), np.uint16))
    change(label_maps=True)(path)


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
        (change(schema=3), InputRejected, "schema 3, newer than the 2 known here; update"),
        (change(schema=None), InputRejected, "schema is missing"),
        (change(count="many"), InputRejected, "dataset.json: count: Input should be"),
        (change(surprise=1), InputRejected, "dataset.json: surprise: Extra inputs"),
        (write("dataset.json", b"{"), InputRejected, "damaged data set"),
        (write("dataset.json", b"[]"), InputRejected, "damaged data set"),
        (lambda p: (p / "slices.npy").unlink(), InputRejected, "slices.npy is missing"),
        (change(paired=True), InputRejected, "targets.npy is missing"),
        (change(label_maps=True), InputRejected, "labels.npy is missing"),
        (wrong_labels, InputRejected, r"labels.npy is uint16 .*expected uint8 \(5, 32, 32\)"),
        (swap(b'"unknown"', b'"t2"'), InputRejected, "facts are not those of its checksum"),
        (swap(b'"test_fraction": 0.2', b'"test_fraction": 0.3'), InputRejected, "checksum"),
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
        (lambda d: d.label_maps(), "has no label maps; prepare it with --label-maps"),
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


def test_sets_of_schema_1_still_open(made: Path) -> None:
    """As they were written: without the fields that schema 2 added."""
    added = ("series", "order", "position", "contrast", "tags")
    records = [json.loads(line) for line in (made / "index.jsonl").read_text().splitlines()]
    for record in records:
        for name in added:
            del record[name]
    (made / "index.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    document = json.loads((made / "dataset.json").read_text())
    for name in ("label_maps", "notes", "checksum"):
        del document[name]
    document |= {"schema": 1, "fingerprint": fingerprint(made, paired=False)}
    (made / "dataset.json").write_text(json.dumps(document))
    dataset = PreparedDataset.open(made)
    dataset.check_fingerprint()
    assert dataset.info.schema_version == 1
    assert dataset.records[0].position is None
    assert dataset.slices("all").shape == (5, 32, 32)


def test_what_is_written_is_sealed(made: Path) -> None:
    info = read_info(made)
    assert info.checksum is not None
    write_info(made, info.model_copy(update={"contrast": "t2"}))
    assert read_info(made).contrast == "t2"


def test_array_file_goes_on_where_it_was(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (7, 3, 2)).astype(np.float32)
    first = ArrayFile(tmp_path / "a.npy", (3, 2), np.float32)
    assert first.append(x[:5]) == x[:5].tobytes()
    first.abandon()
    with (tmp_path / "a.npy").open("ab") as file:
        file.write(b"torn")
    second = ArrayFile(tmp_path / "a.npy", (3, 2), np.float32)
    assert second.read(1, 2) == x[1:3].tobytes()
    assert len(second.read(4, 2)) == x[4:5].nbytes + 4
    second.truncate(4)
    second.append(x[4:])
    second.close()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), x)
    np.save(tmp_path / "b.npy", x)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
