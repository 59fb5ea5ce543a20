"""REPRODUCTION.md: what its sources make, and what they are refused for."""

import shutil
import sys
from pathlib import Path

import pytest

from fastmrigan.training.recipe_file import shipped_recipes

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "reproduction"))

import generate  # noqa: E402
import sources  # noqa: E402

RESULTS = """\
# Results

## tumour-dcgan64 on something, 2030-01-02

```
fastmrigan train tumour-dcgan64
```

| measure | value | beside it |
|---|---|---|
| distance | 0.5 | floor: 0.1 |

## notes without a table
"""
DISTANCE = {"section": "tumour-dcgan64 on something, 2030-01-02", "rows": ["distance"]}


@pytest.fixture(scope="module")
def papers():
    return sources.load_papers()


@pytest.fixture(scope="module")
def page():
    return generate.made()


def test_the_committed_page_is_what_its_sources_make(page):
    committed = (ROOT / "REPRODUCTION.md").read_text(encoding="utf-8")
    assert committed == page, "REPRODUCTION.md is not up to date: make reproduction"


def test_every_paper_and_recipe_has_its_place(page):
    names = ["Divya, Suresh, John", "Nguyen, Trong", "Mahajan", "Li", "Chithra, Dhivya"]
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["At a glance", *names]
    for name in shipped_recipes():
        assert page.count(f"\n| `{name}` |") == (0 if name == "phantom-quick" else 2)


@pytest.mark.parametrize(
    "row",
    [
        "| batch | 40, 5, 2 and 2 in v1 to v4 | `batch` = 40 (v1), 5 (v2), 2 (v3, v4). "
        "| implemented |",
        "| channels | RGB | `channels` = 1. Grey by default; MRI and CT have one channel. "
        "To the letter: `--set channels=3`. | deviates |",
        "| betas | (0.5, 0.999) | `optimiser.betas` = [0.5, 0.999]. | implemented |",
        "| `tumour-dcgan64-improved` | generator 3,574,656, discriminator 2,763,520 "
        "| other than `tumour-dcgan64`: `augmentation.horizontal_flip` = true, "
        "`augmentation.diffaugment` = [translation], `batch` = 32, "
        "`epochs` = 400, `precision` = bf16, `label` = tumour |",
        "| `tumour-dcgan64` | generator 3,574,656, discriminator 2,763,520 "
        "| `ema` = {decay: 0.999, ramp: true} |",
        # ResNet-9 and PatchGAN 70x70 as published
        "| `t2-tumour-cyclegan` | generator 2 x 11,365,633, discriminator 2 x 2,762,689 | none |",
    ],
)
def test_rows(page, row):
    assert f"\n{row}\n" in page


def test_sections_of_results():
    results = sources.read_results(RESULTS)
    assert list(results) == ["tumour-dcgan64 on something, 2030-01-02", "notes without a table"]
    section = results["tumour-dcgan64 on something, 2030-01-02"]
    assert section.date == "2030-01-02"
    assert section.commands == "fastmrigan train tumour-dcgan64\n"
    assert section.rows == {"measure": ["value", "beside it"], "distance": ["0.5", "floor: 0.1"]}
    link = "[RESULTS.md, 2030-01-02](RESULTS.md#tumour-dcgan64-on-something-2030-01-02)"
    assert section.link == link


def with_item(papers, **changes):
    """The papers, and in the first of them one item more."""
    item = sources.Item.model_validate({"key": "new", "kind": "setting", "says": "x"} | changes)
    first = papers[0].model_copy(update={"items": (*papers[0].items, item)})
    return [first, *papers[1:]]


