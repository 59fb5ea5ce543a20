"""What `fastmrigan evaluate` reads: folders of every format, and what it refuses."""

import shutil

import numpy as np
import pytest

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.jobs import shards
from fastmrigan.metrics.slice_sets import read_slice_set


@pytest.mark.parametrize("fmt", ["shard", "png", "npz"])
def test_folders_of_every_format(tmp_path, make, fmt):
    slices = make.discs(20, 0, tumour=True)
    found = read_slice_set(make.shards(tmp_path / "made", slices, fmt), limit=18)
    np.testing.assert_allclose(found.slices, slices[:18], atol=1 / 255)
    assert not found.held_out.any()
    assert found.facts == {}


def test_missing_and_empty_folders(world, tmp_path, measure, invoke):
    out = tmp_path / "r.html"
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        invoke("--real", tmp_path / "nowhere", "--synthetic", world.synthetic, "--out", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty: holds no shards"):
        invoke("--real", world.data, "--synthetic", tmp_path / "empty", "--out", out)
    with pytest.raises(UsageError, match=r"no checkpoint here; name the --out folder"):
        invoke(
            "--real", world.data, "--synthetic", world.synthetic, "--out", out,
            "--run", tmp_path / "empty",
        )  # fmt: skip
    with pytest.raises(UsageError, match="no label 'cyst'; it has 'tumour', 'normal'"):
        invoke(
            "--real", world.data, "--synthetic", world.synthetic, "--out", out, "--label", "cyst"
        )
    plain = shutil.copytree(world.synthetic, tmp_path / "plain")
    with pytest.raises(UsageError, match="is no prepared dataset, so it has no label 'tumour'"):
        measure(plain, world.synthetic, label="tumour")
    assert not out.exists()


def test_sizes_that_differ_are_both_named(world, tmp_path, make, measure):
    larger = make.shards(tmp_path / "larger", make.discs(5, 0, tumour=True, size=96))
    with pytest.raises(UsageError, match=r"data holds 64x64 and .*larger holds 96x96 slices"):
        measure(world.data, larger)


def test_too_few_slices(world, tmp_path, make, measure):
    one = make.shards(tmp_path / "one", make.discs(1, 0, tumour=True))
    with pytest.raises(UsageError, match="one: 1 slices found, at least 2 are needed"):
        measure(world.data, one)
    three = make.shards(tmp_path / "three", make.discs(3, 0, tumour=True))
    with pytest.raises(UsageError, match="three: 3 real slices, a split in halves needs 4"):
        measure(three, world.synthetic)


def test_mixed_sizes_in_one_folder(tmp_path, make):
    folder = make.shards(tmp_path / "mixed", make.discs(16, 0, tumour=True))
    odd = to_uint8(make.discs(4, 0, tumour=True, size=32))
    content = shards.Content.whole(shards.Shard(1, 16, 4), odd)
    shards.commit(folder, shards.FORMATS["shard"], content, shards.Origin(0, ""))
    with pytest.raises(UsageError, match=r"different sizes \(32x32 and 64x64\) in one folder"):
        read_slice_set(folder)


def test_damaged_shard(tmp_path, make):
    folder = make.shards(tmp_path / "damaged", make.discs(16, 0, tumour=True))
    path = folder / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputRejected, match=r"shard-000000.tar: not a whole shard"):
        read_slice_set(folder)


def test_damaged_dataset(tmp_path, world, make, measure):
    data = make.dataset(tmp_path / "data", {"tumour": make.discs(8, 0, tumour=True)})
    content = bytearray((data / "slices.npy").read_bytes())
    content[-1] ^= 1
    (data / "slices.npy").write_bytes(content)
    with pytest.raises(InputRejected, match=r"data: a damaged data set \(its bytes are not"):
        measure(data, world.synthetic)


def test_a_dataset_is_not_synthetic(world, measure):
    with pytest.raises(UsageError, match=r"data: a prepared dataset, which holds real slices"):
        measure(world.data, world.data)


def test_the_size_of_the_run(tmp_path, world, make, measure):
    small = make.discs(8, 0, tumour=True, size=32)
    data = make.dataset(tmp_path / "data", {"tumour": small})
    made = make.shards(tmp_path / "made", small)
    with pytest.raises(UsageError, match=r"run was trained on 64x64 .*data and .* are 32x32"):
        measure(data, made, run=world.run)


@pytest.mark.parametrize("line", ["garbage", '{"step": 2}', '{"step": 2, "epoch": "x"}'])
def test_damaged_metrics_of_the_run(tmp_path, world, line, measure):
    run = tmp_path / "run"
    shutil.copytree(world.run, run)
    first = (run / "metrics.jsonl").read_text().splitlines()[0]
    (run / "metrics.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(InputRejected, match=r"run/metrics.jsonl: line 2 "):
        measure(world.data, world.synthetic, run=run)


@pytest.mark.parametrize(
    ("content", "fact"), [(b"[1]", "no JSON object"), (b"xx", "not JSON"), (b"\xff", "not JSON")]
)
def test_damaged_run_json(tmp_path, make, content, fact):
    made = make.shards(tmp_path / "made", make.discs(4, 0, tumour=True))
    (made / "run.json").write_bytes(content)
    with pytest.raises(InputRejected, match=rf"run.json: .*{fact}"):
        read_slice_set(made, limit=4)
