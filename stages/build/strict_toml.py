"""Reading TOML that strangers wrote: no key of thousands of parts, no number beyond 64 bits, no endless nesting.

tomllib looks at each part of a dotted key once for every part before it, so one long key takes hours. How many parts
there are is therefore counted before it reads, in one pass over the text that knows strings and comments.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from sekisho.errors import Refusal

MAX_PARTS = 16
"""Parts of one dotted key or header; people write six."""
MAX_DEPTH = 64
MAX_INTEGER = 2**63
"""TOML 1.0: integers are of 64 bits."""

# What is not closed goes on to the end, where tomllib will say so: no letter is looked at more than a few times.
_BASIC = r'"(?:[^"\\\n]|\\.)*+"?+'
_LITERAL = r"'[^'\n]*+'?+"
_PART = rf"(?:[A-Za-z0-9_-]++|{_BASIC}|{_LITERAL})"
_DOT = r"[ \t]*+\.[ \t]*+"
_SHORT = re.compile(
    r"(?:"
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*+(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r"|#[^\n]*+"
    rf"|{_PART}(?:{_DOT}{_PART}){{0,{MAX_PARTS - 1}}}+(?!{_DOT}{_PART})"
    r"|[^A-Za-z0-9_\"'#-]++"
    r")*+"
)
"""All of a text up to a dotted key that is too long. Nothing of a value looks like one: a number has one dot."""
_SUSPECT = re.compile(rf"\.[ \t]*+{_PART}(?:{_DOT}{_PART}){{{MAX_PARTS - 1}}}")
"""What such a key has in it, and other text may have too: where it is not, which is nearly always, all is short."""
_LINE = re.compile(r"\(at line ([0-9]{1,9}), column [0-9]{1,9}\)")


def read_toml(text: str, *, file: str, remedy: str) -> dict[str, Any]:
    """Return the tables of a text.

    Args:
        text: the text.
        file: its name, for messages; the line is added where it is known.
        remedy: what to do about a file that cannot be read.

    Raises:
        Refusal: not TOML, a dotted key with too many parts, a number beyond 64 bits, or nested too deeply.
    """
    end = _end_of_short(text)
    if end < len(text):
        line = text.count("\n", 0, end) + 1
        raise Refusal(f"A key has more than {MAX_PARTS} parts.", where=f"{file}:{line}", remedy=remedy)
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        what = f"{file} cannot be read, it is not TOML: it is nested too deeply."
        raise Refusal(what, where=file, remedy=remedy) from error
    except ValueError as error:  # also a number with thousands of digits
        found = _LINE.search(str(error))
        where = f"{file}:{found[1]}" if found else file
        what = f"{file} cannot be read, it is not TOML: {str(error)[:200]}"
        raise Refusal(what, where=where, remedy=remedy) from error
    _check_values(value, file, remedy)
    return value


def _end_of_short(text: str) -> int:
    """Return where the first dotted key begins that is too long, else the text's length."""
    found = _SHORT.match(text) if _SUSPECT.search(text) else None
    return found.end() if found else len(text)


def _check_values(value: dict[str, Any], file: str, remedy: str) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            for one in item.values() if isinstance(item, dict) else item:
                if isinstance(one, (dict, list)):
                    inner.append(one)
                elif isinstance(one, int) and not -MAX_INTEGER <= one < MAX_INTEGER:
                    raise Refusal(f"{file} has a number beyond 64 bits.", where=file, remedy=remedy)
        level = inner
        if not level:
            return
    raise Refusal(f"{file} is nested deeper than {MAX_DEPTH} levels.", where=file, remedy=remedy)
