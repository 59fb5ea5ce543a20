"""`fastmrigan style-transfer` as a user meets it."""

import hashlib
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastmrigan.cli import main
from fastmrigan.jobs.shards import read_slices


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line in this process (torch is loaded once): exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fastmrigan", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def sources(tmp_path_factory, contents, styles):
    """A prepared dataset of three slices, a synth folder of two, and an image of 48x40."""
    from fastmrigan.imaging.prepare import PrepareOptions, prepare
    from fastmrigan.imaging.quantise import to_uint8
    from fastmrigan.jobs.shards import FORMATS, Content, Origin, Shard, commit

    root = tmp_path_factory.mktemp("sources")
    (root / "png").mkdir()
    for index, x in enumerate(contents):
        Image.fromarray(to_uint8(x)).save(root / "png" / f"{index}.png")
    prepare(root / "png", root / "prepared", PrepareOptions(size=32))
    (root / "synth").mkdir()
    content = Content.whole(Shard(0, 0, 2), to_uint8(styles))
    commit(root / "synth", FORMATS["shard"], content, Origin(0, "0" * 64))
    ramp = np.add.outer(np.arange(48), np.arange(40)).astype(np.uint8)
    Image.fromarray(ramp).save(root / "image.png")
    return root


def words(sources, out, content="prepared", style="synth"):
    return ["style-transfer", "--content", sources / content, "--style", sources / style,
            "--out", out, "--steps", 2]  # fmt: skip


def test_random_filters_are_said_and_written(command, sources, tmp_path):
    out = tmp_path / "out"
    code, told, progress = command(*words(sources, out), "--seed", 7, "--limit", 2)
    assert code == 0
    assert "no --vgg-weights, so VGG19's filters are random, seed 7" in progress
    assert "2 slices, 2 made now, filters random, seed 7" in told
    assert json.loads((out / "style.json").read_text())["filters"] == "random, seed 7"
    assert len(list(read_slices(out))) == 2
    code, told, _ = command(*words(sources, out), "--seed", 7, "--limit", 2)
    assert (code, "2 slices, 0 made now" in told) == (0, True)
    code, _, progress = command(*words(sources, out), "--seed", 8, "--limit", 2)
    assert code == 2
    last = progress.splitlines()[-1]
    assert "weights.weights: random, seed 7 -> random, seed 8" in last


def test_weights_of_a_file_are_used_and_named(command, sources, untouched, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(untouched.network.state_dict(), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    more = ["--limit", 1, "--dtype", "uint16"]
    code, told, progress = command(*words(sources, tmp_path / "file"), *more, "--vgg-weights", path)
    assert code == 0
    assert f"weights.pth, sha256 {sha256}" in progress
    assert "random" not in told + progress
    assert (
        json.loads((tmp_path / "file" / "style.json").read_text())["filters"] == f"sha256 {sha256}"
    )
    assert command(*words(sources, tmp_path / "seed"), *more)[0] == 0  # the filters of seed 0
    same = [next(read_slices(tmp_path / name))[1] for name in ("file", "seed")]
    assert np.array_equal(*same)


def test_weights_that_are_none_are_refused_in_a_line(command, sources, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"words")
    code, _, told = command(*words(sources, tmp_path / "out"), "--vgg-weights", path)
    assert code == 5
    assert len(told.splitlines()) == 1
    assert "weights.pth: not a readable file of weights" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "style", "size", "side", "count"),
    [
        ("image.png", "prepared", 40, 40, 1),
        ("image.png", "synth", None, 256, 1),
        ("prepared", "image.png", None, 32, 3),
        ("synth", "prepared", 36, 36, 2),
    ],
)
def test_every_kind_of_source(sources, content, style, size, side, count):
    """What the command reads; that it styles them is seen above."""
    from fastmrigan.cli.style_transfer import read_slices as read

    contents = read(sources / content, "--content", size, None)
    styles = read(sources / style, "--style", side, count)
    assert contents.shape == (count, side, side)
    assert styles.shape[1:] == (side, side)
    assert 1 <= len(styles) <= count
    for slices in (contents, styles):
        assert slices.dtype == np.float32
        assert -1 <= slices.min() < slices.max() <= 1


@pytest.mark.parametrize(
    ("changed", "code", "told"),
    [
        (["--content", "absent"], 2, "--content absent: no such file or folder"),
        (["--content", "{png}"], 2, "neither a prepared dataset nor generated slices"),
        (["--style", "{png}/../words.png"], 3, "words.png: not a PNG"),
        (["--style", "{png}/../black.png"], 3, "black.png: constant"),
        (["--size", 16], 2, "--size 16: VGG19 needs at least 32"),
        (["--size", 0], 2, "--size 0: VGG19"),
        (["--steps", 0], 2, "--steps 0"),
        (["--dtype", "float"], 2, "--dtype float: unknown"),
        (["--device", "tpu"], 2, "--device 'tpu'"),
        (["--vgg-weights", "absent.pth"], 2, "absent.pth: no such file"),
    ],
)
def test_wrong_use_is_one_line(command, sources, tmp_path, changed, code, told):
    (sources / "words.png").write_text("words")
    Image.new("L", (32, 32)).save(sources / "black.png")
    changed = [str(word).format(png=sources / "png") for word in changed]
    found, _, errors = command(*words(sources, tmp_path / "out"), *changed)
    assert found == code
    last = errors.splitlines()[-1]
    assert last.startswith("fastmrigan: ")
    assert told in last
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
