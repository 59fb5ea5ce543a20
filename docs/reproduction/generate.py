"""Writes REPRODUCTION.md: `make reproduction`, or `python docs/reproduction/generate.py`."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import torch
from sources import (
    RESULTS,
    ROOT,
    STATUSES,
    Item,
    Paper,
    Section,
    System,
    check,
    deviations,
    load_papers,
    read_results,
    recipe_named,
    resolved,
    shown,
    value_of,
)

from fastmrigan.training.networks import parameter_count
from fastmrigan.training.recipe import HOUSEKEEPING
from fastmrigan.training.recipe_file import load_recipe
from fastmrigan.training.systems import system_of

PAGE = ROOT / "REPRODUCTION.md"
NO_SETTINGS = set(HOUSEKEEPING) | {"name"}  # of a recipe
HEAD = """\
<!-- Written by `make reproduction` from docs/reproduction, the recipes and RESULTS.md. -->

# Reproduction

Five papers make or translate brain MR slices with adversarial networks. Their systems are recipes
of FastMRIGAN (`fastmrigan train NAME --dry-run` prints one in full). This page holds the papers
against them: every setting, metric and figure of theirs is a row that says what became of it.

**What is known of the papers.** The papers themselves were not at hand. What stands in the columns
"the paper" comes from an account of them; nothing was added to it, and "not given" or "left open",
here and in the recipes' notes, is said of that account. A slip in it is a slip here.

**What makes it true.** Every field's value in the columns "ours" is read from the recipes as they
are shipped, every figure of ours from [RESULTS.md](RESULTS.md). A test fails where a recipe has
another value than the paper without saying so, and where this page is not what its sources make.
"""


def page(papers: list[Paper], results: dict[str, Section]) -> str:
    lines = [HEAD, "## At a glance", ""]
    lines += table(
        ["system", "paper", "task", "size", "data", "rows below", "our figures"],
        [glance(paper, system, results) for paper in papers for system in paper.systems],
    )
    counts = Counter(item.status for paper in papers for item in paper.items)
    lines += ["", "| status | rows | meaning |", "|---|---|---|"]
    lines += [f"| {status} | {counts[status]} | {what} |" for status, what in STATUSES.items()]
    lines += [
        "",
        "A deviation from a paper is a field of the recipe, so that each run's `config.yaml` names "
        "it. These exist; under each paper stands which of them its recipes have on, and which are "
        "no deviation there. Parameters are counted with the biases that an instance norm takes "
        "away again; `speed` leaves these out.",
        "",
    ]
    lines += table(
        ["field", "without", "what it does"],
        [[code(each.field), code(shown(each.without)), each.what] for each in deviations()],
    )
    for paper in papers:
        lines += ["", *section_of(paper, results)]
    return "\n".join(lines) + "\n"


def glance(paper: Paper, system: System, results: dict[str, Section]) -> list[str]:
    """A system's row of the first table."""
    of_system = [item for item in paper.items if paper.speaks_of(item, system)]
    counts = Counter(item.status for item in of_system)
    measured = [each.link for name, each in results.items() if name.startswith(f"{system.name} ")]
    if system.command:
        name, size, data = f"`fastmrigan {system.command}`", "any", system.data
    elif system.open:
        name, size, data = f"{code(system.name)}: not implemented yet, {system.open}", "", ""
    else:
        recipe = recipe_named(system.name)
        name, size, data = code(system.name), str(recipe.size), data_of(recipe)
    return [
        name,
        paper.citation.split(":")[0],
        system.task,
        size,
        data,
        ", ".join(
            ([f"those of {code(system.improves)}"] if system.improves else [])
            + [f"{counts[status]} {status}" for status in STATUSES if counts[status]]
        ),
        ", ".join(measured) or "none yet",
    ]


