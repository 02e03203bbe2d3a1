"""Lists: isSorted, sum, min, max, indexOf, lastIndexOf.

Source: k8s.io/apiserver pkg/cel/library/lists.go. What is odd here is odd there: two elements that cannot be compared
count as in order.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from typing import Any

from sekisho.cel.declared import BOOL, BYTES, DOUBLE, INT, STRING, A, Library, Overload, list_of
from sekisho.cel.opaque import EvaluationError

_COMPARABLE = (INT, DOUBLE, BOOL, STRING, BYTES)
_MAX, _MIN = 2**63 - 1, -(2**63)
_LARGEST = 100_000
"""Longest range; the API server's own limit on costs is below that."""


def _exact(value: Any) -> Any:
    """Return an element.

    Raises:
        EvaluationError: it is a time, of which only microseconds arrive here.
    """
    if isinstance(value, dt.datetime | dt.timedelta):
        raise EvaluationError("a list of times cannot be compared exactly here")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compared(one: Any, other: Any) -> int | None:
    """Return -1, 0 or 1, or None where two values have no order."""
    if _is_number(one) and _is_number(other):
        if one != one or other != other:  # noqa: PLR0124 - not a number
            return None
        return int(one > other) - int(one < other)
    if type(one) is type(other) and isinstance(one, bool | str | bytearray):
        first, second = (one.encode(), other.encode()) if isinstance(one, str) else (one, other)
        return int(first > second) - int(first < second)
    return None


def _elements(value: Any, *, comparable: bool = True) -> list[Any]:
    if not isinstance(value, list):
        raise EvaluationError("no such overload")
    elements = [_exact(element) for element in value]
    if comparable and any(element is None or isinstance(element, list | dict) for element in elements):
        raise EvaluationError("no such overload")
    return elements


def _is_sorted(value: Any) -> bool:
    elements = _elements(value)
    return all(_compared(one, other) != 1 for one, other in itertools.pairwise(elements))


def _first(name: str, unwanted: int) -> Callable[[Any], Any]:
    def first(value: Any) -> Any:
        elements = _elements(value)
        if not elements:
            raise EvaluationError(f"{name} called on empty list")
        found = elements[0]
        for element in elements[1:]:
            if _compared(found, element) == unwanted:
                found = element
        return found

    return first


def _sum_int(value: Any) -> int:
    total = 0
    for element in _elements(value):
        if isinstance(element, bool) or not isinstance(element, int):
            raise EvaluationError("no such overload")
        total += element
        if not _MIN <= total <= _MAX:
            raise EvaluationError("integer overflow")
    return total


def _sum_double(value: Any) -> float:
    total = 0.0
    for element in _elements(value):
        if not isinstance(element, float):
            raise EvaluationError("no such overload")
        total += element
    return total


def sum_any(value: Any) -> Any:
    """Return the sum of a list whose type is not known beforehand; its first element decides."""
    elements = _elements(value)
    return _sum_double(value) if elements and isinstance(elements[0], float) else _sum_int(value)


def _range(size: Any) -> list[int]:
    """Return the numbers below another; it stands in for the evaluator's own, which a negative one ends."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise EvaluationError("no such overload")
    if size > _LARGEST:
        raise EvaluationError("the range is too large")
    return list(range(size))


def equal(one: Any, other: Any) -> bool:
    """Tell whether two values are equal as CEL has it: numbers by value, and a bool is no number."""
    if _is_number(_exact(one)) and _is_number(_exact(other)):
        return bool(one == other)
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(one == other)


def _index(value: Any, item: Any) -> int:
    places = (place for place, element in enumerate(_elements(value, comparable=False)) if equal(element, item))
    return next(places, -1)


def _last_index(value: Any, item: Any) -> int:
    elements = _elements(value, comparable=False)
    return next((place for place in reversed(range(len(elements))) if equal(elements[place], item)), -1)


LIBRARY = Library(
    "lists",
    {
        "isSorted": tuple(
            Overload(f"list_{name}_is_sorted_bool", (list_of(name),), BOOL, member=True) for name in _COMPARABLE
        ),
        "min": tuple(Overload(f"list_{name}_min_{name}", (list_of(name),), name, member=True) for name in _COMPARABLE),
        "max": tuple(Overload(f"list_{name}_max_{name}", (list_of(name),), name, member=True) for name in _COMPARABLE),
        "sum": tuple(
            Overload(f"list_{name}_sum_{name}", (list_of(name),), name, member=True) for name in (INT, DOUBLE)
        ),
        "indexOf": (Overload("list_a_index_of_int", (list_of(A), A), INT, member=True),),
        "lastIndexOf": (Overload("list_a_last_index_of_int", (list_of(A), A), INT, member=True),),
    },
    {
        **{f"list_{name}_is_sorted_bool": _is_sorted for name in _COMPARABLE},
        **{f"list_{name}_min_{name}": _first("min", 1) for name in _COMPARABLE},
        **{f"list_{name}_max_{name}": _first("max", -1) for name in _COMPARABLE},
        "list_int_sum_int": _sum_int,
        "list_double_sum_double": _sum_double,
        "list_a_index_of_int": _index,
        "list_a_last_index_of_int": _last_index,
        "list_range": _range,
    },
)
