"""Bulk translation: input i is output i, with the guarantees of every bulk job."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from job_files import digests
from PIL import Image

from fastmrigan import NOTICE
from fastmrigan.errors import DiskFull, InputRejected, Interrupted, UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import job
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.translation import translate
from fastmrigan.metrics.slice_sets import read_slice_set
from fastmrigan.runtime import load

FAULT = Path(__file__).parents[1] / "support" / "fault.py"
COUNTS = {"normal": 21, "tumour": 16}  # slices of each label in `data`


def make_data(folder: Path, seed: int = 0, size: int = tiny.SIZE) -> Path:
    """A prepared dataset of noise, 37 slices under two labels, a fifth of them for testing."""
    dice = np.random.default_rng(seed)
    for label, count in COUNTS.items():
        (folder / "png" / label).mkdir(parents=True)
        for number in range(count):
            x = dice.integers(0, 256, (size, size), dtype=np.uint8)
            Image.fromarray(x).save(folder / "png" / label / f"{number:02}.png")
    options = PrepareOptions(size=size, grading="minmax", contrast="t1", test_fraction=0.2)
    prepare(folder / "png", folder / "set", options)
    return folder / "set"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def model(write_model) -> Path:
    """Makes the negative of each slice."""
    document = tiny.metadata(task="translate", latent_size=None, source_contrast="t1")
    return write_model(document, tiny.tiny_graph("translate"), "negative.onnx")


def records(folder: Path, format: str) -> list[dict[str, object]]:
    """What is said of each slice, by other readers than ours."""
    found = []
    for path in sorted(folder.glob("shard-*")):
        if format == "shard":
            with tarfile.open(path) as tar:
                names = [name for name in tar.getnames() if name.endswith(".json")]
                found += [json.load(tar.extractfile(name)) for name in names]
        elif format == "png":
            for file in sorted(path.glob("*.png")):
                with Image.open(file) as image:
                    found.append(json.loads(image.text["fastmrigan"]))
        else:
            arrays = dict(np.load(io.BytesIO(path.read_bytes()), allow_pickle=False))
            many = len(arrays.pop("slices"))
            columns = {name: np.broadcast_to(x, many).tolist() for name, x in arrays.items()}
            rows = zip(*columns.values(), strict=True)
            found += [dict(zip(columns, row, strict=True), synthetic=True) for row in rows]
    return found


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("format", ["shard", "npz", "png"])
@pytest.mark.parametrize(
    ("split", "label"), [("all", None), ("test", None), ("train", "tumour"), ("all", "tumour")]
)
def test_output_i_is_input_i_and_says_so(model, data, tmp_path, format, split, label, mode):
    dataset, out = PreparedDataset.open(data), tmp_path / "out"
    generator = load(model, precision="fp32", batch=3, mode=mode)
    result = translate(generator, dataset, Output(out, format, 7), split=split, label=label)
    lines = [json.loads(line) for line in (data / "index.jsonl").read_text().splitlines()]
    wanted = [
        line for line in lines if split in ("all", line["split"]) and label in (None, line["label"])
    ]
    assert result.slices == result.made == len(wanted) > 3
    grey = np.load(data / "slices.npy")[[line["index"] for line in wanted]]  # 0..65535
    negative = 1 - grey / np.float64(65535)  # of [-1, 1], on the scale 0..1
    read = dict(read_slices(out))
    assert list(read) == list(range(len(wanted)))
    assert np.abs(np.stack(list(read.values())) - 255 * negative).max() <= 0.501
    assert records(out, format) == [
        {
            "index": i,
            "dataset": dataset.info.fingerprint,
            "source": line["source"],
            "source_index": line["index"],
            "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "notice": NOTICE,
            "synthetic": True,
        }
        for i, line in enumerate(wanted)
    ]


def test_sixteen_bits_keep_their_depth(model, data, tmp_path):
    dataset = PreparedDataset.open(data)
    translate(load(model, precision="fp32"), dataset, Output(tmp_path / "out", dtype="uint16"))
    made = np.stack([x for _, x in read_slices(tmp_path / "out")]).astype(int)
    assert np.abs(made - (65535 - np.load(data / "slices.npy").astype(int))).max() <= 1


def test_the_metrics_read_the_folder(model, data, tmp_path):
    dataset = PreparedDataset.open(data)
    translate(load(model, precision="fp32"), dataset, Output(tmp_path / "out"), split="test")
    found = read_slice_set(tmp_path / "out")
    np.testing.assert_allclose(found.slices, -dataset.slices("test"), atol=1 / 255 + 1e-6)
    assert found.facts["dataset"] == dataset.info.fingerprint
    assert found.facts["task"] == "translate"


def test_run_json_pins_what_the_bytes_depend_on(model, data, tmp_path):
    generator, dataset = load(model, batch=8), PreparedDataset.open(data)
    translate(generator, dataset, Output(tmp_path), split="train", label="normal")
    pinned = json.loads((tmp_path / "run.json").read_text())
    assert set(pinned) == {
        *("layout", "model_sha256", "task", "dataset", "split", "label", "count", "shard_size"),
        *("format", "dtype", "batch", "instruction_set"),
        *("backend", "version", "device", "precision"),
        *("mode", "streams", "threads", "pinning", "nodes"),
    }
    assert pinned["dataset"] == dataset.info.fingerprint
    assert (pinned["split"], pinned["label"]) == ("train", "normal")


def test_a_resumed_job_makes_what_is_missing_and_nothing_else(model, data, tmp_path):
    generator, dataset = load(model, batch=3), PreparedDataset.open(data)
    output = Output(tmp_path / "out", shard_size=7)
    translate(generator, dataset, output)
    before = digests(output.out)
    assert len(before) == 6
    (output.out / "shard-000002.tar").unlink()
    (output.out / "shard-000004.tar.tmp").write_bytes(b"half a shard")
    result = translate(generator, dataset, output)
    assert (result.slices, result.made) == (37, 7)
    assert digests(output.out) == before


def test_another_job_in_the_same_folder_is_refused(model, data, tmp_path, write_model):
    generator, dataset = load(model, batch=8), PreparedDataset.open(data)
    other = PreparedDataset.open(make_data(tmp_path, seed=1))
    document = tiny.metadata(task="translate", latent_size=None, recipe="another")
    another = load(write_model(document, tiny.tiny_graph("translate")), batch=8)
    output = Output(tmp_path / "out")
    translate(generator, dataset, output)
    before = digests(output.out)
    for arguments, options, named in [
        ((generator, other, output), {}, f"dataset is '{dataset.info.fingerprint}' there"),
        ((another, dataset, output), {}, "model_sha256 is"),
        ((generator, dataset, output), {"split": "train"}, "split is 'all' there and 'train' here"),
        ((generator, dataset, output), {"label": "tumour"}, "label is None there and 'tumour'"),
        ((load(model, batch=4), dataset, output), {}, "batch is 8 there and 4 here"),
        ((generator, dataset, Output(output.out, "png")), {}, "format is 'shard' there and 'png'"),
    ]:
        with pytest.raises(UsageError, match=f"run.json: {named}"):
            translate(*arguments, **options)
    run = output.out / "run.json"
    text = run.read_text()
    run.write_text(text.replace('"precision": "fp32"', '"precision": "bf16"'))
    with pytest.raises(UsageError, match="precision is 'bf16' there and 'fp32' here"):
        translate(generator, dataset, output)
    run.write_text(text)
    assert digests(output.out) == before


def test_a_folder_keeps_to_one_task(model, data, tmp_path, write_model):
    dataset, sampler, translator = PreparedDataset.open(data), load(write_model()), load(model)
    sampled, translated = tmp_path / "sampled", tmp_path / "translated"
    synthesise(sampler, JobOptions(sampled, 4))
    translate(translator, dataset, Output(translated))
    told = r"run\.json: a job of task '{}' began there, this one is '{}'; take another --out"
    with pytest.raises(UsageError, match=told.format("sample", "translate")):
        translate(translator, dataset, Output(sampled))
    with pytest.raises(UsageError, match=told.format("translate", "sample")):
        synthesise(sampler, JobOptions(translated, 4))


def test_what_cannot_be_translated_is_named_and_leaves_nothing(model, data, tmp_path, write_model):
    dataset, out = PreparedDataset.open(data), tmp_path / "out"
    sampler, translator = load(write_model()), load(model)
    wide = PreparedDataset.open(make_data(tmp_path, size=24))
    for arguments, options, error, told in [
        ((sampler, dataset), {}, UsageError, "samples slices and cannot .*`fastmrigan synth`"),
        ((translator, wide), {}, UsageError, "24x24, .* translates 16x16; .*--size 16"),
        ((translator, dataset), {"split": "half"}, UsageError, "unknown split 'half'"),
        ((translator, dataset), {"label": "cat"}, UsageError, "no label 'cat'; it has 'normal'"),
        ((translator, dataset), {"split": "guard"}, UsageError, "no slices in split guard"),
    ]:
        with pytest.raises(error, match=told):
            translate(*arguments, Output(out), **options)
    with pytest.raises(UsageError, match=r"translates slices and .* use `fastmrigan translate`"):
        synthesise(translator, JobOptions(out, 4))
    with pytest.raises(UsageError, match="is the prepared dataset itself"):
        translate(translator, dataset, Output(data))
    harmed = make_data(tmp_path / "harmed")
    array = np.load(harmed / "slices.npy")
    array[2, 3, 4] ^= 1
    np.save(harmed / "slices.npy", array)
    with pytest.raises(InputRejected, match="not those of its fingerprint"):
        translate(translator, PreparedDataset.open(harmed), Output(out))
    assert not out.exists()
    assert not list(data.glob("run.json"))


def test_a_full_disk_keeps_what_is_done_and_resumes(model, data, tmp_path, monkeypatch):
    generator, dataset = load(model, batch=8), PreparedDataset.open(data)
    whole, output = (Output(tmp_path / name, shard_size=7) for name in ("whole", "out"))
    translate(generator, dataset, whole)
    real = job.commit

    def full_at_three(folder, fmt, content, origin):
        if content.shard.number == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(folder, fmt, content, origin)

    monkeypatch.setattr(job, "commit", full_at_three)
    with pytest.raises(DiskFull, match=r"no space left; 21 of 37 slices are safe") as full:
        translate(generator, dataset, output)
    assert full.value.exit_code == 4
    monkeypatch.setattr(job, "commit", real)
    translate(generator, dataset, output)
    assert digests(output.out) == digests(whole.out)


def test_ctrl_c_stops_cleanly_and_the_job_resumes(model, data, tmp_path, monkeypatch):
    generator, dataset = load(model, batch=4), PreparedDataset.open(data)
    whole, output = (Output(tmp_path / name, shard_size=8) for name in ("whole", "out"))
    translate(generator, dataset, whole)
    real, calls = generator.backend.start, []

    def press_in_the_third_shard(x):
        calls.append(len(x))
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return real(x)

    monkeypatch.setattr(generator.backend, "start", press_in_the_third_shard)
    with pytest.raises(Interrupted, match=r"stopped with 16 of 37 slices made; .*goes on") as left:
        translate(generator, dataset, output)
    assert left.value.exit_code == 130
    assert sorted(digests(output.out)) == ["shard-000000.tar", "shard-000001.tar"]
    monkeypatch.undo()
    assert translate(generator, dataset, output).made == 21
    assert digests(output.out) == digests(whole.out)


def test_no_torch(model, data, tmp_path):
    code = f"""