def data_of(recipe: Any) -> str:
    """What kind of prepared dataset the recipe trains on."""
    if recipe.task == "sample":
        return f"slices labelled {code(recipe.label)}" if recipe.label else "slices"
    kind = "registered pairs" if recipe.system == "pix2pix" else "unpaired slices"
    if recipe.source_label is None:
        return f"{kind} of two datasets" if kind.startswith("unpaired") else kind
    return f"{kind}, {code(recipe.source_label)} and {code(recipe.target_label)}"


def section_of(paper: Paper, results: dict[str, Section]) -> list[str]:
    authors, title = paper.citation.split(": ", 1)
    lines = [f"## {authors}", "", f"*{title}.* {paper.about}", ""]
    for heading, kinds in (
        ("Settings", {"setting"}),
        ("Metrics and figures", {"metric", "figure"}),
    ):
        items = [item for item in paper.items if item.kind in kinds]
        lines += [f"### {heading} of {authors}", ""]
        lines += table(
            ["what", "the paper", "ours", "status"],
            [[item.key, item.says, ours(item, paper, results), item.status] for item in items],
        )
        lines.append("")
    lines += [f"### Recipes of {authors}", ""]
    trained = [system for system in paper.systems if not system.command and not system.open]
    lines += table(
        ["recipe", "parameters", "deviations on; all others are off"],
        [
            [
                code(each.name),
                parameters(each.name),
                beside(each) if each.improves else deviations_of(each.name, paper),
            ]
            for each in trained
        ],
    )
    lines += ["", *notes([system.name for system in trained])]
    used = {m.section: None for item in paper.items for m in item.measured}
    for heading in used:
        lines += ["", f"Commands of the figures ({results[heading].link}):", ""]
        lines += ["```", results[heading].commands.rstrip(), "```"]
    return lines


def ours(item: Item, paper: Paper, results: dict[str, Section]) -> str:
    """The cell that says what became of an item."""
    parts = []
    names = paper.recipes(item)
    fields = dict.fromkeys([*item.states, *item.fields])
    values = "; ".join(values_of(item, field, names, paper) for field in fields)
    if values:
        parts.append(values)
    if item.code:
        parts.append(", ".join(object_of(item, dotted) for dotted in item.code))
    if item.command:
        parts.append(f"`fastmrigan {item.command}`")
    text = ". ".join(parts) + ("." if parts else "")
    if item.conflict:
        text += f" {capital(item.conflict.why)}."
    if item.deviation:
        text += f" {capital(item.deviation)}."
    if item.how:
        text += f" {item.how}"
    if item.other:
        lead = "The other reading: " if item.conflict else ""
        lead = "To the letter: " if item.deviation else lead
        text += f" {lead}" + code(" ".join(f"--set {setting(each)}" for each in item.other)) + "."
    for measured in item.measured:
        text += " " + figures(results[measured.section], measured.rows)
    if item.open:
        text += f" Not yet: {item.open}."
    if item.unavailable:
        text += f" Unavailable: {item.unavailable}."
    return text.strip()


def values_of(item: Item, field: str, names: list[str], paper: Paper) -> str:
    """`field` = value, or its values with the recipes that have them."""
    holders: dict[str, list[str]] = {}
    for name in names:
        value = shown(value_of(item.key, name, field))
        holders.setdefault(value, []).append(paper.short(name))
    if len(holders) == 1:
        return f"{code(field)} = {next(iter(holders))}"
    each = [f"{value} ({', '.join(have)})" for value, have in holders.items()]
    return f"{code(field)} = {', '.join(each)}"


def object_of(item: Item, dotted: str) -> str:
    value = resolved(item.key, dotted)
    constant = isinstance(value, bool | int | float | str) or (
        isinstance(value, tuple) and len(shown(value)) < 30
    )
    return f"{code(dotted)} = {shown(value)}" if constant else code(dotted)


def figures(section: Section, rows: tuple[str, ...]) -> str:
    each = []
    for row in rows:
        value, *beside = section.rows[row]
        aside = f" (beside it: {beside[0]})" if beside and beside[0] else ""
        each.append(f"{capital(row)}: **{value}**{aside}")
    return "; ".join(each) + f" ({section.link})."


