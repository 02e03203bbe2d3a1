"""Quantities: `quantity('1.5Gi')` and what can be asked of one.

Source: k8s.io/apiserver pkg/cel/library/quantity.go, k8s.io/apimachinery pkg/api/resource (quantity.go, amount.go,
math.go). A quantity is a whole number and a power of ten, held either in 64 bits or, where that does not do, as a
decimal of any size. Which of the two it is can be seen: only the first can become an integer.
"""

# ruff: noqa: PLR2004 -- bases and bounds of the format

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sekisho.cel.declared import BOOL, DOUBLE, INT, STRING, Library, Overload
from sekisho.cel.opaque import EvaluationError, Kind, string, text_of, wrapped

_Q = Kind.QUANTITY.value
_FORM = re.compile(
    r"[+-]?0*(?P<num>[0-9]*)(\.(?P<denom>[0-9]*))?(?P<suffix>[eEinumkKMGTP]*[-+]?[0-9]*)",
    re.ASCII,
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_NANO = 9
_MAX = 2**63 - 1
_MIN = -(2**63)
_DIGITS = 18
"""Decimal digits that surely fit in 64 bits."""
_LARGEST = 10_000
"""Largest exponent that is computed with; nothing that is counted comes near, and a larger one takes all memory."""


class _TooLarge(EvaluationError):
    """It is a quantity, but not one to compute with."""


@dataclass(frozen=True)
class Quantity:
    """`unscaled` * 10 ** -`scale`; `wide` where it is not held in 64 bits."""

    unscaled: int
    scale: int
    wide: bool

    def at(self, scale: int) -> int:
        """Return the number at a scale that is at least its own."""
        return int(self.unscaled * 10 ** (scale - self.scale))

    def compare(self, other: Quantity) -> int:
        """Return -1, 0 or 1."""
        scale = max(self.scale, other.scale)
        if scale - min(self.scale, other.scale) > _LARGEST:
            raise _TooLarge("the quantities are too far apart to be compared")
        mine, theirs = self.at(scale), other.at(scale)
        return (mine > theirs) - (mine < theirs)

    def plus(self, other: Quantity) -> Quantity:
        """Return the sum, held in 64 bits where both are and all steps fit."""
        if not self.wide and not other.wide and (narrow := self._narrow_sum(other)) is not None:
            return narrow
        scale = max(self.scale, other.scale)
        if scale - min(self.scale, other.scale) > _LARGEST:
            raise _TooLarge("the quantities are too far apart to be added")
        return Quantity(self.at(scale) + other.at(scale), scale, wide=True)

    def _narrow_sum(self, other: Quantity) -> Quantity | None:
        if other.unscaled == 0:
            return self
        if self.unscaled == 0:
            return other
        scale = max(self.scale, other.scale)
        if scale - min(self.scale, other.scale) > _DIGITS + 1:
            return None
        mine, theirs = self.at(scale), other.at(scale)
        total = mine + theirs
        scaled = theirs if self.scale == scale else mine
        fits = self.scale == other.scale or _MIN < scaled <= _MAX
        return Quantity(total, scale, wide=False) if fits and _MIN <= total <= _MAX else None

    def negative(self) -> Quantity:
        """Return the number with the other sign."""
        unscaled = -self.unscaled
        if not self.wide and unscaled > _MAX:
            unscaled = _MIN  # as in 64 bits
        return Quantity(unscaled, self.scale, self.wide)

    def as_integer(self) -> int | None:
        """Return the number if it is held in 64 bits and written without a fraction."""
        if self.wide or self.scale > 0:
            return None
        if self.unscaled == 0:
            return 0
        if -self.scale > _DIGITS + 1:
            return None
        number = self.at(0)
        return number if _MIN <= number <= _MAX and (self.scale == 0 or number > _MIN) else None


def _interpreted(suffix: str) -> tuple[int, int]:
    """Return base and exponent of a suffix."""
    if suffix in _DECIMAL:
        return 10, _DECIMAL[suffix]
    if suffix in _BINARY:
        return 2, _BINARY[suffix]
    if re.fullmatch(r"[eE][-+]?[0-9]+", suffix, re.ASCII) and _MIN <= (exponent := int(suffix[1:])) <= _MAX:
        return 10, _int32(exponent)
    raise EvaluationError("unable to parse quantity's suffix")


def _int32(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


@lru_cache(maxsize=4096)
def parsed(text: str) -> Quantity:
    """Read a quantity.

    Raises:
        EvaluationError: it is none; with the API server's words.
    """
    if len(text) > _LARGEST:
        raise _TooLarge("the quantity is too long")
    match = _FORM.fullmatch(text)
    if not text or match is None:
        raise EvaluationError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    negative = text[0] == "-"
    if not text.lstrip("+-").strip("0") and re.fullmatch(r"[+-]?0*", text, re.ASCII):
        return Quantity(0, 0, wide=False)
    num, denom = match["num"] or "0", match["denom"] or ""
    base, exponent = _interpreted(match["suffix"])
    narrow = _narrow(num, denom, base, exponent)
    if narrow is not None:
        return narrow.negative() if negative else narrow
    return _wide(text[: match.start("suffix")], base, exponent)


def _narrow(num: str, denom: str, base: int, exponent: int) -> Quantity | None:
    """Return the number if it surely fits in 64 bits."""
    if base == 10:
        scale, precision, mantissa = _int32(-exponent), _DIGITS - len(num) - len(denom), 1
    else:
        scale, mantissa = 0, 2**exponent
        precision = -1 if denom else 15 - len(num) - exponent * 3 // 10 - 1
    scale = _int32(scale + len(denom))
    if precision < 0 or scale > _NANO:
        return None
    value = int(num + denom) * mantissa
    return Quantity(value, scale, wide=False) if value <= _MAX else None


def _wide(number: str, base: int, exponent: int) -> Quantity:
    """Return the number as a decimal, rounded up to nine places."""
    if not any(character.isdigit() for character in number):
        raise EvaluationError("unable to parse numeric part of quantity")
    whole, _, fraction = number.lstrip("+-").partition(".")
    unscaled, scale = int(whole + fraction), len(fraction)
    if base == 10:
        scale = _int32(scale - exponent)
    else:
        unscaled *= 2**exponent
    if unscaled:
        if abs(scale) > _LARGEST:
            raise _TooLarge("the quantity is too large")
        if scale > _NANO:
            unscaled = -(-unscaled // 10 ** (scale - _NANO))
        else:
            unscaled *= 10 ** (_NANO - scale)
        scale = _NANO
    if base == 2 and scale >= 0 and unscaled > _MAX * 10**scale:
        unscaled, scale = _MAX, 0
    return Quantity(-unscaled if number.startswith("-") else unscaled, scale, wide=True)


def _pow10(exponent: int) -> float:
    """Return a power of ten as Go's math.Pow10 does, which multiplies two rounded ones."""
    if 0 <= exponent <= 308:
        return float(f"1e{exponent // 32 * 32}") * float(f"1e{exponent % 32}")
    if -323 <= exponent <= 0:
        return float(f"1e-{-exponent // 32 * 32}") / float(f"1e{-exponent % 32}")
    return float("inf") if exponent > 0 else 0.0


def _float(quantity: Quantity) -> float:
    try:
        base = float(quantity.unscaled)
    except OverflowError:
        base = float("inf") if quantity.unscaled > 0 else float("-inf")
    return base if quantity.scale == 0 else base * _pow10(-quantity.scale)


# -- functions ---------------------------------------------------------------------------------------------------------


def _get(value: Any) -> Quantity:
    unscaled, scale, wide = text_of(value, Kind.QUANTITY).split(" ")
    return Quantity(int(unscaled), int(scale), wide == "w")


def _give(quantity: Quantity) -> bytearray:
    return wrapped(Kind.QUANTITY, f"{quantity.unscaled} {quantity.scale} {'w' if quantity.wide else 'n'}")


def _is_quantity(value: Any) -> bool:
    text = string(value)
    try:
        parsed(text)
    except _TooLarge:
        raise
    except EvaluationError:
        return False
    return True


def _integer(value: Any) -> int:
    number = _get(value).as_integer()
    if number is None:
        raise EvaluationError("cannot convert value to integer")
    return number


def _second(value: Any) -> Quantity:
    return Quantity(value, 0, wide=False) if isinstance(value, int) and not isinstance(value, bool) else _get(value)


def equal(one: Any, other: Any) -> bool:
    """Tell whether two quantities are the same number."""
    return _get(one).compare(_get(other)) == 0


LIBRARY = Library(
    "quantities",
    {
        "quantity": (Overload("string_to_quantity", (STRING,), _Q),),
        "isQuantity": (Overload("is_quantity_string", (STRING,), BOOL),),
        "sign": (Overload("quantity_sign", (_Q,), INT),),
        "isGreaterThan": (Overload("quantity_is_greater_than", (_Q, _Q), BOOL, member=True),),
        "isLessThan": (Overload("quantity_is_less_than", (_Q, _Q), BOOL, member=True),),
        "compareTo": (Overload("quantity_compare_to", (_Q, _Q), INT, member=True),),
        "asApproximateFloat": (Overload("quantity_get_float", (_Q,), DOUBLE, member=True),),
        "asInteger": (Overload("quantity_get_int", (_Q,), INT, member=True),),
        "isInteger": (Overload("quantity_is_integer", (_Q,), BOOL, member=True),),
        "add": (
            Overload("quantity_add", (_Q, _Q), _Q, member=True),
            Overload("quantity_add_int", (_Q, INT), _Q, member=True),
        ),
        "sub": (
            Overload("quantity_sub", (_Q, _Q), _Q, member=True),
            Overload("quantity_sub_int", (_Q, INT), _Q, member=True),
        ),
    },
    {
        "string_to_quantity": lambda text: _give(parsed(string(text))),
        "is_quantity_string": _is_quantity,
        "quantity_sign": lambda one: (_get(one).unscaled > 0) - (_get(one).unscaled < 0),
        "quantity_is_greater_than": lambda one, other: _get(one).compare(_get(other)) == 1,
        "quantity_is_less_than": lambda one, other: _get(one).compare(_get(other)) == -1,
        "quantity_compare_to": lambda one, other: _get(one).compare(_get(other)),
        "quantity_get_float": lambda one: _float(_get(one)),
        "quantity_get_int": _integer,
        "quantity_is_integer": lambda one: _get(one).as_integer() is not None,
        "quantity_add": lambda one, other: _give(_get(one).plus(_second(other))),
        "quantity_sub": lambda one, other: _give(_get(one).plus(_second(other).negative())),
    },
)
