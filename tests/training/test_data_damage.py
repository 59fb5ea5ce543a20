"""Data that are damaged, or fail while a run reads them; slices that stay on disk."""

import os

import pytest
import torch
from prepared_sets import ON_DISK, OPTIONS, make_sets

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.training.data import (
    load_paired,
    load_unconditional,
    load_unpaired,
)
from fastmrigan.training.order import Indices, TwoSidedOrder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


def relabel(folder, label, split):
    """Puts all slices of one label into one split, and the fingerprint right."""
    from fastmrigan.imaging.dataset import fingerprint, read_info, write_info

    records = PreparedDataset.open(folder).records
    for record in records:
        if record.label == label:
            record.split = split
    (folder / "index.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in records))
    info = read_info(folder)
    write_info(folder, info.model_copy(update={"fingerprint": fingerprint(folder, paired=False)}))


@pytest.fixture
def copy(sets, tmp_path):
    import shutil

    return lambda name: shutil.copytree(sets / name, tmp_path / name)


def test_an_empty_side(copy):
    folder = copy("labelled")
    relabel(folder, "normal", "test")
    match = "0 training slices of the source side labelled 'normal': none is in the train split; p"
    with pytest.raises(UsageError, match=match):
        load_unpaired(folder, OPTIONS, target_label="tumour", source_label="normal")


def test_a_side_without_held_out_slices(copy):
    folder = copy("labelled")
    relabel(folder, "normal", "train")
    data = load_unpaired(folder, OPTIONS, target_label="tumour", source_label="normal")
    assert data.held_out is None


@pytest.mark.parametrize(
    ("name", "place"),
    [("slices.npy", 0.8), ("targets.npy", 0.8), ("index.jsonl", 0.8), ("dataset.json", 0.0)],
)
@pytest.mark.parametrize("load", [load_paired, load_unpaired])
@pytest.mark.parametrize("options", [OPTIONS, ON_DISK], ids=["in memory", "on disk"])
def test_damage_anywhere_shows_before_the_first_step(copy, name, place, load, options):
    folder = copy("paired")
    data = bytearray((folder / name).read_bytes())
    data[int(len(data) * place)] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(InputRejected, match=rf"{folder}: a damaged data set \(.*\); prepare it ag"):
        load(folder, options)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("hashlib.file_digest", "slices.npy"),
        ("fastmrigan.imaging.dataset.read_index", "index.jsonl"),
    ],
)
def test_a_disk_that_fails_shows_before_the_first_step(sets, monkeypatch, function, name):
    def failing(*_):
        raise OSError(5, "Input/output error", str(sets / "mr" / name))

    monkeypatch.setattr(function, failing)
    match = rf"{sets}/mr: {name} cannot be read \(Input/output error\); mend that, or prepare"
    with pytest.raises(InputRejected, match=match):
        load_unconditional(sets / "mr", OPTIONS)


def test_in_memory_nothing_is_left_to_be_unreadable(copy):
    """The files of a whole set taken away after loading: every epoch goes on as before."""
    folder = copy("labelled")
    data = load_unpaired(folder, OPTIONS, target_label="tumour", source_label="normal")
    order = TwoSidedOrder(len(data.slices), len(data.sources), 2, seed=0)
    steps = range(7 * data.count)
    before = [data.batch(order.batch_of(step)) for step in steps]
    for path in folder.iterdir():
        path.write_bytes(b"")
        path.unlink()
    for step in steps:
        for one, other in zip(before[step], data.batch(order.batch_of(step)), strict=True):
            assert torch.equal(one, other)


def cut_short(path):
    os.truncate(path, path.stat().st_size - 40 * 32)


def overwritten(path):
    with path.open("r+b") as file:
        file.seek(2000)
        file.write(b"\0\1\2\3")
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("harm", [cut_short, overwritten])
def test_on_disk_a_file_that_changes_is_named(copy, harm):
    folder = copy("mr")
    data = load_unconditional(folder, ON_DISK)
    assert len(data.batch(Indices(torch.tensor([0, 1])))[0]) == 2
    harm(folder / "slices.npy")
    match = rf"{folder}/slices.npy: changed while .*; prepare the set again and run the same comm"
    with pytest.raises(InputRejected, match=match):
        data.batch(Indices(torch.tensor([0, 1])))


@pytest.mark.parametrize(
    ("pread", "fact"),
    [
        (lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")), "Input/output error"),
        (lambda *_: b"1234567", "7 of 2048 bytes"),
    ],
)
def test_on_disk_a_slice_that_cannot_be_read_is_named(sets, monkeypatch, pread, fact):
    data = load_unconditional(sets / "mr", ON_DISK)
    index = int(PreparedDataset.open(sets / "mr").select("train")[3])
    monkeypatch.setattr("os.pread", pread)
    with pytest.raises(
        InputRejected, match=rf"slices.npy: slice {index} cannot be read \({fact}\)"
    ):
        data.batch(Indices(torch.tensor([3])))


def test_on_disk_slices_are_indexed_like_a_tensor(sets):
    file = load_unconditional(sets / "labelled", ON_DISK).slices
    tensor = load_unconditional(sets / "labelled", OPTIONS).slices
    some = torch.tensor([3, 0, 3])
    for key in (some, slice(None, 4), slice(5, 5), 2, -1, (slice(2), 0), (0, 0), (some, 0, 3)):
        assert torch.equal(file[key], tensor[key]), key
    assert (len(file), file.shape, file.nbytes) == (len(tensor), tensor.shape, tensor.nbytes)
    with pytest.raises(IndexError):
        file[len(file)]
