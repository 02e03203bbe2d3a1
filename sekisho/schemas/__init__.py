"""Is this object what the API server of a Kubernetes version would accept? Answered offline. Pure.

The schemas beside this file are cut out of a real API server's OpenAPI document by scripts/kube-schemas: one file for
each version that the line's zones may run, with the kinds that a workload may have. They are closed, so that a field
that the server would drop in silence (a misspelt one, or one that a version does not have) is an error here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from sekisho.schemas.removed import Removed, removed

__all__ = ["Fault", "Removed", "faults", "knows", "removed", "versions"]

_MOST_FAULTS = 20
_SHOWN = 60


@dataclass(frozen=True)
class Fault:
    """One place where an object is not what its kind allows."""

    pointer: str
    """JSON pointer inside the object."""
    message: str


@cache
def versions() -> tuple[str, ...]:
    """Return the Kubernetes versions (`1.36`) whose schemas are here, oldest first."""
    names = [entry.name for entry in resources.files(__name__).iterdir() if entry.name.startswith("kubernetes-")]
    found = [name.removeprefix("kubernetes-").removesuffix(".json") for name in names]
    return tuple(sorted(found, key=lambda version: tuple(map(int, version.split(".")))))


def knows(obj: Mapping[str, Any], version: str) -> bool:
    """Return whether a version's schemas have this object's kind."""
    return _key(obj) in _document(version)["kinds"]


def faults(obj: Mapping[str, Any], version: str) -> tuple[Fault, ...]:
    """Return where an object differs from what a version of Kubernetes accepts; empty when nowhere.

    Args:
        obj: an object of a kind that the version `knows`.
        version: one of `versions()`.
    """
    found: list[Fault] = []
    for error in _validator(version, _key(obj)).iter_errors(obj):
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
def _document(version: str) -> dict[str, Any]:
    text = resources.files(__name__).joinpath(f"kubernetes-{version}.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _validator(version: str, key: str) -> Any:
    import jsonschema_rs  # noqa: PLC0415 - 40 ms that `--help` need not pay

    document = _document(version)
    root = {"$ref": f"#/$defs/{document['kinds'][key]}", "$defs": document["$defs"]}
    return jsonschema_rs.Draft202012Validator(root)
