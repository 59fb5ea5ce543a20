"""The quality gate on translations: pairs, volumes, and slices that are meant to be alike."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_model as tiny
from gate_worlds import SIDE, members, negative, verdicts
from onnx import TensorProto, helper

from fastmrigan.imaging.dataset import PreparedDataset, RecordedPosition
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs.gate import GateOptions
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.shards import read_slices
from fastmrigan.jobs.translation import translate
from fastmrigan.metrics.paired import find_pairs
from fastmrigan.metrics.slice_sets import read_slice_set
from fastmrigan.metrics.translated import read_origins
from fastmrigan.runtime import load


def test_translations_of_blank_inputs_and_the_pairs_that_are_left(write_model, pairs, tmp_path):
    dataset, out = PreparedDataset.open(pairs), tmp_path / "out"
    sources = dataset.slices("all")
    blank = [i for i, x in enumerate(sources) if x.std() / 2 < 0.02]
    assert 5 < len(blank) < len(sources)
    generator = load(negative(write_model), precision="fp32", batch=3)
    translate(generator, dataset, Output(out, shard_size=7), gate=GateOptions("drop"))
    assert sorted(verdicts(out)) == blank
    made, origins = read_slice_set(out), read_origins(out)
    assert origins.index.tolist() == [i for i in range(len(sources)) if i not in blank]
    found = find_pairs(dataset, made.slices, origins)
    np.testing.assert_allclose(found.made, -sources[origins.index], atol=0.01)
    np.testing.assert_array_equal(found.truth, dataset.targets("all")[origins.index])


def test_translated_dicom_with_gaps(write_model, pairs, tmp_path):
    """Every file that is there is byte by byte what it is without a gate."""
    dataset, generator = PreparedDataset.open(pairs), load(negative(write_model), precision="fp32")
    folders = [tmp_path / name for name in ("plain", "gated")]
    for folder, gate in zip(folders, (None, GateOptions("drop")), strict=True):
        translate(generator, dataset, Output(folder, "dicom", 7), gate=gate)
    plain, gated = map(members, folders)
    assert 0 < len(gated) < len(plain)
    assert gated == {name: plain[name] for name in gated}
    assert read_origins(folders[1]).index.tolist() == [i for i, _ in read_slices(folders[1])]


def test_flagged_slices_of_a_volume(write_model, pairs, tmp_path):
    pytest.importorskip("nibabel")
    dataset, generator = PreparedDataset.open(pairs), load(negative(write_model), precision="fp32")
    for number, record in enumerate(dataset.records):
        place = RecordedPosition(
            origin=(0, 0, 2.0 * number), row=(1, 0, 0), column=(0, 1, 0), spacing=(1, 1)
        )
        placed = {"series": number // 20, "order": number, "position": place}
        dataset.records[number] = record.model_copy(update=placed)
    folders = [tmp_path / name for name in ("plain", "gated")]
    for folder, gate in zip(folders, (None, GateOptions("flag")), strict=True):
        translate(generator, dataset, Output(folder, "nifti"), gate=gate)
    for name in ("series-000000.nii.gz", "series-000001.nii.gz"):
        plain, gated = ((folder / name).read_bytes() for folder in folders)
        assert plain == gated
    found = verdicts(folders[1], "flag")
    assert sorted(found) == [i for i, x in enumerate(dataset.slices("all")) if x.std() / 2 < 0.02]


def test_translations_of_training_slices_are_no_copies(write_model, world, tmp_path):
    """They are meant to be like their twins; slices of no known origin are not."""
    shape = ["batch", 1, SIDE, SIDE]
    kind = TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(name, kind, shape) for name in ("source", "slice")]
    node = helper.make_node("Identity", ["source"], ["slice"])
    graph = helper.make_graph([node], "same", ports[:1], ports[1:])
    opset = [helper.make_opsetid("", 17)]
    document = tiny.metadata(task="translate", latent_size=None, slice_size=[SIDE, SIDE])
    path = write_model(document, helper.make_model(graph, opset_imports=opset, ir_version=9))
    other = tmp_path / "other"
    options = PrepareOptions(size=SIDE, grading="minmax", test_fraction=0.5, label="")
    prepare(world.path.parent / "png", other, options)
    gate, found = GateOptions("drop", world.path), {}
    for source in (world.path, other):
        dataset, out = PreparedDataset.open(source), tmp_path / "out" / source.name
        translate(load(path, precision="fp32", batch=8), dataset, Output(out), gate=gate)
        found[source] = [why for why in verdicts(out).values() if why.startswith("copy: ")]
    assert found[world.path] == []
    assert len(found[other]) >= 0.95 * len(world.dataset.select("train"))
