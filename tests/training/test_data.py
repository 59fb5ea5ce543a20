"""What a run trains on: one side or two, what is refused, and slices that stay on disk."""

import csv
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.quantise import to_uint16
from fastmrigan.training.data import (
    DataOptions,
    load_paired,
    load_unconditional,
    load_unpaired,
    with_channels,
)
from fastmrigan.training.order import Indices, TwoSidedOrder
from fastmrigan.training.slice_file import SliceFile

OPTIONS = DataOptions(32, 2, recipe="mine")
ON_DISK = DataOptions(32, 2, recipe="mine", memory_limit_bytes=0)


def write_slices(folder, count, seed, size=32):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        pixels = rng.integers(0, 65536, (size, size), dtype=np.uint16)
        Image.fromarray(pixels).save(folder / f"slice{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """labelled: 12 normal and 8 tumour slices; paired: 10 pairs; ct: 9 slices, mr: 6; at 32x32,
    large: 6 at 64x64."""
    root = tmp_path_factory.mktemp("sets")
    write_slices(root / "in" / "normal", 12, 0)
    write_slices(root / "in" / "tumour", 8, 1)
    plain = {"size": 32, "test_fraction": 0.25}
    prepare(root / "in", root / "labelled", PrepareOptions(**plain))
    t1, t2 = write_slices(root / "t1", 10, 2), write_slices(root / "t2", 10, 3)
    options = PrepareOptions(**plain, pairs=t2, contrast="t1", target_contrast="t2", label="")
    prepare(t1, root / "paired", options)
    for name, count, seed in (("ct", 9, 4), ("mr", 6, 5)):
        source = write_slices(root / f"{name}-in", count, seed)
        contrast = "ct" if name == "ct" else "t1"
        prepare(source, root / name, PrepareOptions(**plain, label=name, contrast=contrast))
    large = PrepareOptions(size=64, label="large", test_fraction=0)
    prepare(write_slices(root / "large-in", 6, 6, 64), root / "large", large)
    return root


def stored(folder, array, split, label=None):
    """float32 [N, 1, H, W], by the prepared dataset's own reader."""
    dataset = PreparedDataset.open(folder)
    take = dataset.slices if array == "slices" else dataset.targets
    return torch.from_numpy(take(split, label))[:, None]


# Each loader: how it is called, and the sides it should hand out, (folder, array, label) each.
LOADERS = {
    "all": (lambda s, o: load_unconditional(s / "labelled", o), ("labelled", "slices", None), None),
    "label": (
        lambda s, o: load_unconditional(s / "labelled", o, label="tumour"),
        ("labelled", "slices", "tumour"),
        None,
    ),
    "paired": (
        lambda s, o: load_paired(s / "paired", o),
        ("paired", "targets", None),
        ("paired", "slices", None),
    ),
    "paired reverse": (
        lambda s, o: load_paired(s / "paired", o, reverse=True),
        ("paired", "slices", None),
        ("paired", "targets", None),
    ),
    "two labels": (
        lambda s, o: load_unpaired(s / "labelled", o, target_label="tumour", source_label="normal"),
        ("labelled", "slices", "tumour"),
        ("labelled", "slices", "normal"),
    ),
    "two labels reverse": (
        lambda s, o: load_unpaired(
            s / "labelled", o, target_label="tumour", source_label="normal", reverse=True
        ),
        ("labelled", "slices", "normal"),
        ("labelled", "slices", "tumour"),
    ),
    "two sets": (
        lambda s, o: load_unpaired(s / "mr", o, source=s / "ct"),
        ("mr", "slices", None),
        ("ct", "slices", None),
    ),
    "two sets reverse": (
        lambda s, o: load_unpaired(s / "mr", o, source=s / "ct", source_label="ct", reverse=True),
        ("ct", "slices", "ct"),
        ("mr", "slices", None),
    ),
    "pairs forgotten": (
        lambda s, o: load_unpaired(s / "paired", o),
        ("paired", "targets", None),
        ("paired", "slices", None),
    ),
}


@pytest.mark.parametrize("options", [OPTIONS, ON_DISK], ids=["in memory", "on disk"])
@pytest.mark.parametrize("name", LOADERS)
def test_loaders(sets, name, options):
    load, target, source = LOADERS[name]
    data = load(sets, options)
    assert data.paired == name.startswith("paired")
    assert data.held_out.paired == (data.paired or name == "pairs forgotten")
    for part, split in ((data, "train"), (data.held_out, "test")):
        assert isinstance(part.slices, SliceFile) == (options is ON_DISK)
        expected = stored(sets / target[0], target[1], split, target[2])
        assert part.slices.shape == expected.shape
        assert torch.equal(part.slices[:], expected)
        if source is None:
            assert part.sources is None
            assert part.count == len(expected)
            continue
        of_source = stored(sets / source[0], source[1], split, source[2])
        assert torch.equal(part.sources[:], of_source)
        assert part.count == max(len(expected), len(of_source))
    assert data.held_out.held_out is None


def test_what_the_checkpoint_says(sets):
    info = load_unpaired(sets / "mr", OPTIONS, source=sets / "ct", source_label="ct").info
    mr, ct = PreparedDataset.open(sets / "mr").info, PreparedDataset.open(sets / "ct").info
    assert (info["fingerprint"], info["source"]["fingerprint"]) == (mr.fingerprint, ct.fingerprint)
    assert (info["contrast"], info["source_contrast"]) == ("t1", "ct")
    assert (info["label"], info["source"]["label"]) == (None, "ct")
    assert info["training_slices"] == mr.split.counts["train"]
    assert info["source"]["training_slices"] == ct.split.counts["train"]
    assert str(sets) not in str(info)
    one = load_unconditional(sets / "labelled", OPTIONS).info
    assert "source" not in one
    info = load_paired(sets / "paired", OPTIONS, reverse=True).info
    assert (info["contrast"], info["source_contrast"], info["paired"]) == ("t1", "t2", True)


def test_batches_follow_the_order(sets):
    data = load_unpaired(sets / "mr", ON_DISK, source=sets / "ct")
    order = TwoSidedOrder(len(data.slices), len(data.sources), 3, seed=1)
    for step in range(4):
        indices = order.batch_of(step)
        target, source = data.batch(indices)
        assert torch.equal(target, stored(sets / "mr", "slices", "train")[indices.target])
        assert torch.equal(source, stored(sets / "ct", "slices", "train")[indices.source])
    plain = load_unconditional(sets / "mr", OPTIONS)
    assert plain.batch(Indices(torch.tensor([0])))[1] is None


@pytest.mark.parametrize("limit", [0, 2**30])
def test_16_bits_are_kept(tmp_path, limit):
    """One slice that holds every value there is, by way of a 16-bit PNG."""
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).permutation(65536).astype(np.uint16).reshape(256, 256)
    Image.fromarray(pixels).save(tmp_path / "in" / "all.png")
    options = PrepareOptions(size=256, label="", grading="minmax", test_fraction=0)
    prepare(tmp_path / "in", tmp_path / "set", options)
    asked = DataOptions(256, 1, memory_limit_bytes=limit)
    slices = load_unconditional(tmp_path / "set", asked).slices[:]
    assert slices.dtype == torch.float32
    assert len(slices.unique()) == 65536
    np.testing.assert_array_equal(to_uint16(slices[0, 0].numpy()), pixels)
    np.testing.assert_allclose(slices[0, 0].numpy(), pixels / 32767.5 - 1, atol=1.2e-7)


