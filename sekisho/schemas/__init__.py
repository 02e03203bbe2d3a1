"""Is this object what the API server of a Kubernetes version would accept? Answered offline. Pure.

The schemas in kubernetes.json are cut out of Kubernetes' own OpenAPI documents by scripts/kube-schemas, which also says
where they are from: the kinds that a workload may have, in each version that a zone may run. They are closed, so that a
field that the server would drop in silence (a misspelt one, or one that a version does not have) is an error here.
What several versions share stands in the file once, and is compared with an object once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from sekisho.schemas.removed import Removed, removed

__all__ = ["Fault", "Removed", "faults", "knows", "release", "removed", "versions"]

_MOST_FAULTS = 20
_SHOWN = 60


@dataclass(frozen=True)
class Fault:
    """One place where an object is not what its kind allows."""

    pointer: str
    """JSON pointer inside the object."""
    message: str


def release(version: str) -> tuple[int, ...]:
    """Return a version (`1.36`) as numbers, for the order of versions."""
    return tuple(map(int, version.split(".")))


@cache
def versions() -> tuple[str, ...]:
    """Return the Kubernetes versions (`1.36`) whose schemas are here, oldest first."""
    return tuple(sorted(_document()["versions"], key=release))


def knows(obj: Mapping[str, Any], version: str) -> bool:
    """Return whether a version's schemas have this object's kind."""
    return _key(obj) in _document()["versions"][version]["kinds"]


def faults(obj: Mapping[str, Any], version: str) -> tuple[Fault, ...]:
    """Return where an object differs from what a version of Kubernetes accepts; empty when nowhere.

    Args:
        obj: an object of a kind that the version `knows`.
        version: one of `versions()`.
    """
    found: list[Fault] = []
    for error in _validator(*_parts(version, _key(obj))).iter_errors(obj):
        found.extend(_faults_of(error))
        if len(found) >= _MOST_FAULTS:
            break
    return tuple(sorted(dict.fromkeys(found), key=lambda fault: (fault.pointer, fault.message)))[:_MOST_FAULTS]


def _faults_of(error: Any) -> list[Fault]:
    at = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
    kind = error.kind
    match kind.name:
        case "additionalProperties":
            return [
                Fault(f"{at}/{key[:_SHOWN].replace('~', '~0').replace('/', '~1')}", "There is no such field.")
                for key in sorted(kind.unexpected)
            ]
        case "required":
            return [Fault(at, f"{str(kind.property)!r} is missing.")]
        case "type":
            return [Fault(at, f"This is {_kind_of(error.instance)}, and must be {' or '.join(kind.types)}.")]
        case "enum" if isinstance(error.instance, str):
            return [Fault(at, f"{error.instance[:_SHOWN]!r} is not one of {', '.join(map(str, kind.options))}.")]
        case "enum":
            return []  # the type is wrong already, which says more
        case _:
            shown = json.dumps(error.instance, ensure_ascii=True)[:_SHOWN]
            return [Fault(at, f"{shown} is not allowed here ({kind.name}).")]


def _kind_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", type(None): "null"}
    return names.get(type(value), "object")


def _key(obj: Mapping[str, Any]) -> str:
    return f"{obj.get('apiVersion')}/{obj.get('kind')}"


@cache
def _document() -> dict[str, Any]:
    text = resources.files(__name__).joinpath("kubernetes.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _parts(version: str, key: str) -> tuple[str, frozenset[tuple[str, int]]]:
    """Return the definition that a kind is, and all that it leads to: the same parts mean the same schema."""
    definitions = _document()["definitions"]
    root = _document()["versions"][version]["kinds"][key]
    found: dict[str, int] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = next(i for i, variant in enumerate(definitions[name]) if version in variant["in"])
            waiting.extend(_references(definitions[name][found[name]]["schema"]))
    return root, frozenset(found.items())


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(target := schema.get("$ref"), str):
            yield target.removeprefix("#/$defs/")
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


@cache
def _validator(root: str, parts: frozenset[tuple[str, int]]) -> Any:
    import jsonschema_rs  # noqa: PLC0415 - 40 ms that `--help` need not pay

    definitions = _document()["definitions"]
    kept = {name: definitions[name][variant]["schema"] for name, variant in sorted(parts)}
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/$defs/{root}", "$defs": kept})
