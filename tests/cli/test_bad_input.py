"""What a user sees when something is wrong: one line, the right exit code, no traceback."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tiny_model as tiny
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

Run = Callable[..., subprocess.CompletedProcess[str]]


def good_png(path: Path) -> None:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    Image.fromarray((200 * (x**2 + y**2 < 0.6)).astype(np.uint8) + 20).save(path)


def truncated_png(path: Path) -> None:
    good_png(path)
    path.write_bytes(path.read_bytes()[:90])


def text_png(path: Path) -> None:
    path.write_text("these are words\n")


def one_pixel(path: Path) -> None:
    Image.new("L", (1, 1)).save(path)


def dicom_without_pixels(path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.Modality = MRImageStorage, "MR"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


FILES = [
    ("cut.png", truncated_png, "truncated"),
    ("words.png", text_png, "not a PNG, JPEG, TIFF, DICOM or NIfTI image"),
    ("dot.png", one_pixel, "1x1"),
    ("empty.dcm", dicom_without_pixels, "pixel"),
]


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *told: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert " of 0 " not in done.stderr
    progress = ("starting at", " file in ", " files in ", " slices in ")
    job = (": busy: ", ": see ", ": no space left; the slices")
    *before, last = done.stderr.strip().splitlines()
    assert all(any(mark in line for mark in progress + job) for line in before), done.stderr
    assert last.startswith("fastmrigan: ")
    for text in told:
        assert text in last


@pytest.mark.parametrize(("name", "make", "fact"), FILES)
def test_a_bad_file_alone_is_named(fastmrigan: Run, tmp_path, name, make, fact):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / name)
    done = fastmrigan("prepare", tmp_path / "in", "--out", tmp_path / "out")
    assert_one_line(done, 3, name, fact)


def test_bad_files_beside_good_ones_are_listed_and_the_rest_is_prepared(fastmrigan, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name, make, _ in FILES:
        make(source / name)
    for number in range(4):
        good_png(source / f"good{number}.png")
    done = fastmrigan("prepare", source, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "Traceback" not in done.stdout + done.stderr
    rejects = (tmp_path / "out" / "rejects.jsonl").read_text()
    for name, _, fact in FILES:
        assert name in done.stdout
        line = next(line for line in rejects.splitlines() if name in line)
        assert fact in line
    assert len(np.load(tmp_path / "out" / "slices.npy")) == 4


def test_an_empty_folder_is_named(fastmrigan: Run, tmp_path):
    (tmp_path / "in").mkdir()
    done = fastmrigan("prepare", tmp_path / "in", "--out", tmp_path / "out")
    assert_one_line(done, 2, str(tmp_path / "in"))


def commands_that_write(model: Path, source: Path, out: Path) -> list[list[object]]:
    return [
        ["prepare", source, "--out", out],
        ["phantom", "--count", 4, "--out", out],
        ["synth", model, "--count", 4, "--out", out],
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_unwritable_output_is_named(fastmrigan: Run, tmp_path, write_model, which):
    (tmp_path / "in").mkdir()
    good_png(tmp_path / "in" / "good.png")
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"  # no folder can be made below a file, root or not
    command = commands_that_write(write_model(), tmp_path / "in", out)[which]
    assert_one_line(fastmrigan(*command), 2, str(tmp_path / "file"), "file")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_no_slices_are_generated_into_a_prepared_dataset(fastmrigan: Run, tmp_path, write_model):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "dataset.json").write_text("{}")
    done = fastmrigan("synth", write_model(tiny.metadata()), "--count", 4, "--out", mine)
    assert done.returncode == 2
    told = f"fastmrigan: {mine}: is a prepared dataset; name another folder for --out"
    assert done.stderr.splitlines()[-1] == told
    assert [path.name for path in mine.iterdir()] == ["dataset.json"]


@pytest.mark.parametrize("command", ["synth", "bench", "info"])
def test_a_model_file_without_metadata_is_named(fastmrigan: Run, tmp_path, write_model, command):
    model = write_model(None, name="bare.onnx")
    more = {"synth": ["--count", 4, "--out", tmp_path / "out"], "bench": ["--no-plot"]}
    done = fastmrigan(command, model, *more.get(command, []))
    assert_one_line(done, 5, "bare.onnx", "has no fastmrigan metadata")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["synth", "bench"])
def test_a_wrong_backend_name_is_named(fastmrigan: Run, tmp_path, write_model, command):
    more = {"synth": ["--count", 4, "--out", tmp_path / "out"], "bench": ["--no-plot"]}[command]
    done = fastmrigan(command, write_model(), "--backend", "magic", *more)
    assert_one_line(done, 2, "magic", "openvino")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["synth"], "model"),
        (["nonsense"], "nonsense"),
        (["phantom", "--count", "five", "--out", "x"], "--count"),
    ],
)
def test_wrong_usage_is_one_line_too(fastmrigan: Run, command, told):
    assert_one_line(fastmrigan(*command), 2, told)


@pytest.mark.parametrize(
    ("command", "helped"),
    [(["synth"], "fastmrigan synth --help"), (["nonsense"], "fastmrigan --help")],
)
def test_wrong_usage_names_the_help_of_its_command(fastmrigan: Run, command, helped):
    assert_one_line(fastmrigan(*command), 2, f"(see `{helped}`)")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["synth", "{}", "--count", "4", "--out", "{}/out"], "name a model file (.onnx)"),
        (["info", "{}"], "name a model file (.onnx)"),
        (["bench", "--compare", "{}", "{}"], "name the bench.json in it"),
    ],
)
def test_a_folder_in_place_of_a_file_is_named(fastmrigan: Run, tmp_path, command, told):
    done = fastmrigan(*(word.format(tmp_path) for word in command))
    assert_one_line(done, 2, f"{tmp_path}: is a folder; {told}")


def test_an_unknown_instruction_set_is_one_line(fastmrigan: Run, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTMRIGAN_ISA", "sse9")
    (tmp_path / "in").mkdir()
    good_png(tmp_path / "in" / "good.png")
    done = fastmrigan("prepare", tmp_path / "in", "--out", tmp_path / "out")
    assert_one_line(done, 2, "FASTMRIGAN_ISA=sse9: expected baseline")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_so(tmp_path, number):
    command = [sys.executable, "-m", "fastmrigan", "phantom", "--count", "100000"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not list((tmp_path / "out").rglob("*.png")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith("fastmrigan: interrupted")
    assert "Traceback" not in stderr


def test_a_reader_that_goes_away_is_no_bug():
    script = f"{sys.executable} -m fastmrigan --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 141)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--count", 0, "--count 0: expected at least 1"),
        ("--seed", -1, "--seed -1: expected a whole number"),
        ("--shard-size", 0, "--shard-size 0: expected at least 1"),
        ("--format", "gif", "--format gif: unknown; choose one of shard, npz, png"),
        ("--dtype", "int4", "--dtype int4: unknown"),
        ("--precision", "fp4", "precision 'fp4'"),
    ],
)
def test_wrong_values_are_named(fastmrigan: Run, tmp_path, write_model, option, value, told):
    settings = {"--count": 4, "--out": tmp_path / "out"} | {option: value}
    flat = [part for pair in settings.items() for part in pair]
    assert_one_line(fastmrigan("synth", write_model(), *flat), 2, told)


def test_a_disk_that_is_full_ends_with_its_own_code(fastmrigan: Run, tmp_path, write_model):
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, to mount a small disk of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    model = write_model(tiny.metadata())
    synth = f"{sys.executable} -m fastmrigan synth {model} --count 400 --shard-size 16"
    synth += " --no-budget-check"
    script = (
        f"mount -t tmpfs -o size=96k tmpfs {disk} && "
        f"{synth} --out {disk}/out; code=$?; ls -a {disk}/out; exit $code"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    assert_one_line(done, 4, "no space left", "the same command")
    assert ".tmp" not in done.stdout
    assert "shard-000000.tar" in done.stdout


def test_an_unexpected_error_says_where_to_report_it(capsys):
    from fastmrigan.cli import fail_as_bug

    with pytest.raises(SystemExit) as left:
        fail_as_bug(RuntimeError("a surprise"))
    assert left.value.code == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "a bug of ours" in message
    assert "/issues" in message


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("two\nlines", r"two\nlines"),
        ("\x1b[31mred\x1b[0m\r", r"\x1b[31mred\x1b[0m\r"),
        ("latin-\udce9 end", r"latin-\udce9 end"),
        ("two  spaces, tête", "two  spaces, tête"),
    ],
)
def test_a_name_is_printed_on_one_line_without_control_characters(
    fastmrigan: Run, tmp_path, name, printed
):
    done = fastmrigan("prepare", tmp_path / name, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == f"fastmrigan: {tmp_path}/{printed}: no such file or folder\n"


def test_what_a_library_says_over_several_lines_is_one(fastmrigan: Run, tmp_path):
    (tmp_path / "recipe.yaml").write_text("a: b: c\n  - d")
    done = fastmrigan("train", tmp_path / "recipe.yaml", "--data", tmp_path, "--dry-run")
    assert_one_line(done, 2, "recipe.yaml: not readable as YAML: mapping values are not allowed")
    assert "\\n" not in done.stderr


def test_a_damaged_shard_is_one_line(fastmrigan: Run, tmp_path):
    """tarfile tells over several lines what it has tried."""
    (tmp_path / "shard-000000.tar").write_bytes(b"x" * 2000)
    done = fastmrigan("style-transfer", "--content", tmp_path, "--style", tmp_path, "--out", "x")
    assert done.returncode == 3
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"fastmrigan: {tmp_path}/shard-000000.tar: not a whole shard (file")
    assert last.endswith("make it again")
    assert "\\n" not in last