import sys
sys.argv = ["fastmrigan", "translate", {str(model)!r}, "--inputs", {str(data)!r}, "--out",
            {str(tmp_path / "out")!r}]
from fastmrigan.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list(read_slices(tmp_path / "out"))) == 37


@pytest.mark.parametrize(
    "point",
    [
        "before-rename",
        *(
            pytest.param(point, marks=pytest.mark.slow)
            for point in ("before-fsync", "before-folder-fsync", "after-folder-fsync")
        ),
    ],
)
def test_death_at_each_point_of_a_write(model, data, tmp_path, point):
    dataset, whole, out = PreparedDataset.open(data), tmp_path / "whole", tmp_path / "out"
    command = ["translate", model, "--inputs", data, "--out", out, "--shard-size", 7]
    command += ["--batch", 3, "--threads", 1]
    killed = subprocess.run(
        [sys.executable, FAULT, point, "3", *map(str, command)], capture_output=True, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = [p for p in out.glob("shard-*") if not p.name.endswith(".tmp")]
    assert len(finished) == (2 if point in ("before-fsync", "before-rename") else 3)
    generator = load(model, batch=3, threads=1, mode="throughput")  # as the command takes it
    translate(generator, dataset, Output(whole, shard_size=7))
    resumed = translate(generator, dataset, Output(out, shard_size=7))
    assert resumed.made == 37 - 7 * len(finished)
    assert digests(out) == digests(whole)
