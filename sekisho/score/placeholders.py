r"""Score's placeholders: `${metadata.name}`, `${resources.db.host}`, and how a dollar is written.

After the Score specification's reference implementation: `$$` is one dollar and `$${x}` is the text `${x}`; a single
dollar before anything but `{` stays as it is; `\.` is a dot inside one part of a reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sekisho.canonical import canonical

_TOKEN = re.compile(r"\$(?:(\$?)\{([^}]*)\}|\$)")


@dataclass(frozen=True)
class Reference:
    """One placeholder: the parts of `${a.b.c}`, and its text as written."""

    parts: tuple[str, ...]
    text: str


Part = str | Reference


class PlaceholderError(ValueError):
    """A placeholder cannot be resolved; the message says why."""


def parts_of(reference: str) -> tuple[str, ...]:
    r"""Split `a.b\.c` into `a` and `b.c`."""
    return tuple(part.replace("\0", ".") for part in reference.replace("\\.", "\0").split("."))


def scan(text: str) -> tuple[Part, ...]:
    """Split a text into literal text (unescaped, neighbours joined) and references, in order."""
    found: list[Part] = []
    literal: list[str] = []
    position = 0
    for match in _TOKEN.finditer(text):
        literal.append(text[position : match.start()])
        position = match.end()
        if match[2] is None or match[1]:
            literal.append(match[0][1:])
            continue
        if any(literal):
            found.append("".join(literal))
        literal = []
        found.append(Reference(parts_of(match[2]), match[0]))
    literal.append(text[position:])
    if any(literal):
        found.append("".join(literal))
    return tuple(found)


def resolve(text: str, metadata: dict[str, Any]) -> tuple[Part, ...]:
    """Return the parts of `text` with references into metadata replaced; those into resources stay.

    Raises:
        PlaceholderError: a reference has an unknown root, or metadata has no such value.
    """
    found: list[Part] = []
    for part in scan(text):
        value = part if isinstance(part, str) else _resolved(part, metadata)
        if isinstance(value, str) and found and isinstance(found[-1], str):
            found[-1] += value
        elif value != "":
            found.append(value)
    return tuple(found)


def _resolved(reference: Reference, metadata: dict[str, Any]) -> Part:
    root = reference.parts[0]
    if root == "resources":
        return reference
    if root != "metadata":
        raise PlaceholderError(f"{reference.text} begins with neither 'metadata' nor 'resources'.")
    if len(reference.parts) == 1:
        raise PlaceholderError(f"{reference.text} names no key of metadata.")
    value: Any = metadata
    for key in reference.parts[1:]:
        if not isinstance(value, dict) or key not in value:
            raise PlaceholderError(f"{reference.text}: metadata has no {key!r} there.")
        value = value[key]
    return value if isinstance(value, str) else canonical(value).decode()
