"""Reading JSON that strangers wrote: one object, no name twice, no numbers that JSON has not."""

from __future__ import annotations

import json
from typing import Any

from sekisho.errors import Refusal


def read_object(text: str, *, where: str, remedy: str) -> dict[str, Any]:
    """Return the object that a text holds.

    Args:
        text: the text.
        where: the file's name, for messages.
        remedy: what to do about a file that is not JSON.

    Raises:
        Refusal: not JSON, not an object, a name twice, nested too deeply, or text that is not Unicode.
    """
    value = read_value(text, where=where, remedy=remedy)
    if not isinstance(value, dict):
        raise Refusal(f"{where} is not an object.", where=where, remedy=remedy)
    return value


def read_value(text: str, *, where: str, remedy: str) -> Any:
    """Return the value that a text holds, of whatever type.

    Raises:
        Refusal: not JSON, a name twice, nested too deeply, or text that is not Unicode.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError as error:
        raise Refusal(f"{where} is nested too deeply.", where=where, remedy=remedy) from error
    except ValueError as error:
        raise Refusal(f"{where} is not JSON as it should be: {str(error)[:200]}", where=where, remedy=remedy) from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{name[:100]!r} is there twice")
            seen.add(name)
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
