"""What is left of a distance in other features: the network of a seed, and the rows by hand."""

import json
import shutil

import numpy as np
import pytest
import results_features
from prepare_inputs import folder, in_process
from results_limits import on_quantiles, two_classes

from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.jobs import shards
from fastmrigan.metrics.features import FEATURES_SEED, random_features
from fastmrigan.metrics.frechet import frechet
from fastmrigan.metrics.radiomics import radiomic_features


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A prepared set, and a folder of as many slices as there are normals to train on."""
    in_process(monkeypatch)
    options = PrepareOptions(size=32, group_pattern=r"head\d*(\d)_", test_fraction=0.25)
    prepare(folder(tmp_path / "src", 96), tmp_path / "set", options)
    normals, tumours = two_classes(tmp_path / "set")
    between = (normals.train + 0.3 * np.roll(tumours.slices[: len(normals.train)], 3, 1)) / 1.3
    in_shards(tmp_path / "slices", between)
    return tmp_path


def in_shards(path, slices):
    shard = next(iter(shards.Plan(len(slices), len(slices))))
    path.mkdir()
    content = shards.Content.whole(shard, to_uint8(slices))
    shards.commit(path, shards.FORMATS["shard"], content, shards.Origin(0, "0" * 64))


def asked(made, monkeypatch, *more):
    given = ["x", str(made / "set"), "--slices", str(made / "slices"), *more]
    monkeypatch.setattr("sys.argv", given)
    return results_features.main()


def test_the_seed_of_the_metric_gives_its_features():
    slices = np.random.default_rng(0).uniform(-1, 1, (40, 64, 64)).astype(np.float32)
    found = results_features.by_network(slices, FEATURES_SEED)
    np.testing.assert_allclose(found, random_features(slices, shown=False), atol=1e-5)
    assert not np.allclose(results_features.by_network(slices, 0), found, atol=0.1)


def test_rows_against_the_same_by_hand(made, monkeypatch, capsys):
    path = made / "told.json"
    assert asked(made, monkeypatch, "--draws", "3", "--json", str(path)) == 0
    told = json.loads(path.read_text())["rows"]
    normals, tumours = two_classes(made / "set")
    curved = on_quantiles(normals.train, normals.train, tumours.train)
    by_hand = {"untranslated": normals.train, "one curve": curved, "real": tumours.train}
    for name, slices in by_hand.items():
        for key, features in (("fd_random", random_features), ("radiomic", radiomic_features)):
            sides = (features(side, shown=False) for side in (slices, tumours.slices))
            assert told[name][key] == pytest.approx(frechet(*sides).distance, rel=1e-4)
        sides = (random_features(side, shown=False) for side in (slices, tumours.test))
        assert told[name]["held_out"] == pytest.approx(frechet(*sides).distance, rel=1e-4)
    assert len(told["real"]["others"]) == 3
    for row in told.values():
        assert len(set(row["others"])) == 3
        for key in ("fd_random", "radiomic"):
            left = 100 * row[key] / told["untranslated"][key]
            assert row["left"][key] == pytest.approx(left)
    assert told["untranslated"]["left"]["others"] == [100, 100, 100]
    others = np.divide(told["translated"]["others"], told["untranslated"]["others"])
    assert told["translated"]["left"]["others"] == pytest.approx((100 * others).tolist())
    last = sorted(told["translated"]["left"]["others"])
    line = capsys.readouterr().out.splitlines()[-2]
    assert f"{last[1]:.0f} ({last[0]:.0f} to {last[2]:.0f})" in line


def test_slices_of_something_else_are_refused_in_one_line(made, monkeypatch, capsys):
    shutil.rmtree(made / "slices")
    in_shards(made / "slices", np.zeros((3, 32, 32), np.float32))
    assert asked(made, monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{made / 'slices'}: holds slices [3, 32, 32], and the normals")
    assert line.endswith("give their translations")
