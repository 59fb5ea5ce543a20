"""Engine files: whatever is not as it was built is refused by name, before an engine would run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from engine_files import COMPUTE, VERSION, write_engine

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.runtime.cuda_driver import CudaDevice
from fastmrigan.runtime.engine_file import (
    EngineFile,
    check_device,
    check_precision,
    check_version,
    read_engine_file,
    read_model,
    rendered,
    sidecar_path,
)
from fastmrigan.runtime.model_file import read_model_file
from fastmrigan.runtime.sum64 import PIECE, sum64

LIMIT_MS = 10.0
SIZE = 25_000_003  # bytes of an engine whose sha256 takes longer; its last word is filled up


@pytest.fixture
def engine(write_model) -> Path:
    return write_engine(write_model())


def read(path: Path) -> EngineFile:
    """All that does not need the machine it is run on."""
    file = read_engine_file(path)
    assert file.data
    return file


def test_an_engine_stands_for_its_model_file(write_model):
    model = read_model_file(write_model(tiny.metadata(precision="fp16")))
    file = read(write_engine(model.path))
    assert isinstance(read_model(file.path), EngineFile)
    assert read_model(model.path) == model
    assert file.metadata == model.metadata
    assert file.sha256 == model.sha256
    assert file.parity == model.parity
    assert file.precision == "fp16"
    assert file.data == file.path.read_bytes()
    assert file.sidecar.buckets == (1, 4)


def places(size: int, count: int, rng: np.random.Generator) -> list[int]:
    """Where to flip a byte: the first and the last, the ends of pieces, and others at random."""
    ends = {0, size - 1} | {p for p in (PIECE - 1, PIECE, size // PIECE * PIECE) if p < size}
    others = (int(place) for place in rng.choice(size, count, replace=False))
    return [*ends, *(place for place in others if place not in ends)][:count]


def test_100_of_100_flipped_bytes_are_refused_in_time(write_model):
    path = write_engine(write_model(), size=SIZE)
    rng = np.random.default_rng(0)
    for target, finds in ((path, "sum64 "), (sidecar_path(path), "")):
        taken = []
        for place in places(target.stat().st_size, 50, rng):
            with target.open("r+b") as file:
                file.seek(place)
                kept = file.read(1)
                file.seek(place)
                file.write(bytes([kept[0] ^ int(rng.integers(1, 256))]))
            began = time.thread_time()  # not what others on the machine take
            with pytest.raises(ModelRefused, match=rf"/tiny\.engine.*{finds}") as refused:
                read_engine_file(path).data  # noqa: B018 (what it raises is what is tested)
            taken.append((time.thread_time() - began) * 1e3)
            assert str(refused.value).startswith(f"{target}: ")
            assert "\n" not in str(refused.value)
            with target.open("r+b") as file:
                file.seek(place)
                file.write(kept)
        assert len(taken) == 50
        assert np.median(taken) < LIMIT_MS, f"{target.name}: median {np.median(taken):.1f} ms"
    read(path)  # every byte is as it was


def swapped(words: np.ndarray) -> None:
    words[[3, 400]] = words[[400, 3]]


def evened_out(words: np.ndarray) -> None:
    words[3] += np.uint64(1)
    words[400] -= np.uint64(1)


def turned_round(words: np.ndarray) -> None:
    words[:] = words[::-1].copy()


def top_bits(words: np.ndarray) -> None:
    words[[3, 400]] ^= np.uint64(1 << 63)


@pytest.mark.parametrize("change", [swapped, evened_out, turned_round, top_bits])
def test_what_keeps_the_sum_is_refused_by_the_sha256(engine, change):
    kept = read(engine).sidecar.engine_sum64
    words = np.frombuffer(engine.read_bytes(), "<u8").copy()
    change(words)
    engine.write_bytes(words.tobytes())
    with engine.open("rb") as file:
        assert sum64(file, engine.stat().st_size) == kept
    with pytest.raises(ModelRefused, match=r"was built \(sha256 [0-9a-f]{16}, expected") as refused:
        read(engine)
    assert str(refused.value).startswith(f"{engine}: is not the engine that")
    assert "\n" not in str(refused.value)


def changed(path: Path, **facts: object) -> None:
    """The sidecar rewritten with other facts, and sealed again: as another version would."""
    beside = sidecar_path(path)
    document = json.loads(beside.read_text()) | facts
    del document["sidecar_sha256"]
    beside.write_bytes(rendered({k: v for k, v in document.items() if v is not None}))


def unsealed(path: Path) -> None:
    beside = sidecar_path(path)
    document = json.loads(beside.read_text())
    del document["sidecar_sha256"]
    beside.write_text(json.dumps(document, indent=1) + "\n")


def relabelled(path: Path) -> None:
    beside = sidecar_path(path)
    beside.write_text(beside.read_text().replace(f'"{COMPUTE}"', '"8.9"'))


WRONG = {
    "engine cut short": (lambda p: os.truncate(p, 100), "engine: has less than the 4,096 bytes"),
    "engine empty": (lambda p: os.truncate(p, 0), "engine: has less than the 4,096 bytes"),
    "engine grown": (lambda p: os.truncate(p, 5000), "engine: has more than the 4,096 bytes"),
    "engine of others": (lambda p: p.chmod(0o620), r"engine: others may write to it \(mode 0620\)"),
    "sidecar of others": (
        lambda p: sidecar_path(p).chmod(0o602),
        r"engine\.json: others may write to it \(mode 0602\)",
    ),
    "no sidecar": (lambda p: sidecar_path(p).unlink(), "engine: has no sidecar tiny.engine.json"),
    "sidecar a folder": (
        lambda p: (sidecar_path(p).unlink(), sidecar_path(p).mkdir()),
        "engine.json: is no plain file",
    ),
    "sidecar a pipe": (
        lambda p: (sidecar_path(p).unlink(), os.mkfifo(sidecar_path(p), 0o600)),
        "engine.json: is no plain file",
    ),
    "sidecar empty": (lambda p: os.truncate(sidecar_path(p), 0), "engine.json: is not JSON"),
    "sidecar too long": (
        lambda p: os.truncate(sidecar_path(p), 2 << 20),
        r"engine\.json: is no engine's sidecar \(over 1 MiB\)",
    ),
    "sidecar too deep": (
        lambda p: sidecar_path(p).write_text("[" * 100_000),
        "engine.json: is not JSON",
    ),
    "sidecar deep enough to be read": (
        lambda p: sidecar_path(p).write_text('{"kind":' + "[" * 900 + "]" * 900 + "}"),
        "engine.json: is (not JSON|no engine's sidecar)",
    ),
    "sidecar a list": (lambda p: sidecar_path(p).write_text("[]"), "is no engine's sidecar"),
    "sidecar of what is no engine": (lambda p: changed(p, kind="fastmrigan-bench"), "is no engine"),
    "newer schema": (
        lambda p: changed(p, schema_version=2),
        "engine.json: has schema version 2, this fastmrigan knows up to 1; upgrade fastmrigan",
    ),
    "older schema": (lambda p: changed(p, schema_version=0), "is wrong at schema_version"),
    "no seal": (unsealed, r"is not as it was written \(sidecar_sha256 does not hold\)"),
    "another fact": (relabelled, r"is not as it was written \(sidecar_sha256 does not hold\)"),
    "a fact less": (lambda p: changed(p, buckets=None), "is wrong at buckets: Field required"),
    "a fact more": (lambda p: changed(p, driver="x.so"), "is wrong at driver: Extra inputs are"),
    "no batches": (lambda p: changed(p, buckets=[]), "is wrong at buckets"),
    "falling batches": (lambda p: changed(p, buckets=[4, 1]), "at buckets: .*rising batch sizes"),
    "equal batches": (lambda p: changed(p, buckets=[4, 4]), "at buckets: .*rising batch sizes"),
    "batches of nothing": (lambda p: changed(p, buckets=[0, 4]), "at buckets: .*rising batch"),
    "batches as text": (lambda p: changed(p, buckets=["1"]), r"is wrong at buckets\.0"),
    "size as text": (lambda p: changed(p, size="4096"), "is wrong at size"),
    "yes for true": (lambda p: changed(p, version_compatible="yes"), "at version_compatible"),
    "another precision": (
        lambda p: changed(p, precision="bf16"),
        "precision: its model is in fp32",
    ),
    "no latent size": (
        lambda p: changed(
            p, model=json.loads(sidecar_path(p).read_text())["model"] | {"latent_size": None}
        ),
        "model: one that samples must state latent_size",
    ),
    "no sum": (
        lambda p: changed(p, engine_sum64=None),
        "engine.json: is wrong at engine_sum64: Field required; build the engine again",
    ),
    "another sum": (
        lambda p: changed(p, engine_sum64="0" * 16),
        r"engine: is not the engine that was built \(sum64 [0-9a-f]{16}, expected 0{16}\):",
    ),
    "another engine": (
        lambda p: changed(p, engine_sha256="0" * 64),
        r"engine: is not the engine that was built \(sha256 [0-9a-f]{16}, expected 0{16}\):",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(engine, case):
    change, text = WRONG[case]
    change(engine)
    with pytest.raises(ModelRefused, match=text) as refused:
        read(engine)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_a_size_is_wrong_before_the_engine_is_read(engine, size):
    os.truncate(engine, size)
    with pytest.raises(ModelRefused, match="than the 4,096 bytes that its sidecar states"):
        read_engine_file(engine)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: os.truncate(p, 4000), "has less than the 4,096 bytes"),
        (lambda p: os.truncate(p, 5000), "has more than the 4,096 bytes"),
        (lambda p: p.chmod(0o602), "others may write to it"),
        (lambda p: p.write_bytes(bytes(4096)), "is not the engine that was built"),
    ],
)
def test_what_changes_after_the_sidecar_was_read_is_found(engine, change, text):
    file = read_engine_file(engine)
    change(engine)
    with pytest.raises(ModelRefused, match=text):
        file.data  # noqa: B018 (what it raises is what is tested)


def test_absent_engine_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"x\.engine: cannot read the engine file: No such file"):
        read_engine_file(tmp_path / "x.engine")


def test_what_another_user_owns_is_refused(engine, monkeypatch):
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    else:
        os.chown(engine, 12345, -1)
    with pytest.raises(ModelRefused, match=r"belongs to another user \(uid \d+\)"):
        read_engine_file(engine)


@pytest.mark.parametrize(
    ("built", "compatible", "here", "text"),
    [
        ("11.1.0.106", False, "11.1.0.106", None),
        (
            "11.1.0.106",
            False,
            "11.1.0.107",
            r"built by TensorRT 11\.1\.0\.106, 11\.1\.0\.107 is in",
        ),
        ("11.1.0.106", False, "11.2.0.1", "runs on its own version alone; install tensorrt 11.1"),
        ("11.1.0.106", True, "11.1.0.106", None),
        ("11.1.0.106", True, "11.2.0.1", None),
        ("11.9.0", True, "11.10.0", None),  # as numbers, not as text
        ("11.1.0.106", True, "11.0.0.114", "for later versions that can run it, and 11.0.0.114"),
        ("11.1.0.106", True, "12.0.0", "for later versions that can run it, and 12.0.0 is none"),
        ("10.13.3.9", True, "11.1.0.106", None),  # TensorRT's support matrix allows this one
        ("10.13.3.9.post1", True, "11.1.0.106", None),
        ("9.3.0", True, "11.1.0.106", "is none of them"),
        ("eleven", True, "11.1.0.106", "is none of them"),
    ],
)
def test_versions(write_model, built, compatible, here, text):
    path = write_engine(write_model(), version=built, version_compatible=compatible)
    file = read_engine_file(path)
    if text is None:
        check_version(file, here)
    else:
        with pytest.raises(ModelRefused, match=text):
            check_version(file, here)


@pytest.mark.parametrize(
    ("built", "asked", "allowed"),
    [
        *(("fp32", "auto", True), ("fp32", "fp32", True), ("fp32", "bf16", False)),
        *(("bf16", "auto", True), ("bf16", "bf16", True), ("bf16", "fp32", False)),
        *(("fp16", "fp16", True), ("fp32", "fp12", False)),
    ],
)
def test_precisions(write_model, built, asked, allowed):
    file = read_engine_file(write_engine(write_model(tiny.metadata(precision=built))))
    if allowed:
        check_precision(file, asked)
    else:
        with pytest.raises(UsageError, match=rf"precision '{asked}': .* was built in {built} and"):
            check_precision(file, asked)


def test_devices(engine):
    file = read_engine_file(engine)
    here = CudaDevice("H200", COMPUTE)
    assert check_device(file, here) == here
    with pytest.raises(ModelRefused, match=r"for compute capability 9\.0, and L4 has 8\.9; build"):
        check_device(file, CudaDevice("L4", "8.9"))
    with pytest.raises(UsageError, match=r"no CUDA driver or device here, .* capability 9\.0; run"):
        check_device(file, None)


def test_info_prints_an_engine(write_model, fastmrigan):
    path = write_engine(write_model(), version_compatible=True)
    done = fastmrigan("info", path)
    assert done.returncode == 0, done.stderr
    assert f"of tensorrt {VERSION} or later, batches 1, 4" in done.stdout
    assert "compute capability 9.0" in done.stdout
    assert "samples 16x16 slices" in done.stdout
    told = json.loads(fastmrigan("info", path, "--json").stdout)
    assert told["model"]["recipe"] == "tiny"
    assert told["bytes"] == 4096
    path.write_bytes(bytes(4096))
    done = fastmrigan("info", path)
    assert done.returncode == 5
    assert "tiny.engine: is not the engine that was built" in done.stderr


def test_a_refusal_is_exit_5(engine, fastmrigan, tmp_path):
    engine.chmod(0o666)
    done = fastmrigan("synth", engine, "--count", 1, "--out", tmp_path / "out")
    assert done.returncode == 5
    assert done.stderr.strip().endswith("where you trust it")
    assert done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()
