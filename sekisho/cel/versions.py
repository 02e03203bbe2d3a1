"""Versions: `semver('1.2.3-rc.1')`, and `semver('v1.2', true)` for what is nearly one.

Source: k8s.io/apiserver pkg/cel/library/semverlib.go, which stands on github.com/blang/semver/v4.
"""

# ruff: noqa: PLR2004 -- parts of a version

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sekisho.cel.declared import BOOL, INT, STRING, Library, Overload
from sekisho.cel.opaque import EvaluationError, Kind, string, text_of, wrapped

_SEMVER = Kind.SEMVER.value
_NUMBER = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_DIGITS = re.compile(r"[0-9]*", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9-]+", re.ASCII)
_MAX = 2**64 - 1


@dataclass(frozen=True)
class Version:
    """A version without its build data, which count for nothing."""

    numbers: tuple[int, int, int]
    pre: tuple[int | str, ...]

    def compare(self, other: Version) -> int:
        """Return -1, 0 or 1."""
        mine, theirs = (self.numbers, not self.pre), (other.numbers, not other.pre)
        if mine != theirs:
            return 1 if mine > theirs else -1
        for one, two in zip(self.pre, other.pre, strict=False):
            if one != two:
                # A number comes before a word.
                first, second = (isinstance(one, str), one), (isinstance(two, str), two)
                return 1 if first > second else -1
        return (len(self.pre) > len(other.pre)) - (len(self.pre) < len(other.pre))


def _number(text: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > _MAX:
        raise EvaluationError(f'not a number of a version: "{text}"')
    return int(text)


def _pre(text: str) -> int | str:
    if text and _DIGITS.fullmatch(text):
        return _number(text)
    if _WORD.fullmatch(text) is None:
        raise EvaluationError(f'Invalid character(s) found in prerelease "{text}"')
    return text


@lru_cache(maxsize=1024)
def parsed(text: str) -> Version:
    """Read a version.

    Raises:
        EvaluationError: it is none.
    """
    parts = text.split(".", 2)
    if len(parts) != 3 or len(text) > 4096:
        raise EvaluationError("No Major.Minor.Patch elements found")
    rest, plus, build = parts[2].partition("+")
    patch, minus, pre = rest.partition("-")
    numbers = (_number(parts[0]), _number(parts[1]), _number(patch))
    found = tuple(_pre(word) for word in pre.split(".")) if minus else ()
    if plus and not all(_WORD.fullmatch(word) for word in build.split(".")):
        raise EvaluationError("Invalid build meta data")
    return Version(numbers, found)


def normalised(text: str) -> str:
    """Return text without a `v` before it or zeros before its numbers, and with all three of them.

    Raises:
        EvaluationError: a short version with a suffix.
    """
    parts = text.removeprefix("v").split(".", 2)
    for place, part in enumerate(parts):
        if len(part.encode()) > 1:
            stripped = part.lstrip("0")
            parts[place] = stripped if stripped[:1] in set("0123456789") else "0" + stripped
    if len(parts) < 3:
        if re.search(r"[+-]", parts[-1]):
            raise EvaluationError("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)


def _text(value: Any, normalise: Any) -> str:
    text = string(value)
    if not isinstance(normalise, bool):
        raise EvaluationError("no such overload")
    return normalised(text) if normalise else text


def _read(value: Any, normalise: Any = False) -> bytearray:  # noqa: FBT002 - as in CEL
    text = _text(value, normalise)
    parsed(text)
    return wrapped(Kind.SEMVER, text)


def _is(value: Any, normalise: Any = False) -> bool:  # noqa: FBT002 - as in CEL
    string(value)
    try:
        parsed(_text(value, normalise))
    except EvaluationError:
        return False
    return True


def _get(value: Any) -> Version:
    return parsed(text_of(value, Kind.SEMVER))


def _part(place: int) -> Any:
    def part(value: Any) -> int:
        number = _get(value).numbers[place]
        return number if number < 2**63 else number - 2**64  # as Go turns one into a signed number

    return part


def equal(one: Any, other: Any) -> bool:
    """Tell whether neither version comes before the other."""
    return _get(one).compare(_get(other)) == 0


LIBRARY = Library(
    "versions",
    {
        "semver": (
            Overload("string_to_semver", (STRING,), _SEMVER),
            Overload("string_bool_to_semver", (STRING, BOOL), _SEMVER),
        ),
        "isSemver": (
            Overload("is_semver_string", (STRING,), BOOL),
            Overload("is_semver_string_bool", (STRING, BOOL), BOOL),
        ),
        "isGreaterThan": (Overload("semver_is_greater_than", (_SEMVER, _SEMVER), BOOL, member=True),),
        "isLessThan": (Overload("semver_is_less_than", (_SEMVER, _SEMVER), BOOL, member=True),),
        "compareTo": (Overload("semver_compare_to", (_SEMVER, _SEMVER), INT, member=True),),
        "major": (Overload("semver_major", (_SEMVER,), INT, member=True),),
        "minor": (Overload("semver_minor", (_SEMVER,), INT, member=True),),
        "patch": (Overload("semver_patch", (_SEMVER,), INT, member=True),),
    },
    {
        "string_to_semver": _read,
        "string_bool_to_semver": _read,
        "is_semver_string": _is,
        "is_semver_string_bool": _is,
        "semver_is_greater_than": lambda one, other: _get(one).compare(_get(other)) == 1,
        "semver_is_less_than": lambda one, other: _get(one).compare(_get(other)) == -1,
        "semver_compare_to": lambda one, other: _get(one).compare(_get(other)),
        "semver_major": _part(0),
        "semver_minor": _part(1),
        "semver_patch": _part(2),
    },
)