def test_our_figure_is_read_from_results(papers):
    results = sources.read_results(RESULTS)
    (paper, *_) = with_item(papers, measured=[DISTANCE])
    cell = generate.ours(paper.items[-1], paper, results)
    assert cell.startswith("Distance: **0.5** (beside it: floor: 0.1) ([RESULTS.md, 2030-01-02]")


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({}, "Divya, Suresh, John, new: no status"),
        ({"key": "batch", "states": {"batch": 128}}, "batch: stands there twice"),
        ({"states": {"batch": 64}}, "tumour-dcgan64 has batch = 128, the paper 64"),
        ({"states": {"generator.depth": 3}}, "tumour-dcgan64 has no field generator.depth"),
        ({"fields": ["batch.size"]}, "tumour-dcgan64 has no field batch.size"),
        ({"fields": ["batch"], "recipes": ["tumour-progan"]}, "none of the paper's systems"),
        ({"code": ["fastmrigan.models.dcgan.Nothing"]}, "there is no fastmrigan.models.dcgan.Noth"),
        ({"code": ["nothing.at.all"]}, "there is no nothing.at.all"),
        ({"command": "dream"}, "fastmrigan has no command dream"),
        ({"command": "prepare --gradnig"}, "fastmrigan prepare has no option --gradnig"),
        ({"fields": ["batch"], "deviation": "because"}, "expected `other`"),
        ({"fields": ["batch"], "other": ["batch=128"]}, "batch=128 changes nothing"),
        ({"fields": ["batch"], "other": ["bacth=3"]}, "no field 'bacth'"),
        ({"measured": [DISTANCE | {"section": "none"}]}, "RESULTS.md has no section 'none'"),
        ({"measured": [DISTANCE | {"rows": ["time"]}]}, "no row 'time'"),
        (
            {"measured": [DISTANCE | {"section": "notes without a table"}]},
            "notes without a table: no command, or no date",
        ),
    ],
)
def test_faulty_items(papers, item, text):
    from fastmrigan.errors import UsageError

    with pytest.raises((ValueError, UsageError), match=text):
        sources.check(with_item(papers, **item), sources.read_results(RESULTS + committed()))


def committed():
    return (ROOT / "RESULTS.md").read_text(encoding="utf-8")


def test_a_figure_of_another_system_is_refused(papers):
    results = sources.read_results(RESULTS.replace("tumour-dcgan64 on", "tumour-progan on"))
    measured = DISTANCE | {"section": "tumour-progan on something, 2030-01-02"}
    with pytest.raises(ValueError, match="of another system"):
        sources.check(
            with_item([papers[0].model_copy(update={"items": ()})], measured=[measured]), results
        )


def test_rows_speak_of_an_improved_recipe_where_they_name_it(papers):
    paper = papers[0]
    free, named = (
        sources.Item(key="x", kind="metric", says="y", open="z", recipes=recipes)
        for recipes in ((), ("tumour-dcgan64-improved",))
    )
    assert paper.recipes(free) == ["tumour-dcgan64"]
    assert paper.recipes(named) == ["tumour-dcgan64-improved"]


def test_what_improves_no_recipe_of_the_paper_is_refused(papers):
    system = sources.System(name="tumour-dcgan64-improved", task="x", improves="tumour-progan")
    first = papers[0].model_copy(update={"systems": (papers[0].systems[0], system)})
    with pytest.raises(ValueError, match="improves none of the paper's systems"):
        sources.check([first, *papers[1:]], {})


def test_a_recipe_in_no_paper_is_refused(papers):
    with pytest.raises(
        ValueError, match=r"recipes in no paper: t2-tumour-cyclegan, t2-tumour-cyclegan-improved$"
    ):
        sources.check([papers[0], *papers[2:]], sources.read_results(committed()))


def with_system(papers, **fields):
    system = sources.System.model_validate({"task": "x"} | fields)
    return [papers[0].model_copy(update={"systems": (*papers[0].systems, system)}), *papers[1:]]


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ({"name": "tumour-vae"}, "tumour-vae: expected exactly one of"),
        ({"name": "tumour-progan", "open": "soon"}, "tumour-progan: expected exactly one of"),
        ({"name": "tumour-progan"}, "tumour-progan: cites another paper than Divya"),
        ({"name": "dream", "command": "dream"}, "fastmrigan has no command dream"),
    ],
)
def test_faulty_systems(papers, system, text):
    with pytest.raises(ValueError, match=text):
        sources.check(with_system(papers, **system), sources.read_results(committed()))


def test_what_is_not_implemented_is_said_to_be(papers):
    results = sources.read_results(committed())
    planned = with_system(papers, name="tumour-vae", open="its paper is being read")
    sources.check(planned, results)
    page = generate.page(planned, results)
    assert "\n| `tumour-vae`: not implemented yet, its paper is being read |" in page


def test_an_unknown_field_of_a_paper_is_named(tmp_path):
    folder = tmp_path / "papers"
    shutil.copytree(ROOT / "docs" / "reproduction" / "papers", folder)
    path = folder / "li.yaml"
    path.write_text(path.read_text().replace("says: RGB", "syas: RGB"))
    with pytest.raises(ValueError, match=r"li\.yaml: items\.8\.says: Field required"):
        sources.load_papers(folder)
