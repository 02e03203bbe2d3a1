"""Values of the API server's own types: a quantity, an address, a URL, a version, a format.

The evaluator knows no types but CEL's own. Such a value is carried as bytes that begin with a mark of this process: no
object of a cluster holds bytes, and no expression can write the mark. Which expressions may touch them is decided when
an expression is compiled (`sekisho.cel.exact`), so that nobody ever sees that they are bytes.
"""

from __future__ import annotations

import secrets
from enum import Enum
from typing import Any

_MARK = b"\0" + secrets.token_bytes(16)


class EvaluationError(ValueError):
    """An expression failed on a value, for example because a field is missing."""


class Kind(Enum):
    """The API server's types, by the name that they have there."""

    QUANTITY = "kubernetes.Quantity"
    IP = "net.IP"
    CIDR = "net.CIDR"
    URL = "kubernetes.URL"
    SEMVER = "kubernetes.Semver"
    FORMAT = "kubernetes.NamedFormat"


NAMES = frozenset(kind.value for kind in Kind)
_PREFIX = {kind: _MARK + bytes([number]) for number, kind in enumerate(Kind)}


def wrapped(kind: Kind, text: str) -> bytearray:
    """Return a value of a type, written as text; a bytearray, because the evaluator cuts `bytes` at a zero byte."""
    return bytearray(_PREFIX[kind] + text.encode())


def kind_of(value: Any) -> Kind | None:
    """Return the type of a value, None for one of CEL's own types."""
    if not isinstance(value, bytearray) or not value.startswith(_MARK):
        return None
    return tuple(Kind)[value[len(_MARK)]]


def text_of(value: Any, kind: Kind) -> str:
    """Return the text of a value that must be of this type.

    Raises:
        EvaluationError: it is of another type; the API server says the same.
    """
    if kind_of(value) is not kind:
        raise EvaluationError("no such overload")
    return bytes(value[len(_MARK) + 1 :]).decode()


def string(value: Any) -> str:
    """Return a value that must be a string.

    Raises:
        EvaluationError: it is of another type.
    """
    if not isinstance(value, str):
        raise EvaluationError("no such overload")
    return value
