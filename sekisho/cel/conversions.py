"""Conversions of text: what `int()`, `double()`, `bool()`, `duration()` and `timestamp()` read.

Go and C++ disagree at the edges (blanks around a number, `1e999`, `+1h`, a comma in a time). Each function here takes
what Go takes (strconv.ParseInt, ParseFloat, ParseBool; time.ParseDuration, time.Parse with RFC 3339) and writes it in
the one form that both read alike; the conversion itself is the evaluator's.
"""

# ruff: noqa: PLR2004 -- hours of a day

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from sekisho.cel.opaque import EvaluationError, string

_INT = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DIGITS = "[0-9]+(_[0-9]+)*"
_DOUBLE = re.compile(rf"[+-]?({_DIGITS}\.?({_DIGITS})?|\.{_DIGITS})([eE][+-]?{_DIGITS})?", re.ASCII)
_HEXADECIMAL = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+", re.ASCII)
_INFINITE = re.compile(r"([+-]?)(inf|infinity)|nan", re.ASCII | re.IGNORECASE)
_TRUE, _FALSE = {"1", "t", "T", "true", "TRUE", "True"}, {"0", "f", "F", "false", "FALSE", "False"}
_PART = re.compile(r"([0-9]*\.?[0-9]*)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)
_NANOSECONDS = {
    "ns": 1,
    "us": 1000,
    "\u00b5s": 1000,
    "\u03bcs": 1000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{1,2})(:[0-5][0-9]:[0-5][0-9])([.,][0-9]+)?(Z|[+-][0-2][0-9]:[0-5][0-9])",
    re.ASCII,
)
_MAX_LENGTH = 4096


def _no(kind: str) -> EvaluationError:
    return EvaluationError(f"type conversion error from 'string' to '{kind}'")


def _int(text: str) -> str:
    if _INT.fullmatch(text) is None:
        raise _no("int")
    return str(int(text))


def _double(text: str) -> str:
    if _INFINITE.fullmatch(text) is not None:
        return text.lower().lstrip("+").replace("infinity", "inf")
    if _HEXADECIMAL.fullmatch(text) is not None:
        return repr(float.fromhex(text))
    if _DOUBLE.fullmatch(text) is None or math.isinf(found := float(text)):
        raise _no("double")
    return repr(found)


def _bool(text: str) -> str:
    if text not in _TRUE | _FALSE:
        raise _no("bool")
    return "true" if text in _TRUE else "false"


def _duration(text: str) -> str:
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return "0s"
    total, place = 0, 0
    while place < len(rest):
        match = _PART.match(rest, place)
        if match is None or match[1] in {"", "."}:
            raise _no("google.protobuf.Duration")
        number = match[1].rstrip(".") or "0"
        total += int(Fraction(f"0{number}") * _NANOSECONDS[match[2]])
        place = match.end()
    if not rest or total > 2**63 - 1:
        raise _no("google.protobuf.Duration")
    return f"{'-' if text[0] == '-' else ''}{total}ns"


def _timestamp(text: str) -> str:
    match = _TIMESTAMP.fullmatch(text)
    if match is None or int(match[2]) > 23 or match[5][1:3] > "23":
        raise _no("google.protobuf.Timestamp")
    fraction = (match[4] or "")[1:10]
    return f"{match[1]}T{match[2]:0>2}{match[3]}" + (f".{fraction}" if fraction else "") + match[5]


def number(value: Any) -> int | float:
    """Return a number for a conversion to another; to the evaluator a bool is one as well."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EvaluationError("no such overload")
    return value


def _short(read: Callable[[str], str]) -> Callable[[Any], str]:
    def reads(value: Any) -> str:
        text = string(value)
        if len(text) > _MAX_LENGTH:
            raise EvaluationError("the text is too long to be converted")
        return read(text)

    return reads


CONVERSIONS: dict[str, Callable[[Any], str]] = {
    "int": _short(_int),
    "double": _short(_double),
    "bool": _short(_bool),
    "duration": _short(_duration),
    "timestamp": _short(_timestamp),
}
