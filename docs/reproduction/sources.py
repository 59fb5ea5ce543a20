"""What REPRODUCTION.md is made of, read and held against each other, so that it cannot drift.

- papers/*.yaml: what each paper says, an item a row, and which field of which recipe, which object
  of the code or which command answers it;
- the shipped recipes: every value in the page is read from them;
- RESULTS.md: every figure of ours is read from its tables.

generate.py writes the page. An item that says nothing of its status, a field, object, option or
figure that does not exist, a value other than the paper's that is not declared as a deviation, and
a recipe that is in no paper: each is an error that names the item.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fastmrigan.training.recipe import Recipe
from fastmrigan.training.recipe_file import load_recipe, shipped_recipes

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
RESULTS = ROOT / "RESULTS.md"
PAPERS = ("divya", "nguyen", "mahajan", "li", "chithra")
NO_PAPER = frozenset({"phantom-quick"})  # recipes of our own
STATUSES = {
    "implemented": "as the paper has it; where it leaves something open, as the row and the "
    "recipe's notes say",
    "deviates": "other than the paper by default; the command that follows it to the letter is "
    "beside it",
    "conflicting": "the paper has two readings; the one taken, and the command for the other",
    "measured": "with our figure, from RESULTS.md",
    "open": "what makes or measures it may exist, our figure does not yet",
    "unavailable": "cannot be had, and why",
}


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Conflict(Part):
    readings: tuple[str, str]
    why: str  # which is taken, and why


class Measured(Part):
    section: str  # a heading of RESULTS.md, which names the recipe and the date
    rows: tuple[str, ...]  # of that section's table, by their first column


class Item(Part):
    """One setting, metric or figure of a paper. At least one field from `states` on is given."""

    key: str
    kind: Literal["setting", "metric", "figure"]
    says: str  # the paper
    recipes: tuple[str, ...] = ()  # none: every recipe of the paper
    how: str = ""
    other: tuple[str, ...] = ()  # --set for the other reading, or for the paper's letter
    # Recipe fields with the paper's value, for all recipes or by recipe: a recipe must have it.
    states: dict[str, Any] = {}
    fields: tuple[str, ...] = ()  # recipe fields that answer the paper without a value of its own
    code: tuple[str, ...] = ()  # dotted names
    command: str = ""  # a command of fastmrigan and options of it
    conflict: Conflict | None = None
    deviation: str = ""  # why
    measured: tuple[Measured, ...] = ()
    open: str = ""  # what is missing
    unavailable: str = ""  # why

    @property
    def status(self) -> str:
        named = {
            "conflicting": self.conflict,
            "deviates": self.deviation,
            "unavailable": self.unavailable,
            "measured": self.measured,
            "open": self.open,
            "implemented": self.states or self.fields or self.code or self.command,
        }
        return next((status for status, given in named.items() if given), "")


class System(Part):
    """A recipe, or what a command does without one."""

    name: str
    task: str
    improves: str = ""  # another of the paper's recipes: settings of ours, no row speaks of them
    command: str = ""  # instead of a recipe
    data: str = ""  # where no recipe says it
    open: str = ""  # why there is no recipe of this name yet


class Paper(Part):
    citation: str
    about: str
    systems: tuple[System, ...]
    items: tuple[Item, ...]

    def recipes(self, item: Item) -> list[str]:
        """The recipes an item is about."""
        return [
            each.name
            for each in self.systems
            if not each.command and not each.open and self.speaks_of(item, each)
        ]

    def speaks_of(self, item: Item, system: System) -> bool:
        return system.name in item.recipes or not (item.recipes or system.improves)

    def short(self, name: str) -> str:
        """A recipe's name without what all the paper's recipes begin with."""
        words = [system.name.split("-") for system in self.systems if not system.improves]
        if len(words) == 1:
            return name
        alike = takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
        return "-".join(name.split("-")[len(list(alike)) :])


class Deviation(Part):
    field: str
    without: Any  # the value at which there is none
    what: str


class Section(NamedTuple):
    """A section of RESULTS.md."""

    heading: str
    date: str
    commands: str  # its first fenced block
    rows: dict[str, list[str]]  # its tables' further columns by the first

    @property
    def link(self) -> str:
        anchor = re.sub(r"[^\w\- ]", "", self.heading.lower()).replace(" ", "-")
        return f"[RESULTS.md, {self.date}](RESULTS.md#{anchor})"


def load_papers(folder: Path = FOLDER / "papers") -> list[Paper]:
    """The papers in the order of the page. ValueError names a field that is not as expected."""
    papers = []
    for name in PAPERS:
        path = folder / f"{name}.yaml"
        try:
            papers.append(Paper.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path.name}: {place}: {first['msg']}") from error
    return papers


@cache
def deviations() -> list[Deviation]:
    text = (FOLDER / "deviations.yaml").read_text(encoding="utf-8")
    return [Deviation.model_validate(entry) for entry in yaml.safe_load(text)]


@cache
def recipe_named(name: str) -> Recipe:
    return load_recipe(name)


def read_results(text: str) -> dict[str, Section]:
    """The sections of RESULTS.md by heading."""
    sections = {}
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        heading, body = part.split("\n", 1)
        date = re.search(r"\d{4}-\d\d-\d\d", heading)
        block = re.search(r"^```\w*\n(.*?)^```", body, re.M | re.S)
        lines = re.findall(r"^\|(.*)\|$", body, re.M)
        cells = [[cell.strip() for cell in line.split("|")] for line in lines]
        rows = {first: rest for first, *rest in cells if first.strip("-: ")}
        sections[heading] = Section(
            heading, date[0] if date else "no date", block[1] if block else "", rows
        )
    return sections


def check(papers: list[Paper], results: dict[str, Section]) -> None:
    """Raises ValueError at the first thing that does not fit."""
    shipped = set(shipped_recipes())
    named: set[str] = set()
    for paper in papers:
        keys: set[str] = set()
        for system in paper.systems:
            if bool(system.command) + bool(system.open) + (system.name in shipped) != 1:
                raise ValueError(
                    f"{system.name}: expected exactly one of a shipped recipe of that name, a "
                    "command, and `open` with the reason"
                )
            if system.command:
                check_command(system.name, system.command)
            elif system.name in shipped and recipe_named(system.name).paper != paper.citation:
                raise ValueError(f"{system.name}: cites another paper than {paper.citation}")
            papers_own = {each.name for each in paper.systems if not each.improves}
            if system.improves and system.improves not in papers_own:
                raise ValueError(f"{system.name}: improves none of the paper's systems")
            named.add(system.name)
        for item in paper.items:
            where = f"{paper.citation.split(':')[0]}, {item.key}"
            if item.key in keys:
                raise ValueError(f"{where}: stands there twice")
            keys.add(item.key)
            check_item(where, item, paper, results)
    missing = shipped - named - NO_PAPER
    if missing:
        raise ValueError(f"recipes in no paper: {', '.join(sorted(missing))}")


def check_item(where: str, item: Item, paper: Paper, results: dict[str, Section]) -> None:
    if not item.status:
        raise ValueError(f"{where}: no status; give states, fields, code, command, open, ...")
    known = {system.name for system in paper.systems}
    if unknown := set(item.recipes) - known:
        raise ValueError(f"{where}: {', '.join(sorted(unknown))} is none of the paper's systems")
    recipes = paper.recipes(item)
    if (item.states or item.fields or item.other) and not recipes:
        raise ValueError(f"{where}: fields of a recipe, but no recipe")
    for name in recipes:
        for field in item.fields:
            value_of(where, name, field)
        for field, stated in stated_for(item, name, recipes).items():
            value = value_of(where, name, field)
            if value != stated:
                raise ValueError(
                    f"{where}: {name} has {field} = {shown(value)}, the paper {shown(stated)}; "
                    "correct it, or declare a deviation"
                )
        if item.other and load_recipe(name, list(item.other)) == recipe_named(name):
            raise ValueError(f"{where}: {' '.join(item.other)} changes nothing in {name}")
    if (item.conflict or item.deviation) and not (item.other and recipes):
        raise ValueError(f"{where}: expected `other`, the --set for the other reading")
    for dotted in item.code:
        resolved(where, dotted)
    if item.command:
        check_command(where, item.command)
    for measured in item.measured:
        section = results.get(measured.section)
        if section is None:
            raise ValueError(f"{where}: RESULTS.md has no section {measured.section!r}")
        if not section.commands or section.date == "no date":
            raise ValueError(f"{where}: RESULTS.md, {section.heading}: no command, or no date")
        if not any(section.heading.startswith(f"{name} ") for name in item.recipes or known):
            raise ValueError(f"{where}: RESULTS.md, {section.heading}: of another system")
        for row in measured.rows:
            if row not in section.rows:
                raise ValueError(f"{where}: RESULTS.md, {section.heading}: no row {row!r}")


def stated_for(item: Item, name: str, recipes: Iterable[str]) -> dict[str, Any]:
    """The paper's value of each field for one recipe."""
    by_recipe = {
        field for field, v in item.states.items() if isinstance(v, dict) and set(v) == set(recipes)
    }
    return {
        field: value[name] if field in by_recipe else value for field, value in item.states.items()
    }


def value_of(where: str, name: str, field: str) -> Any:
    """A recipe's value, as in its YAML."""
    value: Any = recipe_named(name).model_dump(mode="json")
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"{where}: {name} has no field {field}")
        value = value[key]
    return value


def shown(value: Any) -> str:
    """A value as it stands in a recipe."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def resolved(where: str, dotted: str) -> Any:
    """The module, class, function or constant of that name."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                raise ValueError(f"{where}: there is no {dotted}")
            found = getattr(found, part)
        return found
    raise ValueError(f"{where}: there is no {dotted}")


@cache
def commands() -> dict[str, set[str]]:
    """The options of each command."""
    from typer.main import get_command

    from fastmrigan.cli import build_app

    group: Any = get_command(build_app())  # type: ignore[no-untyped-call]
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in group.commands.items()
    }


def check_command(where: str, line: str) -> None:
    name, *options = line.split()
    if name not in commands():
        raise ValueError(f"{where}: fastmrigan has no command {name}")
    if unknown := set(options) - commands()[name]:
        raise ValueError(f"{where}: fastmrigan {name} has no option {', '.join(sorted(unknown))}")
