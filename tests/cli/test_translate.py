"""`fastmrigan translate` as a user meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from PIL import Image

from fastmrigan.cli import main
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare

WARNING = "was trained to translate"


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., Path]:
    """make_data(contrast=…, size=…) prepares six slices of noise labelled "normal"."""
    dice = np.random.default_rng(0)
    source = tmp_path / "png" / "normal"
    source.mkdir(parents=True)
    for number in range(6):
        x = dice.integers(0, 256, (tiny.SIZE, tiny.SIZE), dtype=np.uint8)
        Image.fromarray(x).save(source / f"{number}.png")

    def make(contrast: str = "t1", size: int = tiny.SIZE) -> Path:
        out = tmp_path / f"{contrast}-{size}"
        prepare(source.parent, out, PrepareOptions(size=size, contrast=contrast))
        return out

    return make


@pytest.fixture
def write_translator(write_model) -> Callable[..., Path]:
    def write(source_contrast: str | None = "t1") -> Path:
        document = tiny.metadata(
            task="translate", latent_size=None, source_contrast=source_contrast
        )
        return write_model(document, tiny.tiny_graph("translate"), "negative.onnx")

    return write


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fastmrigan", *map(str, arguments)])
        monkeypatch.setattr("signal.signal", lambda *_: None)  # this process keeps its own
        capsys.readouterr()  # what making the inputs said
        with pytest.raises(SystemExit) as left:
            main()
        stdout, stderr = capsys.readouterr()
        return int(left.value.code or 0), stdout, stderr

    return run


def test_translates_and_goes_on(fastmrigan, make_data, write_translator, tmp_path):
    arguments = ["translate", write_translator(), "--inputs", make_data(), "--out", tmp_path / "o"]
    done = fastmrigan(*arguments, "--format", "png", "--label", "normal")
    assert done.returncode == 0, done.stderr
    engine, result = done.stdout.strip().splitlines()
    assert " in fp32 (auto: the " in engine
    assert "6 slices, 6 made now" in result
    assert WARNING not in done.stderr
    assert len(list((tmp_path / "o" / "shard-000000").glob("*.png"))) == 6
    again = fastmrigan(*arguments, "--format", "png", "--label", "normal")
    assert "6 slices, 0 made now" in again.stdout


@pytest.mark.parametrize(
    ("have", "wants", "warned"),
    [
        ("t2", "t1", True),
        ("t1", "t1", False),
        ("unknown", "t1", False),
        ("t2", "unknown", False),
        ("t2", None, False),
    ],
)
def test_another_contrast_is_a_warning(
    command, make_data, write_translator, tmp_path, have, wants, warned
):
    model, data = write_translator(wants), make_data(have)
    code, stdout, stderr = command("translate", model, "--inputs", data, "--out", tmp_path / "o")
    assert code == 0, stderr
    assert "6 slices, 6 made now" in stdout
    expected = f"warning: {data}: slices are {have}, {model} was trained to translate {wants}\n"
    assert (expected in stderr) is warned
    assert (WARNING in stderr) is warned


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"--split": "half"}, "unknown split 'half'; train, test, guard or all"),
        ({"--label": "tumour"}, "no label 'tumour'; it has 'normal'"),
        ({"--format": "gif"}, "--format gif: unknown; choose one of shard, npz, png"),
        ({"--shard-size": 0}, "--shard-size 0: expected at least 1"),
        ({"--dtype": "int4"}, "--dtype int4: unknown"),
        ({"--batch": 0}, "batch 0: expected 1 to 4,096"),
        ({"--threads": 0}, "threads 0: expected at least 1"),
        ({"--backend": "magic"}, "'magic': unknown; choose one of auto"),
        ({"--precision": "fp4"}, "precision 'fp4'"),
        ({"--inputs": "nowhere"}, "nowhere: no such file or folder"),
    ],
)
def test_wrong_values_are_named(command, make_data, write_translator, tmp_path, options, told):
    settings = {"--inputs": make_data(), "--out": tmp_path / "o"} | options
    flat = [part for pair in settings.items() for part in pair]
    code, _, stderr = command("translate", write_translator(), *flat)
    assert code == 2
    assert stderr.startswith("fastmrigan: ")
    assert stderr.count("\n") == 1
    assert told in stderr
    assert not (tmp_path / "o").exists()


def test_a_model_that_does_not_fit_is_refused_before_its_engine_starts(
    command, make_data, write_model, write_translator, tmp_path, monkeypatch
):
    def no_engine(*_: object) -> None:
        raise AssertionError("an engine was started")

    monkeypatch.setattr("fastmrigan.runtime.generator.open_backend", no_engine)
    for model, size, told in [
        (write_model(), 16, "samples slices and cannot translate them; use `fastmrigan synth`"),
        (write_translator(), 24, "translates 16x16; prepare them with --size 16"),
    ]:
        data = make_data(size=size)
        code, _, stderr = command("translate", model, "--inputs", data, "--out", tmp_path / "o")
        assert code == 2
        assert told in stderr
    assert not (tmp_path / "o").exists()


def test_synth_names_the_command_for_a_model_that_translates(command, write_translator, tmp_path):
    out = tmp_path / "o"
    code, _, stderr = command("synth", write_translator(), "--count", 4, "--out", out)
    assert code == 2
    assert "translates slices and cannot sample them; use `fastmrigan translate`" in stderr
    assert not out.exists()