def test_three_channels_repeat_the_grey_slice():
    slices = torch.rand(2, 1, 4, 4)
    assert with_channels(slices, 1) is slices
    assert torch.equal(with_channels(slices, 3), torch.cat([slices] * 3, 1))


@pytest.mark.parametrize(
    ("load", "text"),
    [
        (
            lambda s: load_unconditional(s / "large", OPTIONS),
            "large: slices are 64x64, mine trains at 32x32; prepare them with --size 32",
        ),
        (
            lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "large"),
            r"mr: slices are 32x32; .*large: slices are 64x64, mine trains at 32x32; prepare",
        ),
        (
            lambda s: load_unconditional(s / "labelled", OPTIONS, label="tumor"),
            "labelled: no label 'tumor'; it has 'normal', 'tumour'",
        ),
        (
            lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "ct", source_label="CT"),
            "ct: no label 'CT'; it has 'ct'",
        ),
        (
            lambda s: load_unconditional(s / "mr", DataOptions(32, 20)),
            r"mr: (\d) training slices are fewer than one batch of 20; use --set batch=\1",
        ),
        (
            lambda s: load_unconditional(s / "labelled", DataOptions(32, 20), label="tumour"),
            r"(\d) training slices labelled 'tumour' are fewer .*; use --set batch=\1$",
        ),
        (
            lambda s: load_unpaired(s / "ct", DataOptions(32, 6), source=s / "mr"),
            r"mr: (\d) training slices of the source side are fewer than one batch of 6; .*=\1$",
        ),
        (
            lambda s: load_unpaired(s / "mr", DataOptions(32, 6), source=s / "ct"),
            r"mr: (\d) training slices of the target side are fewer than one batch of 6; .*=\1$",
        ),
        (
            lambda s: load_unconditional(s / "mr", DataOptions(32, 4, world=2)),
            r"fewer than one batch of 8 \(4 on each of 2 ranks\); use --set batch=2$",
        ),
        (
            lambda s: load_unconditional(s / "mr", DataOptions(32, 4, world=3, smallest_batch=2)),
            r"one batch of 12 \(4 on each of 3 ranks\); prepare more slices or start fewer ranks$",
        ),
        (
            lambda s: load_paired(s / "mr", OPTIONS),
            "mr: not a paired data set, and mine learns from registered pairs; prepare it with --p",
        ),
        (
            lambda s: load_unpaired(
                s / "labelled", OPTIONS, target_label="tumour", source_label="tumour"
            ),
            r"source_label and target_label are both 'tumour'; name two of its labels \('normal',",
        ),
        (
            lambda s: load_unpaired(s / "labelled", OPTIONS, target_label="tumour"),
            r"Give source_label and target_label \(it has 'normal', 'tumour'\), or .*--source-data",
        ),
        (
            lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "paired"),
            "paired: a paired data set holds both sides already; give it alone, without --source",
        ),
        (
            lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "mr"),
            "mr: source and target are the same slices; give two",
        ),
        (lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "in"), "in: not a prepared data"),
    ],
)
def test_refused(sets, load, text):
    with pytest.raises(UsageError, match=text) as caught:
        load(sets)
    assert "\n" not in str(caught.value)


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


