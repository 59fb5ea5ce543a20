"""Recipes as files: a checked YAML document that names its paper, and overrides of its fields."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from fastmrigan.errors import UsageError
from fastmrigan.training.recipe import AnyRecipe, GanRecipe, Recipe

_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(AnyRecipe)
KINDS: dict[str, type[Recipe]] = {
    system: kind
    for kind in get_args(get_args(AnyRecipe)[0])
    for system in get_args(kind.model_fields["system"].annotation)
}


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("fastmrigan.training") / "recipes"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(recipe: str, overrides: list[str] | None = None) -> Recipe:
    """A shipped recipe by name or a YAML file by path, with `key=value` overrides applied.

    Nested keys are dotted: `optimiser.generator_lr=1e-4`. UsageError names what is wrong: the
    recipe (and the known ones), the field, or the key (and the nearest).
    """
    if recipe in shipped_recipes():
        source = f"recipe {recipe}"
        text = (resources.files("fastmrigan.training") / "recipes" / f"{recipe}.yaml").read_text(
            encoding="utf-8"
        )
    elif recipe.endswith((".yaml", ".yml")):
        source = recipe
        try:
            text = Path(recipe).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{recipe}: not a text file; a recipe is YAML") from error
    else:
        shipped = shipped_recipes()
        close = difflib.get_close_matches(recipe, shipped, 1, 0.5)
        hint = f"; the nearest is {close[0]!r}" if close else ""
        raise UsageError(
            f"no recipe named {recipe!r}{hint}; shipped are {', '.join(shipped)} "
            "(or give the path of a .yaml file)"
        )
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not readable as YAML: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"{source}: expected `field: value` lines, got {type(document).__name__}")
    parsed = check(document, source)
    if not overrides:
        return parsed
    document = parsed.model_dump(mode="json")
    for override in overrides:
        apply_override(document, override)
    return check(document, f"{source} with --set")


def check(document: dict[str, Any], source: str) -> Recipe:
    """The recipe of `document`; UsageError names the first faulty field."""
    if "system" not in document:
        raise UsageError(f"{source}: no field 'system': what is trained, one of {', '.join(KINDS)}")
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        # pydantic puts the chosen alternatives of unions between the names: the system first, the
        # network behind its section; neither is a field
        chosen = [document["system"]] + [
            part.get("network") for part in document.values() if isinstance(part, dict)
        ]
        path = [str(part) for part in first["loc"]]
        field = ".".join(p for i, p in enumerate(path) if i not in (0, 2) or p not in chosen)
        if first["type"].startswith("union_tag"):
            field = ".".join(filter(None, (field, first["ctx"]["discriminator"].strip("'"))))
        if first["type"] == "extra_forbidden":
            raise UsageError(
                f"{source}: unknown field {field!r}{nearest(field, document)}"
            ) from error
        message = first["msg"].removeprefix("Value error, ")
        where = f"{source}: {field}" if field else source  # the recipe as a whole
        told = first["type"] == "missing" or isinstance(first["input"], dict)
        value = "" if told else f", got {shortened(first['input'])}"
        raise UsageError(f"{where}: {message}{value}") from error


def shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def apply_override(document: dict[str, Any], override: str) -> None:
    """Sets one `key=value` (YAML value) in place."""
    key, sign, value = override.partition("=")
    if not sign:
        raise UsageError(f"--set {override!r}: expected key=value, for example --set batch=64")
    *parents, last = key.split(".")
    section: Any = document
    for part in parents:
        section = section.get(part) if isinstance(section, dict) else None
    try:
        wanted = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise UsageError(f"--set {override!r}: the value is not readable as YAML") from error
    whole = wanted is None or isinstance(wanted, dict)  # a section may be set as one, or left out
    # which fields a network's section has is up to the network: `check` will say
    known = isinstance(section, dict) and (last in section or "network" in section)
    if section is None and key in fields(kind_of(document), document):
        raise UsageError(
            f"--set {override!r}: {'.'.join(parents)} is null in this recipe; give all of it, "
            f"--set '{'.'.join(parents)}={{{last}: {value or '…'}}}'"
        )
    if not known or (isinstance(section.get(last), dict) and not whole):
        raise UsageError(
            f"--set {override!r}: no field {key!r} in the recipe{nearest(key, document)}"
        )
    if last == "network" and section["network"] != wanted:
        section.clear()  # the other network has fields of its own
    section[last] = wanted


def fields(model: type[BaseModel], document: Any, prefix: str = "") -> list[str]:
    """Every settable field, dotted; of the sections a network may have, the one `document` has."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        given = document.get(name) if isinstance(document, dict) else None
        network = given.get("network") if isinstance(given, dict) else None
        sections = parts_of(field.annotation)
        for section in [part for part in sections if is_of(part, network)] or sections:
            names += fields(section, given, f"{prefix}{name}.")
        if not sections:
            names.append(prefix + name)
    return list(dict.fromkeys(names))


def is_of(section: type[BaseModel], network: Any) -> bool:
    named = section.model_fields.get("network")
    return named is not None and network in get_args(named.annotation)


def parts_of(annotation: Any) -> list[type[BaseModel]]:
    """The sections an annotation may stand for: one, the members of a union, or none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [
        part
        for part in get_args(annotation)
        if isinstance(part, type) and issubclass(part, BaseModel)
    ]


def nearest(key: str, document: dict[str, Any]) -> str:
    """`; the nearest is ...`, looking at the dotted names and at their last parts."""
    known = fields(kind_of(document), document)
    last = key.rsplit(".", 1)[-1]
    by_last: dict[str, list[str]] = {}
    for name in known:
        by_last.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    close = [name for name in known if last in name]
    if not close:
        for word in difflib.get_close_matches(last, by_last, 1, 0.5):
            close = difflib.get_close_matches(key, by_last[word], 1, 0.0)
    close = close or difflib.get_close_matches(key, known, 1, 0.5)
    if not close:
        return f"; known are {', '.join(known)}"
    return f"; the nearest is {' or '.join(map(repr, close))}"


def kind_of(document: dict[str, Any]) -> type[Recipe]:
    """The class of recipes that `document` is of, so far as it says."""
    system = document.get("system")
    return KINDS.get(system, GanRecipe) if isinstance(system, str) else GanRecipe


def differences(old: Recipe, new: Recipe) -> list[str]:
    """`field: old -> new` for every field that must not change within a run."""
    found: list[str] = []

    def walk(a: dict[str, Any], b: dict[str, Any], prefix: str) -> None:
        for key in sorted(a.keys() | b.keys()):
            if not prefix and key in new.free_on_resume:
                continue
            left, right = a.get(key), b.get(key)
            if isinstance(left, dict) and isinstance(right, dict):
                walk(left, right, f"{prefix}{key}.")
            elif left != right:
                found.append(f"{prefix}{key}: {left} -> {right}")

    walk(old.model_dump(mode="json"), new.model_dump(mode="json"), "")
    return found
