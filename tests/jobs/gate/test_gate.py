"""The quality gate: what it refuses, why, and that everything else stays as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from gate_worlds import (
    COUNT,
    MAKES,
    SHARD,
    SIDE,
    bank_graph,
    everything,
    expected,
    make,
    members,
    refused,
    verdicts,
)

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.send.source import Found, files, look
from fastmrigan.jobs import receipts
from fastmrigan.jobs.gate import Gate, GateOptions, summary
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Content, Plan
from fastmrigan.jobs.shards import read_slices
from fastmrigan.metrics.slice_sets import read_slice_set
from fastmrigan.runtime.model_file import ModelMetadata


def test_the_model_makes_every_kind():
    counts = Counter(MAKES[k] for k in expected(7, COUNT))
    assert set(counts) == set(MAKES)
    assert counts["head"] > COUNT // 4


@pytest.mark.parametrize("format", ["shard", "npz", "png", "dicom", "dicom-files"])
def test_what_is_refused_is_not_there_and_the_rest_is_as_it_was(model, world, tmp_path, format):
    gate = GateOptions("drop", world.path)
    out = make(model, tmp_path / "out", gate, format=format)
    plain = make(model, tmp_path / "plain", None, format=format)
    assert {i: why.partition(":")[0] for i, why in verdicts(out).items()} == refused()
    kept = [i for i in range(COUNT) if i not in refused()]
    assert [index for index, _ in read_slices(out)] == kept
    before, after = members(plain), members(out)
    assert after == {name: before[name] for name in before if int(name.split(".")[0]) in kept}
    found = read_slice_set(out)
    assert found.slices.shape == (len(kept), SIDE, SIDE)
    assert [found.number(row) for row in range(len(kept))] == kept
    assert receipts.left_out(plain) == {}
    if format.startswith("dicom"):
        found = Found()
        for name, path in files(out, found):
            look(name, path, found)
        assert (len(found.items), found.refused) == (len(kept), [])


def test_what_is_flagged_is_there(model, world, tmp_path):
    flagged = make(model, tmp_path / "flagged", GateOptions("flag", world.path))
    plain = make(model, tmp_path / "plain", None)
    assert {i: why.partition(":")[0] for i, why in verdicts(flagged, "flag").items()} == refused()
    before, after = everything(plain), everything(flagged)
    apart = {name for name in before | after if before.get(name) != after.get(name)}
    hit = {f"receipts/shard-{index // SHARD:06}.tar.json" for index in refused()}
    assert apart == hit | {"run.json"}
    for name in hit:
        ours, theirs = (json.loads((folder / name).read_text()) for folder in (flagged, plain))
        seals = {ours.pop(receipts.SEAL), theirs.pop(receipts.SEAL)}
        assert len(seals) == 2
        assert ours | {"flagged": {}} == theirs


def told(out: Path, shards: slice = slice(None)) -> str:
    return summary(Output(out, shard_size=SHARD), list(Plan(COUNT, SHARD))[shards], "drop")


def test_what_is_said(model, world, tmp_path):
    out = make(model, tmp_path / "out", GateOptions("drop", world.path))
    pinned = json.loads((out / "run.json").read_text())
    limits = pinned["gate_limits"]
    for index, why in verdicts(out).items():
        which = expected(7, COUNT)[index]
        if MAKES[which] == "copy":
            assert why.startswith(f"copy: of training slice {world.copied[which]}, likeness ")
            assert float(why.split("likeness ")[1].split(",")[0]) > limits["copy"]
        elif MAKES[which] == "outlier":
            assert why.endswith(f"from the training slices, above {limits['outlier']}")
        elif MAKES[which] == "blank":
            assert why == "blank: standard deviation 0.0000 of the grey range, below 0.02"
        else:
            assert why == "saturated: 70% of it white, above 50%"
    counts = Counter(refused().values())
    assert told(out) == (
        f"{len(refused())} dropped: {counts['blank']} blank, {counts['saturated']} saturated, "
        f"{counts['outlier']} outliers, {counts['copy']} copies of training slices"
    )


def test_without_a_reference_blank_and_saturated_slices_alone(model, tmp_path):
    out = make(model, tmp_path / "out", GateOptions("drop"))
    wanted = {i: kind for i, kind in refused().items() if kind in ("blank", "saturated")}
    assert {i: why.partition(":")[0] for i, why in verdicts(out).items()} == wanted


@pytest.mark.parametrize("action", ["drop", "flag"])
def test_a_resumed_job_has_the_same_bytes(model, world, tmp_path, action):
    gate = GateOptions(action, world.path)
    out = make(model, tmp_path / "out", gate)
    before = everything(out)
    for name in ("shard-000001.tar", "shard-000003.tar", "receipts/shard-000001.tar.json"):
        (out / name).unlink()
    assert everything(make(model, out, gate)) == before


def test_a_verdict_does_not_depend_on_the_shard(model, world, tmp_path):
    found = [
        verdicts(
            make(model, tmp_path / str(size), GateOptions("drop", world.path), shard_size=size)
        )
        for size in (1, 7, COUNT)
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("began", "goes_on", "named"),
    [
        ("drop", None, "gate is 'drop' there and None here"),
        (None, "drop", "gate is None there and 'drop' here"),
        ("drop", "flag", "gate is 'drop' there and 'flag' here"),
        ("drop with reference", "drop", "gate_reference is '[0-9a-f]{64}' there and None here"),
    ],
)
def test_another_gate_in_the_same_folder_is_refused(model, world, tmp_path, began, goes_on, named):
    def options(text: str | None) -> GateOptions | None:
        if text is None:
            return None
        return GateOptions(text.split()[0], world.path if "with" in text else None)

    out = make(model, tmp_path / "out", options(began))
    with pytest.raises(UsageError, match=rf"run.json: {named}"):
        make(model, out, options(goes_on))


def test_what_is_pinned(model, world, tmp_path, reference):
    pinned = json.loads(
        (make(model, tmp_path / "out", GateOptions("flag", world.path)) / "run.json").read_text()
    )
    assert pinned["gate"] == "flag"
    assert pinned["gate_reference"] == world.dataset.info.fingerprint
    assert pinned["gate_limits"] == {
        "blank": 0.02,
        "saturated": 0.5,
        "outlier": reference.outlier_limit,
        "copy": reference.copy_limit,
    }


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("amplitude", "white", "why"),
    [
        (0.0, 0, "blank: standard deviation 0.0000"),
        (0.018, 0, "blank"),
        (0.022, 0, None),
        (0.3, 0.49, None),
        (0.3, 0.51, "saturated: 51%"),
        (0.0, 1, "blank"),
    ],
)
def test_blank_and_saturated(depth, amplitude, white, why):
    top = np.iinfo(depth).max
    x = np.where(np.arange(10_000) % 2 == 0, 0.4 - amplitude, 0.4 + amplitude) * top
    x[: round(white * len(x))] = top
    found = Gate().verdict(np.rint(x).astype(depth).reshape(100, 100))
    assert found is None if why is None else found.startswith(why)


@pytest.mark.parametrize("format", ["shard", "npz", "png", "dicom", "dicom-files"])
def test_a_job_of_nothing_but_blank_slices(write_model, tmp_path, format):
    blank = np.zeros((tiny.LATENT, 16, 16), np.float32)
    path = write_model(tiny.metadata(), bank_graph(blank))
    out = make(path, tmp_path / "out", GateOptions("drop"), format=format)
    assert list(read_slices(out)) == []
    assert set(verdicts(out)) == set(range(COUNT))
    before, found = everything(out), Found()
    assert everything(make(path, out, GateOptions("drop"), format=format)) == before
    for name, file in files(out, found):
        look(name, file, found)
    assert (found.items, found.refused) == ([], [])


def test_refusals(write_model, world, tmp_path):
    """Each in one line, before an engine is opened."""
    small = tmp_path / "small"
    (tmp_path / "png").mkdir()
    for path in sorted((world.path.parent / "png").iterdir())[:40]:
        (tmp_path / "png" / path.name).write_bytes(path.read_bytes())
    options = {"size": SIDE, "test_fraction": 0.1, "label": ""}
    prepare(tmp_path / "png", small, PrepareOptions(**options))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in small.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "dataset.json").write_text("{}")
    there = world.path
    for changes, format, options, error, text in (
        ({}, "shard", GateOptions("keep"), UsageError, "--gate keep: unknown; choose one of drop"),
        ({}, "shard", GateOptions("drop", tmp_path), UsageError, "not a prepared data set"),
        ({}, "shard", GateOptions("drop", damaged), InputRejected, "a damaged data set"),
        ({}, "shard", GateOptions("flag", small), UsageError, "4 held-out slices, at least 20 are"),
        (
            {"target_contrast": "t1"},
            "shard",
            GateOptions("drop", there),
            UsageError,
            "slices are t2, the model makes t1; give the dataset it was trained on",
        ),
        (
            {"slice_size": [16, 16]},
            "shard",
            GateOptions("drop", there),
            UsageError,
            "slices are 32x32, the model makes 16x16",
        ),
        ({}, "nifti", GateOptions("drop"), UsageError, "--gate drop: a volume cannot have holes"),
    ):
        meta = ModelMetadata(**tiny.metadata(**({"slice_size": [SIDE, SIDE]} | changes)))
        with pytest.raises(error, match=text) as caught:
            options.check(meta, Output(tmp_path / "out", format))
        assert "\n" not in str(caught.value)


def test_the_command_line(model, world, tmp_path, fastmrigan):
    out = tmp_path / "out"
    command = ["synth", model, "--out", out, "--count", COUNT, "--seed", 7, "--shard-size", SHARD]
    alone = fastmrigan(*command, "--gate-reference", world.path)
    assert alone.returncode == 2
    assert "--gate-reference: says nothing without --gate" in alone.stderr
    done = fastmrigan(*command, "--gate", "drop", "--gate-reference", world.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"; {told(out)}")
    assert "warning" not in done.stderr
    again = fastmrigan(*command, "--gate", "drop", "--gate-reference", world.path)
    assert "0 made now" in again.stdout
    assert again.stdout.strip().endswith(f"; {told(out)}")


def test_the_summary_of_a_range_is_its_own(model, tmp_path, fastmrigan):
    out = tmp_path / "out"
    command = ["synth", model, "--out", out, "--count", COUNT, "--seed", 7, "--shard-size", SHARD]
    gone = [i for i, kind in refused().items() if kind in ("blank", "saturated")]
    for first, behind in ((0, 1), (2, 4), (1, 2), (2, 4)):
        done = fastmrigan(*command, "--gate", "drop", "--shard-range", f"{first}:{behind}")
        assert done.returncode == 0, done.stderr
        own = [i for i in gone if first * SHARD <= i < behind * SHARD]
        assert 0 < len(own) < len(gone)
        line = done.stdout.strip().splitlines()[-1]
        assert f"; {len(own)} dropped: " in line
        assert line.endswith(f"; {told(out, slice(first, behind))}")


def test_a_spec_opens_its_gate_without_torch(model, world, tmp_path):
    program = (
        "import sys; from pathlib import Path; from fastmrigan.jobs.spec import *;"
        "from fastmrigan.jobs.gate import GateOptions;"
        "model, out, reference = map(Path, sys.argv[1:]);"
        "gate = GateOptions('drop', reference);"
        "job = JobSpec(Engine(model), Sampled(8, 7), Output(out), gate).open();"
        "job.output.out.mkdir(); job.make_shard(job.plan[0]);"
        "assert 'torch' not in sys.modules; print(sorted(job.busy))"
    )
    command = [sys.executable, "-c", program, str(model), str(tmp_path / "out"), str(world.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['engine', 'gate', 'quantise', 'read', 'write']"
    assert set(verdicts(tmp_path / "out")) == set(refused(7, 8))


def test_what_was_left_out_before_stays_so():
    (shard,) = Plan(4, 4)
    slices = np.zeros((4, 16, 16), np.uint8)
    slices[3] = np.arange(256).reshape(16, 16)
    content = Content.whole(shard, slices).without({1: "poisoned"})
    gated = Gate("drop")(content)
    assert list(gated.indices) == [3]
    assert gated.left_out[1] == "poisoned"
    assert set(gated.left_out) == {0, 1, 2}
    flagged = Gate("flag")(content)
    assert list(flagged.indices) == [0, 2, 3]
    assert (set(flagged.flagged), set(flagged.left_out)) == ({0, 2}, {1})
