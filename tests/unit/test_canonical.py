"""Canonical JSON: the quick way writes what the library for RFC 8785 writes, or leaves it to it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from sekisho.canonical import canonical

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(values)
def test_any_value_is_written_as_the_library_writes_it(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


class _Word(StrEnum):
    YES = "yes"


@pytest.mark.parametrize(
    "value",
    [
        "".join(map(chr, range(0x20))) + '"\\/\x7f\u2028\u2029\ue000\U0001f600',
        {"\U0001f600": 1, "\ufb33": 2, "\u20ac": 3, "a": 4},  # UTF-16 order is not that of code points
        {"1": 1, "10": 2, "2": 3, "": 4},
        [1.0, -0.0, 1e21, 1e-7, 333333333.33333329],
        _Word.YES,
        {_Word.YES: _Word.YES},
        2**53 - 1,
        True,
        [],
        {},
        (),
    ],
)
def test_corners(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), float("nan"), float("inf"), {1: 2}, {None: 1}, {"a": {1}}, b"bytes", object(), "\ud800"]
)
def test_what_has_no_canonical_form_is_refused_as_the_library_refuses_it(value: Any) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - the library has several, and raises Python's own
        rfc8785.dumps(value)
    with pytest.raises(type(theirs.value)):
        canonical(value)
