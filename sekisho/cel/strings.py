"""Functions for text, and conversions to text, as far as both sides agree on them.

Source: github.com/google/cel-go ext/strings.go, version 2, which is what the API server links; evaluated by the
library's own implementation. They are declared here, because Kubernetes gives lists an `indexOf` as well, and addresses
a `string()`, and a function can be declared only once.
"""

# ruff: noqa: PLR2004 -- bounds of the format

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from sekisho.cel.declared import BOOL, BYTES, DOUBLE, INT, STRING, Library, Overload, list_of
from sekisho.cel.opaque import EvaluationError, Kind, string


def text_of_double(value: Any) -> str:
    """Return a number as Go's strconv prints it, format `g`, as short as it can be read back."""
    if not isinstance(value, float) or not math.isfinite(value):
        return {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
    sign = "-" if math.copysign(1, value) < 0 else ""
    number = Decimal(repr(abs(value))).normalize()
    digits = "".join(map(str, number.as_tuple().digits))
    exponent = number.adjusted() if value else 0
    if -4 <= exponent < 6:
        return sign + format(number, "f")
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{exponent:+03d}"


def _offset(text: Any, wanted: Any, offset: Any) -> tuple[str, str, int]:
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise EvaluationError("no such overload")
    found, part = string(text), string(wanted)
    return found, part, offset


def _index_from(text: Any, wanted: Any, offset: Any) -> int:
    found, part, place = _offset(text, wanted, offset)
    if part and place < 0:
        raise EvaluationError(f"index out of range: {place}")
    return place if not part else found.find(part, place)


def _last_index_from(text: Any, wanted: Any, offset: Any) -> int:
    found, part, place = _offset(text, wanted, offset)
    if not part:
        return place
    if place < 0:
        raise EvaluationError(f"index out of range: {place}")
    return -1 if place >= len(found) else found.rfind(part, 0, place + len(part))


def _split(text: Any, separator: Any, limit: Any = -1) -> list[str]:
    found, part, most = _offset(text, separator, max(limit, -1) if isinstance(limit, int) else limit)
    if most == 0:
        return []
    if part:
        return found.split(part, most - 1 if most > 0 else -1)
    pieces = list(found)
    return pieces if most < 0 or len(pieces) <= most else [*pieces[: most - 1], "".join(pieces[most - 1 :])]


def _member(id_: str, result: str, *parameters: str) -> Overload:
    return Overload(id_, (STRING, *parameters), result, member=True)


LIBRARY = Library(
    "strings",
    {
        "charAt": (_member("string_char_at_int", STRING, INT),),
        "indexOf": (
            _member("string_index_of_string", INT, STRING),
            _member("string_index_of_string_int", INT, STRING, INT),
        ),
        "lastIndexOf": (
            _member("string_last_index_of_string", INT, STRING),
            _member("string_last_index_of_string_int", INT, STRING, INT),
        ),
        "lowerAscii": (_member("string_lower_ascii", STRING),),
        "upperAscii": (_member("string_upper_ascii", STRING),),
        "replace": (
            _member("string_replace_string_string", STRING, STRING, STRING),
            _member("string_replace_string_string_int", STRING, STRING, STRING, INT),
        ),
        "split": (
            _member("string_split_string", list_of(STRING), STRING),
            _member("string_split_string_int", list_of(STRING), STRING, INT),
        ),
        "substring": (
            _member("string_substring_int", STRING, INT),
            _member("string_substring_int_int", STRING, INT, INT),
        ),
        "trim": (_member("string_trim", STRING),),
        "join": (
            Overload("list_join", (list_of(STRING),), STRING, member=True),
            Overload("list_join_string", (list_of(STRING), STRING), STRING, member=True),
        ),
        "format": (_member("string_format", STRING, list_of("dyn")),),
        "strings.quote": (Overload("strings_quote", (STRING,), STRING),),
        "string": (
            Overload("string_to_string", (STRING,), STRING),
            Overload("bool_to_string", (BOOL,), STRING),
            Overload("bytes_to_string", (BYTES,), STRING),
            Overload("int64_to_string", (INT,), STRING),
            Overload("double_to_string", (DOUBLE,), STRING),
            Overload("ip_to_string", (Kind.IP.value,), STRING),
            Overload("cidr_to_string", (Kind.CIDR.value,), STRING),
        ),
    },
    {
        "double_to_string": text_of_double,
        "string_split_string": _split,
        "string_split_string_int": _split,
        "string_index_of_string_int": _index_from,
        "string_last_index_of_string_int": _last_index_from,
    },
)
