"""Which slices a recipe is given of the prepared datasets named for it."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fastmrigan.errors import UsageError
from fastmrigan.training.loading import load_training_data
from fastmrigan.training.recipe_file import load_recipe


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """labelled: 6 normal and 4 tumour slices; plain: 5 without a label; pairs: 5 of those."""
    from fastmrigan.imaging.prepare import PrepareOptions, prepare

    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    for folder, count in (("two/normal", 6), ("two/tumour", 4), ("one", 5), ("twins", 5)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            noise = rng.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(noise).save(root / folder / f"slice{index:02}.png")
    options = {"size": 32, "test_fraction": 0.0}
    prepare(root / "two", root / "labelled", PrepareOptions(**options))
    prepare(root / "one", root / "plain", PrepareOptions(**options))
    prepare(root / "one", root / "pairs", PrepareOptions(**options, pairs=root / "twins"))
    shutil.copytree(root / "labelled", root / "again")
    return root


def recipe_of(target, source):
    labels = [f"target_label={target}", f"source_label={source}"]
    return load_recipe("t2-tumour-cyclegan", ["size=32", *labels])


@pytest.mark.parametrize(
    ("data", "source", "labels", "counts"),
    [
        ("labelled", None, ("tumour", "normal"), (4, 6)),
        ("pairs", None, ("tumour", "normal"), (5, 5)),  # two sides that need no labels
        ("plain", "labelled", ("tumour", "normal"), (5, 6)),  # no label at all, and the label
        ("labelled", "plain", ("tumour", "normal"), (4, 5)),
        ("labelled", "again", ("tumour", "normal"), (4, 6)),
        ("labelled", "plain", ("null", "null"), (10, 5)),
    ],
)
def test_slices_of_the_labels(sets, data, source, labels, counts):
    source_data = None if source is None else sets / source
    found = load_training_data(sets / data, recipe_of(*labels), source_data=source_data)
    assert (len(found.slices), len(found.sources)) == counts


@pytest.mark.parametrize(
    ("data", "source", "named"),
    [("labelled", "plain", "T2"), ("plain", "labelled", "T1"), ("labelled", "again", "T2")],
)
def test_a_label_that_one_of_two_datasets_has_not_is_refused(sets, data, source, named):
    text = (
        f"labelled: no label '{named}'; it has 'normal', 'tumour'; name its own, or take all of "
        "both sets with --set source_label=null --set target_label=null"
    )
    with pytest.raises(UsageError, match=re.escape(text)):
        load_training_data(sets / data, recipe_of("T2", "T1"), source_data=sets / source)


@pytest.mark.parametrize(("data", "source"), [("labelled", "pairs"), ("pairs", "labelled")])
def test_a_paired_set_is_refused_as_one_of_two_before_its_labels_are(sets, data, source):
    with pytest.raises(UsageError, match="holds both sides already"):
        load_training_data(sets / data, recipe_of("tumour", "normal"), source_data=sets / source)