def pairs_of_t1t2(root, table):
    """The set's own registration: T1 #n is T2 #(n + 60) up to 40, #(n + 70) beyond."""
    numbers = sorted(int(p.stem.split("#")[1]) for p in (root / "TrainT1").glob("*.png"))
    rows = [(n, n + (60 if n <= 40 else 70)) for n in numbers]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "target"])
        for one, other in rows:
            if (root / "TrainT2" / f"Image #{other}.png").exists():
                writer.writerow([f"TrainT1/Image #{one}.png", f"TrainT2/Image #{other}.png"])


def test_real_t1_t2_paired_and_taken_as_unpaired(tmp_path, real_data):
    root = real_data("t1t2-upgrad")
    pairs_of_t1t2(root, tmp_path / "pairs.csv")
    options = PrepareOptions(
        size=64, pairs=tmp_path / "pairs.csv", contrast="t1", target_contrast="t2", label=""
    )
    prepare(root, tmp_path / "set", options)
    asked = DataOptions(64, 4, recipe="t1-t2")
    paired, unpaired = load_paired(tmp_path / "set", asked), load_unpaired(tmp_path / "set", asked)
    assert paired.paired
    assert not unpaired.paired
    assert torch.equal(paired.slices, unpaired.slices)
    assert torch.equal(paired.sources, unpaired.sources)
    assert paired.count >= 15  # the split by blocks sets many aside
    assert torch.equal(paired.held_out.sources, unpaired.held_out.sources)
    assert torch.equal(paired.held_out.sources, unpaired.held_out.sources)
    assert paired.held_out.paired
    assert unpaired.held_out.paired
    assert nearest_twins(paired.slices, paired.sources) > 0.8  # registered, in the same order
    order = TwoSidedOrder(paired.count, paired.count, 16, seed=0)
    target, source = unpaired.batch(order.batch_of(0))
    assert target.shape == source.shape == (16, 1, 64, 64)
    assert nearest_twins(target, source) < 0.3


def nearest_twins(target, source):
    """Share of the slices whose edges are most like those of the slice in the same place."""
    edges = [x.diff(dim=2)[..., 1:].abs() + x.diff(dim=3)[:, :, 1:].abs() for x in (target, source)]
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in edges)  # [N, pixels]
    alike = F.normalize(a) @ F.normalize(b).T  # [N, N]
    return float((alike.argmax(1) == torch.arange(len(alike))).float().mean())


def test_real_t2_with_two_labels(tmp_path, real_data):
    root = real_data("t2-tumour-nontumour")
    for label in ("tumour", "nontumour"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for path in sorted((root / label).iterdir())[:: 20 if label == "tumour" else 15]:
            (tmp_path / "in" / label / path.name).symlink_to(path)
    prepare(tmp_path / "in", tmp_path / "set", PrepareOptions(size=64, contrast="t2"))
    data = load_unpaired(
        tmp_path / "set",
        DataOptions(64, 2, recipe="t2"),
        target_label="tumour",
        source_label="nontumour",
    )
    assert data.sources is not None
    assert len(data.slices) != len(data.sources)
    counts = PreparedDataset.open(tmp_path / "set").info.split.counts
    assert len(data.slices) + len(data.sources) == counts["train"]
    assert len(data.held_out.slices) + len(data.held_out.sources) == counts["test"]
    for slices in (data.slices, data.sources):
        assert slices.min() == -1
        assert slices.max() > 0.9
        assert slices.median() < -0.5
