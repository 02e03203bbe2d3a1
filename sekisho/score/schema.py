"""The Score schema, and its errors in words that name the line."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any

from sekisho.score.source import Problem, Source, step

_KINDS = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "nothing",
}
_WANTED = {
    "label": "Use 2 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'.",
    "resourceType": "Use 2 to 63 of A-Z, a-z, 0-9 and '-', not beginning or ending with '-'.",
    "annotations": "Use an annotation key such as example.com/owner.",
    "memory": "Write memory as 64Mi, 1.5Gi or 128M.",
    "cpu": "Write cpu as 250m, 0.5 or 2.",
    "mode": 'Write the mode as three octal digits in quotes, for example "0644".',
    "id": "Use a-z, 0-9 and '-' in parts joined by '.', at most 63 characters.",
    "variables": "A variable's name is not empty and holds no '='.",
    "port": "Give a port from 1 to 65535.",
    "apiVersion": "Write apiVersion: score.dev/v1b1.",
}


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of score.dev/v1b1."""
    text = resources.files("sekisho.score").joinpath("score-v1b1.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _validator() -> Any:
    import jsonschema_rs  # noqa: PLC0415 - 40 ms that `--help` need not pay

    return jsonschema_rs.Draft202012Validator(schema())


@cache
def _keys() -> frozenset[str]:
    found: set[str] = set()
    open_schemas: list[Any] = [schema()]
    while open_schemas:
        current = open_schemas.pop()
        if isinstance(current, dict):
            found.update(current.get("properties", {}))
            open_schemas.extend(current.values())
        elif isinstance(current, list):
            open_schemas.extend(current)
    return frozenset(found)


def schema_problems(source: Source) -> list[Problem]:
    """Return everything in which a document differs from the schema; empty when nothing does."""
    found: list[Problem] = []
    for error in _validator().iter_errors(source.value):
        pointer = ""
        for part in error.instance_path:
            pointer = step(pointer, part)
        found.extend(_problems(source, error, pointer))
    return list(dict.fromkeys(found))


def _problems(source: Source, error: Any, pointer: str) -> list[Problem]:
    kind = error.kind
    match kind.name:
        case "additionalProperties" | "unevaluatedProperties":
            return [
                source.problem(step(pointer, key), "This key is unknown here.", _suggestion(key))
                for key in sorted(kind.unexpected)
            ]
        case "required":
            return [source.problem(pointer, f"{str(kind.property)!r} is missing.", f"Add {kind.property}.")]
        case "type":
            return [_type_problem(source, kind.types, error.instance, pointer)]
        case "propertyNames":
            key = str(kind.error.instance)
            return [source.problem(step(pointer, key), "This name is not allowed here.", _wanted(error))]
        case "const" | "enum" | "pattern" | "minLength" | "maxLength":
            return [source.problem(pointer, f"{_shown(error.instance)} is not allowed here.", _wanted(error))]
        case "oneOf":
            remedy = "Give exactly one of content, binaryContent and source."
            return [source.problem(pointer, "A file has one content.", remedy)]
        case "anyOf":
            return [source.problem(pointer, "A probe needs httpGet or exec.", "Add httpGet with port and path.")]
        case "minProperties":
            return [source.problem(pointer, "There is no entry here.", "Add one.")]
        case "minimum" | "maximum":
            return [source.problem(pointer, f"{_shown(error.instance)} is out of range.", _wanted(error))]
        case _:
            return [source.problem(pointer, f"{error.message[:200]}.")]


def _type_problem(source: Source, wanted: list[str], value: Any, pointer: str) -> Problem:
    name = wanted[0] if wanted else "?"
    remedy = "Put it in quotes." if name == "string" and isinstance(value, int | float) else ""
    return source.problem(pointer, f"This must be {_KINDS.get(name, name)}, and is {_kind_of(value)}.", remedy)


def _kind_of(value: Any) -> str:
    for type_, text in (
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (str, "a string"),
        (list, "a list"),
    ):
        if isinstance(value, type_):
            return text
    return "empty" if value is None else "a mapping"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - one line


def _suggestion(key: str) -> str:
    if key in _keys():
        return "It belongs elsewhere in the file; docs/score.md shows where."
    close = difflib.get_close_matches(key[:60], sorted(_keys()), n=1)
    return f"Did you mean {close[0]!r}?" if close else "Remove it; the keys of Score v1b1 are a closed set."


def _wanted(error: Any) -> str:
    if error.kind.name == "enum":
        return f"Write one of {', '.join(str(option) for option in error.kind.options)}."
    location = error.absolute_keyword_location or ""
    for part in reversed([*location.split("/"), *(str(part) for part in error.schema_path)]):
        if part in _WANTED:
            return _WANTED[part]
    return ""
