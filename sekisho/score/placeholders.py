r"""Score's placeholders: `${metadata.name}`, `${resources.db.host}`, and how a dollar is written.

After the Score specification's reference implementation: `$$` is one dollar and `$${x}` is the text `${x}`; a single
dollar before anything but `{` stays as it is; `\.` is a dot inside one part of a reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sekisho.canonical import canonical

_TOKEN = re.compile(r"\$(?:(\$?)\{([^}]*)\}|\$)")
_DOLLARS = re.compile(r"\$()\$")
MAX_VALUE = 4_096
"""Characters of what one reference into metadata stands for: a text can name it tens of thousands of times."""


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
    for match in _tokens(text):
        literal.append(text[position : match.start()])
        position = match.end()
        if not match[0].endswith("}") or match[1]:
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


def _tokens(text: str) -> Iterator[re.Match[str]]:
    """Yield the placeholders; behind the last brace none can end, and none is looked for, which would take for ever."""
    end = text.rfind("}") + 1
    yield from _TOKEN.finditer(text, 0, end)
    yield from _DOLLARS.finditer(text, end)


def resolve(text: str, metadata: dict[str, Any]) -> tuple[Part, ...]:
    """Return the parts of `text` with references into metadata replaced; those into resources stay.

    Raises:
        PlaceholderError: a reference has an unknown root, or metadata has no such value.
    """
    found: list[Part] = []
    literal: list[str] = []
    for part in scan(text):
        value = part if isinstance(part, str) else _resolved(part, metadata)
        if isinstance(value, str):
            literal.append(value)
            continue
        found += [joined] if (joined := "".join(literal)) else []
        found.append(value)
        literal = []
    found += [joined] if (joined := "".join(literal)) else []
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
    said = value if isinstance(value, str) else canonical(value).decode()
    if len(said) > MAX_VALUE:
        raise PlaceholderError(f"{reference.text} stands for more than {MAX_VALUE} characters.")
    return said
