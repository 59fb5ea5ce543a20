"""The bytes of a shard, read back by other people's readers."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.jobs.formats import tar_parts
from fastmrigan.jobs.shards import FORMATS, Content, Origin, Plan, Shard, commit, read_slices

ORIGIN = Origin(seed=7, model_sha256="ab" * 32)
OF_SLICES = [fmt for fmt in FORMATS if fmt != "nifti"]  # that is of series: test_shards_dicom.py
OF_EACH = [(fmt, dtype) for fmt in OF_SLICES for dtype in FORMATS[fmt].dtypes]


def some_slices(count: int, dtype: str = "uint8") -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (count, 5, 6), dtype, endpoint=True)


@pytest.mark.parametrize(
    ("count", "size", "cuts"),
    [(1, 256, [1]), (256, 256, [256]), (257, 256, [256, 1]), (10, 3, [3, 3, 3, 1])],
)
def test_a_plan_covers_every_slice_once(count, size, cuts):
    shards = list(Plan(count, size))
    assert [shard.count for shard in shards] == cuts
    covered = [i for shard in shards for i in range(shard.first, shard.first + shard.count)]
    assert covered == list(range(count))
    assert len(Plan(count, size)) == len(cuts)


@pytest.mark.parametrize(("fmt", "dtype"), OF_EACH)
def test_what_is_written_reads_back(tmp_path, fmt, dtype):
    slices = some_slices(7, dtype)
    for shard in Plan(7, 3):
        part = slices[shard.first : shard.first + shard.count]
        commit(tmp_path, FORMATS[fmt], Content.whole(shard, part), ORIGIN)
    read = list(read_slices(tmp_path))
    assert [index for index, _ in read] == list(range(7))
    np.testing.assert_array_equal(np.stack([x for _, x in read]), slices)
    assert read[0][1].dtype == dtype
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4224, 131_974, 8**8])
def test_a_tar_is_the_one_that_tarfile_writes(size):
    indices = (0, 7, 999_999_999, 10**12)
    files = [(index, bytes(size)) for index in indices]
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index, content in files:
            note = json.dumps(ORIGIN.record(index), sort_keys=True).encode()
            for name, body in ((f"{index:09}.json", note), (f"{index:09}.x", content)):
                member = tarfile.TarInfo(name)
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
        end = expected.tell()  # tarfile fills up to a whole record
    in_parts = [(index, (content[:5], memoryview(content)[5:])) for index, content in files]
    got = b"".join(tar_parts(in_parts, ".x", ORIGIN))
    assert got == expected.getvalue()[:end] + bytes(2 * tarfile.BLOCKSIZE)


def test_a_tar_is_a_webdataset_shard(tmp_path):
    slices = some_slices(2)
    commit(tmp_path, FORMATS["shard"], Content.whole(Shard(3, 6, 2), slices), ORIGIN)
    with tarfile.open(tmp_path / "shard-000003.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [
            "000000006.json",
            "000000006.npy",
            "000000007.json",
            "000000007.npy",
        ]
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
        note = json.load(tar.extractfile("000000007.json"))
        assert note == {
            "index": 7,
            "seed": 7,
            "model_sha256": "ab" * 32,
            "synthetic": True,
            "notice": "for research; not for diagnosis",
        }
        loaded = np.load(io.BytesIO(tar.extractfile("000000007.npy").read()), allow_pickle=False)
        np.testing.assert_array_equal(loaded, slices[1])
        assert loaded.flags.c_contiguous


def test_a_png_is_grey_and_labelled(tmp_path):
    commit(tmp_path, FORMATS["png"], Content.whole(Shard(0, 0, 1), some_slices(1)), ORIGIN)
    with Image.open(tmp_path / "shard-000000" / "000000000.png") as image:
        assert image.mode == "L"
        assert json.loads(image.text["fastmrigan"])["synthetic"] is True


@pytest.mark.parametrize(("fmt", "dtype"), OF_EACH)
def test_the_bytes_do_not_depend_on_the_time(tmp_path, fmt, dtype, monkeypatch):
    import time

    written = []
    for name, clock in (("a", 1e9), ("b", 2e9)):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        folder = tmp_path / name
        folder.mkdir()
        commit(folder, FORMATS[fmt], Content.whole(Shard(0, 0, 2), some_slices(2, dtype)), ORIGIN)
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        written.append([p.read_bytes() for p in files])
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("fmt", "name"),
    [("shard", "shard-000000.tar"), ("npz", "shard-000000.npz"), ("dicom", "shard-000000.tar")],
)
def test_a_damaged_shard_is_named(tmp_path, fmt, name):
    slices = some_slices(2, FORMATS[fmt].dtypes[-1])
    commit(tmp_path, FORMATS[fmt], Content.whole(Shard(0, 0, 2), slices), ORIGIN)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputRejected, match=f"{name}: not a whole shard"):
        list(read_slices(tmp_path))


@pytest.mark.parametrize(("fmt", "kind"), [("png", "png"), ("dicom-files", "dcm")])
def test_the_order_is_that_of_the_numbers_in_the_names(tmp_path, fmt, kind):
    slices = some_slices(12, FORMATS[fmt].dtypes[-1])
    commit(tmp_path, FORMATS[fmt], Content.whole(Shard(0, 0, 12), slices), ORIGIN)
    for path in (tmp_path / "shard-000000").iterdir():
        path.rename(path.with_name(f"{int(path.stem)}.{kind}"))
    read = list(read_slices(tmp_path))
    assert [index for index, _ in read] == list(range(12))
    np.testing.assert_array_equal(np.stack([x for _, x in read]), slices)


def test_an_unfinished_job_is_named(tmp_path):
    for shard in list(Plan(10, 4))[:2]:
        commit(tmp_path, FORMATS["shard"], Content.whole(shard, some_slices(4)), ORIGIN)
    (tmp_path / "run.json").write_text('{"count": 10}')
    with pytest.raises(UsageError, match="holds 8 of 10 slices; finish the job"):
        list(read_slices(tmp_path))
    (tmp_path / "shard-000000.tar").unlink()
    with pytest.raises(UsageError, match="slice 0 is missing"):
        list(read_slices(tmp_path))


@pytest.mark.parametrize("text", ["[1]", "xx", '{"count": "many"}'])
def test_a_damaged_run_json_is_named(tmp_path, text):
    commit(tmp_path, FORMATS["shard"], Content.whole(Shard(0, 0, 2), some_slices(2)), ORIGIN)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputRejected, match=r"run\.json: not a job's"):
        list(read_slices(tmp_path))


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(UsageError, match="holds no shards; make some"):
        list(read_slices(tmp_path))