def parameters(name: str) -> str:
    """Of each network, with the biases that instance norm takes away again."""
    recipe = load_recipe(name, ["speed=false"])
    with torch.device("meta"):
        networks = system_of(recipe).make(recipe)
    counts = {network: f"{parameter_count(module):,}" for network, module in networks.items()}
    for network in ("generator", "discriminator"):
        if counts.get(f"{network}_back") == counts[network]:
            counts[network] = f"2 x {counts[network]}"
            del counts[f"{network}_back"]
    return ", ".join(f"{network.replace('_', ' ')} {count}" for network, count in counts.items())


def deviations_of(name: str, paper: Paper) -> str:
    """Those a recipe has on, and those of the list that are none here."""
    items = [item for item in paper.items if name in paper.recipes(item)]
    on = [
        f"{code(field)} = {shown(value_of(name, name, field))}"
        for item in items
        if item.deviation
        for field in item.fields
    ]
    asked = {field for item in items for field in (*item.states, *item.fields)}
    asked |= {field.split(".")[0] for field in asked if field.startswith("ema.")}
    document = recipe_named(name).model_dump(mode="json")
    prescribed = []
    for each in deviations():
        if each.field not in {*document, *flat(document)}:
            continue  # another system's
        value = value_of(name, name, each.field)
        if value == each.without:
            continue
        if each.field in asked:
            prescribed.append(code(each.field))
        else:
            on.append(f"{code(each.field)} = {shown(value)}")
    paper_has = f" (the paper's own: {', '.join(prescribed)})" if prescribed else ""
    return (", ".join(on) or "none") + paper_has


def beside(system: System) -> str:
    """What an improved recipe has other than the one it improves."""
    own, faithful = (
        flat(recipe_named(name).model_dump(mode="json", exclude=NO_SETTINGS))
        for name in (system.name, system.improves)
    )
    changed = [
        f"{code(field)} = {shown(value)}"
        for field, value in own.items()
        if field not in faithful or value != faithful[field]
    ]
    changed += [
        f"no {code(field)}"
        for field, value in faithful.items()
        if field not in own and value is not None
    ]
    return f"other than {code(system.improves)}: {', '.join(changed)}"


def flat(document: dict[str, Any]) -> dict[str, Any]:
    """A recipe's fields by their dotted names."""
    fields = {}
    for name, value in document.items():
        if isinstance(value, dict):
            fields |= {f"{name}.{inner}": each for inner, each in flat(value).items()}
        else:
            fields[name] = value
    return fields


def notes(names: list[str]) -> list[str]:
    """The recipes' notes, one that several have once."""
    holders: dict[str, list[str]] = {}
    for name in names:
        for note in recipe_named(name).notes:
            holders.setdefault(note, []).append(name)
    groups: dict[tuple[str, ...], list[str]] = {}
    for note, have in holders.items():
        groups.setdefault(tuple(have), []).append(note)
    lines: list[str] = []
    for holding, of_group in sorted(groups.items(), key=lambda group: -len(group[0])):
        every = len(holding) == len(names) and len(names) > 1
        lines += ["", f"Notes of {'all' if every else ', '.join(map(code, holding))}:", ""]
        lines += [f"- {note}" for note in of_group]
    return lines[1:]


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(header), "|" + "---|" * len(header), *map(line, rows)]


def code(text: str) -> str:
    return f"`{text}`"


def setting(override: str) -> str:
    return f"'{override}'" if " " in override else override


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def made() -> str:
    """The page as its sources have it now. ValueError where they do not fit together."""
    results = read_results(RESULTS.read_text(encoding="utf-8"))
    papers = load_papers()
    check(papers, results)
    return page(papers, results)


if __name__ == "__main__":
    try:
        PAGE.write_text(made(), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"{PAGE.name}: {error}")
