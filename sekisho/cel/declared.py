"""How a library says which functions it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BOOL, INT, DOUBLE, STRING, BYTES = "bool", "int", "double", "string", "bytes"
TIMESTAMP, DURATION, DYN = "timestamp", "duration", "dyn"
A = "~A"
"""Any type, the same wherever it stands in one declaration."""


def list_of(element: str) -> str:
    """Return the type of a list."""
    return f"list({element})"


def optional(element: str) -> str:
    """Return the type of an optional value."""
    return f"optional_type({element})"


@dataclass(frozen=True)
class Overload:
    """One form of a function: its id as in the API server, its parameters and its result."""

    id: str
    parameters: tuple[str, ...]
    result: str
    member: bool = False


@dataclass(frozen=True)
class Library:
    """Functions of one subject."""

    name: str
    declarations: Mapping[str, tuple[Overload, ...]]
    functions: Mapping[str, Callable[..., Any]]
    """By the id of an overload; of several overloads that share an implementation, each is named."""


def type_yaml(text: str) -> dict[str, Any]:
    """Return a type as the evaluator's configuration writes it.

    Args:
        text: for example `list(string)`, `map(string, list(string))`, `~A`.
    """
    if text.startswith("~"):
        return {"type_name": text[1:], "is_type_param": True}
    name, bracket, rest = text.partition("(")
    if not bracket:
        return {"type_name": text}
    parts, depth, start = [], 0, 0
    inner = rest[:-1]
    for place, character in enumerate(inner):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(inner[start:place].strip())
            start = place + 1
    parts.append(inner[start:].strip())
    return {"type_name": name, "params": [type_yaml(part) for part in parts]}
