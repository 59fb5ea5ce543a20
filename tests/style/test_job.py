"""The style stage over many slices: files, resume, refusal, labels."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fastmrigan.errors import InputRejected, Interrupted, UsageError
from fastmrigan.jobs.shards import read_slices
from fastmrigan.style import job
from fastmrigan.style.folder import differences, locked
from fastmrigan.style.transfer import StyleSettings

SETTINGS = StyleSettings(size=32, steps=3)


@pytest.fixture
def run(untouched, contents, styles, tmp_path):
    """run(steps=…, dtype=…, styles=…) is one call into the same folder."""
    import copy

    def call(*, out="out", contents=contents, styles=styles, dtype="uint8", **changed):
        weights = replace(untouched, network=copy.deepcopy(untouched.network))
        settings = replace(SETTINGS, **changed)
        return job.style_transfer(contents, styles, weights, tmp_path / out, settings, dtype=dtype)

    return call


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in (folder / "shard-000000").iterdir()}


def document(folder):
    return json.loads((folder / "style.json").read_text())


def test_what_a_run_leaves(run, tmp_path, contents, styles):
    out = tmp_path / "out"
    result = run()
    assert (result.slices, result.made) == (3, 3)
    assert sorted(bytes_of(out)) == ["000000000.png", "000000001.png", "000000002.png"]
    found = document(out)
    assert (found["status"], found["filters"]) == ("finished", "random, seed 0")
    assert found["request"]["weights"] == {"origin": "random", "weights": "random, seed 0"}
    assert found["request"]["settings"]["style_weight"] == 1000.0
    assert [record["style_slice"] for record in found["slices"]] == [0, 1, 0]  # modulo two styles
    for record in found["slices"]:
        assert record["losses"].keys() == record["start"].keys() == {"content", "style", "total"}
        assert record["losses"]["total"] < record["start"]["total"]
    rows = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    assert [(row["slice"], row["step"]) for row in rows] == [
        (i, step) for i in range(3) for step in (0, 3)
    ]
    with Image.open(out / "shard-000000" / "000000001.png") as image:
        note = json.loads(image.text["fastmrigan"])
        assert (image.mode, note["filters"]) == ("L", "random, seed 0")
        assert note["synthetic"] is True
    with Image.open(out / "contact_sheet.png") as sheet:
        tiles = np.asarray(sheet)
    assert tiles.shape == (3 * 34 + 2, 3 * 34 + 2)
    top = np.hsplit(tiles[2:34, 2:104], 3)
    assert np.array_equal(top[0][:, :32], np.rint((contents[0] + 1) * 127.5))
    assert np.array_equal(top[1][:, :32], np.rint((styles[0] + 1) * 127.5))
    assert np.array_equal(top[2][:, :32], next(read_slices(out))[1])


def test_the_folder_reads_as_generated_slices(run, tmp_path):
    run(dtype="uint16")
    found = list(read_slices(tmp_path / "out"))
    assert [index for index, _ in found] == [0, 1, 2]
    assert all(x.shape == (32, 32) and x.dtype == np.uint16 for _, x in found)


def interrupt_after(monkeypatch, slices):
    """Ctrl-C as soon as the slice behind so many begins."""
    begun = []

    def transfer(*arguments, index, **options):
        begun.append(index)
        if len(begun) > slices:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, index=index, **options)

    original = job.transfer
    monkeypatch.setattr(job, "transfer", transfer)
    return begun


def test_resume_does_what_is_missing_and_gives_the_same_bytes(run, tmp_path, monkeypatch):
    run(out="whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(Interrupted, match="1 of 3 slices finished; resume with"):
            run()
    out = tmp_path / "out"
    assert document(out)["status"] == "interrupted"
    assert list(bytes_of(out)) == ["000000000.png"]
    assert (out / "contact_sheet.png").exists()
    begun = interrupt_after(monkeypatch, 3)
    assert run().made == 2
    assert begun == [1, 2]
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    assert document(out) == document(tmp_path / "whole")
    for name in ("losses.jsonl", "contact_sheet.png"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert run().made == 0
    assert begun == [1, 2]
    assert document(out)["status"] == "finished"


def test_what_a_kill_leaves_is_mended(run, tmp_path):
    """A PNG that is gone, losses of a slice not finished, and half a line."""
    run()
    out = tmp_path / "out"
    before, log = bytes_of(out), (out / "losses.jsonl").read_text()
    (out / "shard-000000" / "000000002.png").unlink()
    (out / "losses.jsonl").write_text(log + '{"slice": 2, "st')
    assert run().made == 1
    assert bytes_of(out) == before
    assert (out / "losses.jsonl").read_text() == log


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"steps": 4}, r"settings\.steps: 3 -> 4"),
        ({"dtype": "uint16"}, r"settings\.dtype: uint8 -> uint16"),
        ({"style_weight": 5.0}, r"settings\.style_weight: 1000\.0 -> 5\.0"),
        ({"styles": np.zeros((1, 32, 32), np.float32)}, r"style\.slices: 2 -> 1; style\.sha256"),
    ],
)
def test_another_configuration_is_refused(run, tmp_path, changed, told):
    run()
    before = (tmp_path / "out" / "style.json").read_bytes()
    with pytest.raises(UsageError, match=f"another configuration .{told}"):
        run(**changed)
    assert (tmp_path / "out" / "style.json").read_bytes() == before


def test_differences_name_new_and_lost_keys():
    begun, asked = {"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": 3}}
    assert differences(begun, asked) == ["a: 1 -> None", "b.d: None -> 3"]


def test_foreign_folders_are_left_alone(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds thesis\.tex"):
        run()
    (tmp_path / "out" / "thesis.tex").rename(tmp_path / "out" / "style.json")
    with pytest.raises(InputRejected, match=r"style\.json: not the style\.json of"):
        run()
    assert (tmp_path / "out" / "style.json").read_text() == "years of work"
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="a file is in the way"):
        run(out="file")


def test_one_writer_at_a_time(run, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(UsageError, match="another process is writing"):
        run()


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (32, 32), (100, 32)])
def test_slices_for_the_mean_activations_are_spread(count, expected):
    slices = np.arange(count, dtype=np.float32)[:, None, None]
    picked = job.spaced(slices)[:, 0, 0]
    assert len(picked) == len(set(picked)) == expected
    assert (picked[0], picked[-1]) == (0, count - 1)
