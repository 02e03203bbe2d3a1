"""CEL's libraries: every answer in data/cel.json is an API server's, and is what the evaluation here gives.

tests/e2e/test_policy_conformance.py asks a real API server for the same answers.
"""

import contextlib
import ipaddress
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.cel import Environment, EvaluationError, addresses, conversions, formats, quantities, urls, versions
from sekisho.errors import PermanentError

DATA = json.loads((Path(__file__).parent / "data" / "cel.json").read_text(encoding="utf-8"))
ENVIRONMENT = Environment.of("object")
VALUES = ENVIRONMENT.values({"object": DATA["object"]})


def outcome(text: str) -> list[Any]:
    try:
        expression = ENVIRONMENT.compile(text, where="test")
    except PermanentError:
        return ["not compiled"]
    try:
        value = ENVIRONMENT.evaluate(expression, VALUES)
    except EvaluationError:
        return ["error"]
    return ["value", type(value), value]


def wanted(answer: list[Any]) -> list[Any]:
    """Return what must come of an expression here; what only the API server compiles must not compile."""
    if answer[0] == "value":
        return ["value", type(answer[1]), answer[1]]
    return ["not compiled"] if answer[0] == "not here" else answer


@pytest.mark.parametrize("library", sorted(DATA["expressions"]))
def test_answers_are_those_of_an_api_server(library: str) -> None:
    rows = DATA["expressions"][library]
    assert {text: outcome(text) for text, *_ in rows} == {text: wanted(answer) for text, *answer in rows}


def test_no_expression_stands_twice() -> None:
    texts = [text for rows in DATA["expressions"].values() for text, *_ in rows]
    assert len(texts) == len(set(texts))


# -- properties -------------------------------------------------------------------------------------------------------

ODD = st.text(alphabet="0123456789abcdefgEGikmMnTPvxzZ.:/-+%@[]?#&;= \n\té日\U0001f600", max_size=20)
READERS = (
    quantities.parsed,
    addresses.address,
    urls.parsed,
    versions.parsed,
    versions.normalised,
    *formats.FORMATS.values(),
    *conversions.CONVERSIONS.values(),
)


@given(text=ODD)
def test_any_text_is_an_answer_or_an_error_of_evaluation(text: str) -> None:
    for reader in READERS:
        with contextlib.suppress(EvaluationError):
            reader(text)


NUMBERS = st.tuples(st.integers(-(10**6), 10**6), st.sampled_from(["m", "", "k", "M", "Ki", "Mi", "Gi"]))
UNITS = {"m": Fraction(1, 1000), "": 1, "k": 1000, "M": 10**6, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@given(one=NUMBERS, other=NUMBERS)
def test_quantities_are_numbers(one: tuple[int, str], other: tuple[int, str]) -> None:
    read = [quantities.parsed(f"{number}{unit}") for number, unit in (one, other)]
    first, second = (number * UNITS[unit] for number, unit in (one, other))
    assert read[0].compare(read[1]) == (first > second) - (first < second)
    total = read[0].plus(read[1])
    assert Fraction(total.unscaled) / Fraction(10) ** total.scale == first + second
    assert total.plus(read[1].negative()).compare(read[0]) == 0


@given(packed=st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)))
def test_addresses_are_read_as_they_are_written(packed: bytes) -> None:
    written = ipaddress.ip_address(packed)
    mapped = isinstance(written, ipaddress.IPv6Address) and written.ipv4_mapped is not None
    if mapped:
        with pytest.raises(EvaluationError, match="not allowed"):
            addresses.address(str(written))
    else:
        assert addresses.address(str(written)) == written
