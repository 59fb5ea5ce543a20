"""Folders of images as the inputs of a job: every slice prepared first, then translated."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from onnx import TensorProto, helper
from PIL import Image

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.jobs import inputs
from fastmrigan.jobs.inputs import options_for
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.spec import Engine, JobSpec, Translated
from fastmrigan.runtime.engine_file import read_model

pydicom = pytest.importorskip("pydicom")
from dicom_files import at, dicom  # noqa: E402  (needs pydicom)

WORDS = (b"Doe^Jane", b"id-17", b"19700101", b"Jane")  # who it is, as the files say
COUNT, AIR = 7, (0, 6)  # slices of the series, and those that show nothing


def negative(write_model, size: int = tiny.SIZE, **changes: object) -> Path:
    """A model that makes the negative of slices [size, size]."""
    shape = ["batch", 1, size, size]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["source"], ["slice"])],
        "negative",
        [helper.make_tensor_value_info("source", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("slice", TensorProto.FLOAT, shape)],
    )
    document = tiny.metadata(
        task="translate", latent_size=None, slice_size=[size, size], source_contrast="flair"
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return write_model(document | changes, model, "negative.onnx")


def write_study(folder: Path, **tags: object) -> list[np.ndarray]:
    """A series of 7 axial slices, 5 mm apart, of which the outermost are air; its stored values,
    from feet to head."""
    folder.mkdir(parents=True)
    dice = np.random.default_rng(3)
    stored = []
    for place in range(COUNT):
        x = np.full((tiny.SIZE, tiny.SIZE), 5)
        if place not in AIR:
            x[4:12, 4:12] = dice.integers(200, 2000, (8, 8))
        stored.append(x)
        said = {
            "SeriesInstanceUID": "1.2.3",
            "PatientBirthDate": "19700101",
            "BurnedInAnnotation": "NO",
            **at(-20.0 + 5 * place),
        }
        said = {name: value for name, value in (said | tags).items() if value is not None}
        dicom(folder / f"JaneDoe{COUNT - place}.dcm", x, **said)
    return stored


@pytest.fixture
def study(tmp_path) -> tuple[Path, list[np.ndarray]]:
    return tmp_path / "Doe^Jane", write_study(tmp_path / "Doe^Jane")


@pytest.fixture
def translate(command, tmp_path) -> Callable[..., tuple[int, str, str]]:
    def run(model: Path, inputs: Path, *more: object, format: str = "dicom-files"):
        out = ["--out", tmp_path / "out", "--format", format]
        return command("translate", model, "--inputs", inputs, *out, *more)

    return run


def test_every_slice_of_a_series_comes_out(write_model, study, translate, tmp_path):
    folder, stored = study
    code, stdout, stderr = translate(negative(write_model), folder)
    assert code == 0, stderr
    assert f"{COUNT} slices, {COUNT} made now" in stdout
    files = [pydicom.dcmread(p) for p in sorted((tmp_path / "out" / "shard-000000").iterdir())]
    files.sort(key=lambda file: float(file.ImagePositionPatient[2]))
    assert [float(f.ImagePositionPatient[2]) for f in files] == [-20.0 + 5 * n for n in range(7)]
    assert all(list(map(float, f.PixelSpacing)) == [0.9, 0.8] for f in files)
    low, high = 5, max(x.max() for x in stored)  # minmax over the series, as the metadata records
    for file, x in zip(files, stored, strict=True):
        made = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        assert np.abs(made - (low + high - x)).max() < 0.1


def test_nothing_that_tells_who_it_is_enters(write_model, study, translate, tmp_path):
    folder, _ = study
    assert translate(negative(write_model), folder)[0] == 0
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > COUNT
    for path in files:
        content = path.read_bytes()
        assert [word for word in WORDS if word in content] == [], path
        assert not any(word.decode() in str(path.relative_to(tmp_path)) for word in WORDS)


def test_the_inputs_are_prepared_as_the_model_asks(write_model, study, translate, tmp_path):
    folder, _ = study
    grading = {"method": "percentile", "low": 1.0, "high": 99.0}
    assert translate(negative(write_model, grading=grading), folder, format="png")[0] == 0
    info = PreparedDataset.open(tmp_path / "out" / "inputs").info
    assert (info.count, info.size, info.contrast) == (COUNT, (tiny.SIZE, tiny.SIZE), "flair")
    assert info.grading == grading
    assert info.labels == {"": COUNT}
    assert info.split.counts == {"train": COUNT}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"grading": {"method": "minmax"}}, {"method": "minmax"}),
        (
            {
                "grading": {"method": "minmax"},
                "training_data": {"source": {"grading": {"method": "window", "low": 0, "high": 9}}},
            },
            {"method": "window", "low": 0.0, "high": 9.0},
        ),
        (
            {
                "grading": {"method": "minmax"},
                "training_data": {"source": {"grading": {"method": "window", "low": 0, "high": 9}}},
                "training": {"back": True},
            },
            {"method": "minmax"},
        ),
        ({"grading": {}}, {"method": "percentile", "low": 0.5, "high": 99.5}),
    ],
)
def test_the_grading_is_that_of_what_the_model_translates(write_model, changes, expected):
    model = read_model(negative(write_model, **changes))
    assert options_for(model, Translated(Path("study"))).rule().as_dict() == expected


def test_a_model_that_records_no_grading_is_warned_of(write_model, study, translate):
    code, _, stderr = translate(negative(write_model, grading={}), study[0])
    assert code == 0
    assert "records no grading" in stderr
    assert "is graded by percentile" in stderr


def test_a_finished_job_prepares_nothing_again(write_model, study, translate, monkeypatch):
    model = negative(write_model)
    assert translate(model, study[0])[0] == 0

    def no_prepare(*_: object) -> None:
        raise AssertionError("the inputs were prepared again")

    monkeypatch.setattr("fastmrigan.jobs.inputs.prepare", no_prepare)
    code, stdout, _ = translate(model, study[0])
    assert code == 0
    assert "0 made now" in stdout


def test_rejects_are_named_and_end_in_3_every_time(write_model, study, translate, tmp_path):
    folder, _ = study
    (folder / "broken.dcm").write_bytes((folder / "JaneDoe1.dcm").read_bytes()[:700])
    dicom(folder / "unclear.dcm", SeriesInstanceUID="1.2.4")
    for made in (COUNT, 0):
        code, stdout, _ = translate(negative(write_model), folder)
        assert code == 3
        assert f"{COUNT} slices, {made} made now" in stdout
        assert "quarantined 1 DICOM file," in stdout
        assert "refused 1 file" in stdout
        assert "broken.dcm" in stdout
    listed = (tmp_path / "out" / "inputs" / "rejects.jsonl").read_text()
    assert json.loads(listed)["name"] == "broken.dcm"


def test_a_quarantined_series_is_let_in_when_asked(write_model, tmp_path, translate):
    write_study(tmp_path / "study", BurnedInAnnotation=None)
    model = negative(write_model)
    code, _, stderr = translate(model, tmp_path / "study")
    assert code == 3
    assert "--allow-burned-in unknown" in stderr
    code, stdout, _ = translate(model, tmp_path / "study", "--allow-burned-in", "unknown")
    assert code == 0
    assert f"{COUNT} made now" in stdout


@pytest.mark.parametrize("kind", ["png", "nifti"])
def test_pictures_and_volumes_too(write_model, tmp_path, translate, kind):
    dice = np.random.default_rng(1)
    (tmp_path / "study").mkdir()
    if kind == "png":
        for number in range(3):
            x = dice.integers(0, 256, (20, 24), dtype=np.uint8)
            Image.fromarray(x).save(tmp_path / "study" / f"{number}.png")
    else:
        nibabel = pytest.importorskip("nibabel")
        x = np.zeros((24, 20, 3), np.float32)
        x[6:18, 6:14, 1] = dice.uniform(10, 100, (12, 8))
        nibabel.Nifti1Image(x, np.eye(4)).to_filename(tmp_path / "study" / "head.nii.gz")
    code, stdout, stderr = translate(negative(write_model), tmp_path / "study", format="png")
    assert code == 0, stderr
    assert "3 slices, 3 made now" in stdout


def test_files_that_came_since_are_refused(write_model, study, translate):
    model = negative(write_model)
    assert translate(model, study[0])[0] == 0
    dicom(study[0] / "new.dcm", SeriesInstanceUID="1.2.5", BurnedInAnnotation="NO")
    code, _, stderr = translate(model, study[0])
    assert code == 2
    assert "was prepared of other files than" in stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--label", "normal"], "--label normal: "),
        (["--split", "test"], "--split test: "),
        (["--allow-burned-in", "perhaps"], "--allow-burned-in perhaps: expected one of no"),
        (["--out", "INPUTS/new"], "lies within the inputs"),
        (["--out", "INPUTS"], "lies within the inputs"),
    ],
)
def test_what_has_no_meaning_for_a_folder_is_refused(
    write_model, study, translate, tmp_path, options, told
):
    before = sorted(tmp_path.rglob("*"))
    model = negative(write_model)
    options = [str(option).replace("INPUTS", str(study[0])) for option in options]
    code, _, stderr = translate(model, study[0], *options)
    assert code == 2
    assert told in stderr
    assert sorted(tmp_path.rglob("*")) == sorted([*before, model])


def test_models_that_take_no_squares_or_sample_are_refused(write_model, study, translate):
    code, _, stderr = translate(write_model(), study[0])
    assert code == 2
    assert "samples slices and cannot translate them" in stderr
    model = negative(write_model, slice_size=[16, 24])
    code, _, stderr = translate(model, study[0])
    assert code == 2
    assert "16x24, and a folder of images becomes squares" in stderr


def test_a_folder_without_images_and_a_broken_set_are_told_apart(write_model, translate, tmp_path):
    (tmp_path / "empty").mkdir()
    model = negative(write_model)
    code, _, stderr = translate(model, tmp_path / "empty")
    assert code == 2
    assert "no images in this folder" in stderr
    (tmp_path / "empty" / "index.jsonl").touch()
    (tmp_path / "empty" / "contact_sheet.png").touch()
    code, _, stderr = translate(model, tmp_path / "empty")
    assert code == 2
    assert "not a prepared data set (no dataset.json)" in stderr


def test_a_dry_run_prepares_elsewhere(write_model, study, translate, tmp_path):
    model = negative(write_model)
    (study[0] / "broken.dcm").write_bytes((study[0] / "JaneDoe1.dcm").read_bytes()[:700])
    before = sorted(tmp_path.rglob("*"))
    code, stdout, _ = translate(model, study[0], "--dry-run")
    assert code == 3  # as the job itself
    assert f"{COUNT} of 16x16, uint16; 0 done" in stdout
    assert "1 file refused, 0 quarantined, such as broken.dcm" in stdout
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", 0], "--workers 0: expected 1 to 256"),
        (["--shard-range", "a:b"], "--shard-range a:b: expected A:B, of whole numbers"),
        (["--shard-range", "4:4"], "--shard-range 4:4: is empty"),
        (["--batch", 0], "batch 0: expected 1 to 4,096"),
        (["--threads", 0], "threads 0: expected at least 1"),
        (["--threads", 0, "--workers", 2], "threads 0: expected at least 1"),
        (["--mode", "fast"], "mode 'fast': unknown; choose one of latency, throughput"),
    ],
)
def test_what_can_never_be_meant_is_refused_first(
    write_model, study, translate, tmp_path, options, told
):
    model = negative(write_model)
    before = sorted(tmp_path.rglob("*"))
    code, stdout, stderr = translate(model, study[0], *options)
    assert (code, stdout) == (2, "")
    assert told in stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_range_beyond_the_plan_is_refused_before_the_engine(write_model, study, translate):
    """The plan of a folder of images is known once they are prepared."""
    model, options = negative(write_model), ["--shard-range", "1:", "--no-budget-check"]
    code, stdout, stderr = translate(model, study[0], *options)
    assert (code, stdout) == (2, "")
    assert "--shard-range 1:: is empty; the plan has 1 shard, 0:1" in stderr


def test_of_jobs_that_begin_at_once_one_prepares_and_all_take_it(
    write_model, study, tmp_path, monkeypatch, capsys
):
    model = negative(write_model)
    out = Output(tmp_path / "out", "png", 2)
    spec = JobSpec(Engine(model), Translated(study[0]), out)
    start, waiting, began, taken = threading.Barrier(3), threading.Semaphore(0), [], []
    prepare, alone = inputs.prepare, inputs.alone

    def once_the_others_wait(*arguments):
        began.append(arguments)
        assert all(waiting.acquire(timeout=300) for _ in range(2))
        return prepare(*arguments)

    def telling(out, what, told):
        return alone(out, what, lambda: (told(), waiting.release()))

    monkeypatch.setattr(inputs, "prepare", once_the_others_wait)
    monkeypatch.setattr(inputs, "alone", telling)

    def begin() -> None:
        start.wait()
        taken.append(inputs.prepare_images(spec, read_model(model)))

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(began) == 1
    assert [each.inputs.inputs for each, _ in taken] == [tmp_path / "out" / "inputs"] * 3
    assert sorted(images.seconds > 0 for _, images in taken) == [False, False, True]
    line = f"{tmp_path / 'out' / 'inputs'}: another job is preparing it; waiting for that\n"
    assert capsys.readouterr().err.count(line) == 2


def test_the_tasks_of_an_array_share_one_folder_of_images(write_model, tmp_path):
    """Started at the same moment, each as a process of its own."""
    dice = np.random.default_rng(0)
    (tmp_path / "study").mkdir()
    for number in range(6):
        x = dice.integers(0, 256, (tiny.SIZE, tiny.SIZE), dtype=np.uint8)
        Image.fromarray(x).save(tmp_path / "study" / f"{number}.png")
    command = [sys.executable, "-m", "fastmrigan", "translate", negative(write_model)]
    command += ["--inputs", tmp_path / "study", "--out", tmp_path / "out", "--threads", 1]
    begun = [
        subprocess.Popen(
            [*map(str, command), "--shard-size", "2", "--shard-range", f"{task}:{task + 1}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in range(3)
    ]
    told = [task.communicate(timeout=300) for task in begun]
    assert [task.returncode for task in begun] == [0] * 3, told
    assert [index for index, _ in read_slices(tmp_path / "out")] == list(range(6))


def test_a_killed_job_leaves_the_preparing_to_others(
    write_model, study, tmp_path, monkeypatch, capsys
):
    hold = (
        "import sys, time, pathlib; from fastmrigan.jobs.locks import INPUTS, alone\n"
        "with alone(pathlib.Path(sys.argv[1]), INPUTS):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    model, out = negative(write_model), tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", hold, str(out)]
    spec = JobSpec(Engine(model), Translated(study[0]), Output(out, "png", 2))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        prepare, alone, killed, entered = inputs.prepare, inputs.alone, threading.Event(), []

        def kill() -> None:
            killed.set()
            holder.kill()

        def telling(out, what, told):
            return alone(out, what, lambda: (told(), threading.Timer(0.3, kill).start()))

        def noting(*arguments):
            entered.append(killed.is_set())
            holder.wait(300)  # its lock goes just before it does
            return prepare(*arguments)

        monkeypatch.setattr(inputs, "alone", telling)
        monkeypatch.setattr(inputs, "prepare", noting)
        try:
            _, images = inputs.prepare_images(spec, read_model(model))
        finally:
            holder.kill()
    assert entered == [True]
    line = f"{out / 'inputs'}: another job is preparing it; waiting for that\n"
    assert capsys.readouterr().err.count(line) == 1
    assert images.path == out / "inputs"


def test_a_job_file_takes_folders_too(command, write_model, tmp_path):
    write_study(tmp_path / "a", BurnedInAnnotation=None)
    write_study(tmp_path / "b")
    (tmp_path / "b" / "broken.dcm").write_bytes(
        (tmp_path / "b" / "JaneDoe1.dcm").read_bytes()[:700]
    )
    negative(write_model)
    jobs = "".join(
        f'[[job]]\ninputs = "{name}"\nout = "out-{name}{more[:3]}"\n{more}'
        for name, more in (("a", ""), ("a", 'allow_burned_in = "unknown"\n'), ("b", ""))
    )
    (tmp_path / "jobs.toml").write_text(f'model = "negative.onnx"\nformat = "dicom"\n{jobs}')
    code, stdout, _ = command("run", tmp_path / "jobs.toml")
    assert code == 3
    first, second, third = stdout.splitlines()[-3:]
    assert "failed: " in first
    assert "quarantined" in first
    assert second.endswith("out-aall): done")
    assert third.endswith("out-b): done; some inputs were rejected")


def test_a_clinical_series(real_data, write_model, translate, tmp_path):
    folder = real_data("dicom/series/brainix_flair")
    model = negative(write_model, 256, grading={"method": "percentile", "low": 0.5, "high": 99.5})
    code, _, stderr = translate(model, folder, "--allow-burned-in", "unknown")
    assert code == 0, stderr
    sources = [pydicom.dcmread(path) for path in folder.iterdir()]
    made = [pydicom.dcmread(path) for path in (tmp_path / "out" / "shard-000000").iterdir()]
    assert len(made) == len(sources) == 22

    def places(files: list) -> list[list[float]]:
        return sorted([float(x) for x in file.ImagePositionPatient] for file in files)

    assert np.abs(np.subtract(places(made), places(sources))).max() < 1e-3
    names = {str(file.PatientName) for file in sources} | {str(f.PatientID) for f in sources}
    for file in made:
        assert (file.Rows, file.Columns) == (sources[0].Rows, sources[0].Columns)
        assert not {str(file.PatientName), str(file.PatientID)} & names
