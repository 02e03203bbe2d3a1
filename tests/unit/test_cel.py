"""CEL: what compiles, what fails, and what must not mean two things."""

from typing import Any

import pytest

from sekisho.cel import Environment, EvaluationError
from sekisho.errors import PermanentError

ENVIRONMENT = Environment.of("object", "params")


def value(text: str, **data: Any) -> Any:
    expression = ENVIRONMENT.compile(text, where="test")
    return ENVIRONMENT.evaluate(expression, ENVIRONMENT.values({"params": None, **data}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("object.a == 1", True),
        ("object.?b.orValue(7) == 7", True),
        ("has(object.b)", False),
        ("object.list.map(x, x * 2)", [2, 4]),
        ("object.list.all(x, x > 0) && params == null", True),
        ("'a,b'.split(',').join(';')", "a;b"),
        # An error on one side does not matter where the other side decides: as in the API server.
        ("object.none.none || true", True),
        ("'x'.matches('^[a-y]$')", True),
    ],
)
def test_values(text: str, expected: Any) -> None:
    assert value(text, object={"a": 1, "list": [1, 2]}) == expected


@pytest.mark.parametrize(
    "text", ["object.b == 1", "object.list.all(x, x.y == 1)", "1 / 0 == 1", "object.a.startsWith('x')"]
)
def test_errors_are_not_values(text: str) -> None:
    with pytest.raises(EvaluationError):
        value(text, object={"a": 1, "list": [1, 2]})


@pytest.mark.parametrize(
    "text",
    [
        "object.",
        "unknown == 1",
        "'a' + 1 == 'a1'",
        # The API server has these, this library does not.
        "quantity('1Gi').isGreaterThan(quantity('1Mi'))",
        "['a'].isSorted()",
        "sets.contains([1], [1])",
        "authorizer.group('').resource('pods').check('get').allowed()",
        # This library has these, the API server does not.
        "cel.bind(x, 1, x == 1)",
        "math.greatest(1, 2) == 2",
        "'ab'.reverse() == 'ba'",
    ],
)
def test_only_what_both_sides_know_compiles(text: str) -> None:
    with pytest.raises(PermanentError, match="does not compile"):
        ENVIRONMENT.compile(text, where="test")


def test_a_type_is_held_to() -> None:
    ENVIRONMENT.compile("object.a == 1", where="test", wanted="BOOL")
    for text in ("object.a", "1", "'x'"):
        with pytest.raises(PermanentError, match="not BOOL"):
            ENVIRONMENT.compile(text, where="test", wanted="BOOL")


def test_variables_have_types() -> None:
    base = ENVIRONMENT.compile("object.list.map(x, string(x))", where="test")
    extended = ENVIRONMENT.extended("variables.names", base.compiled.return_type())
    with pytest.raises(PermanentError):
        extended.compile("variables.names.map(x, x + 1)", where="test")
    expression = extended.compile("size(variables.names) == 2", where="test", wanted="BOOL")
    assert extended.evaluate(expression, extended.values({"variables.names": ["1", "2"]})) is True
