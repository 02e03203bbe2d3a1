"""CEL: what compiles, what fails, and what must not mean two things."""

import subprocess
import sys
from typing import Any

import pytest

from sekisho.cel import Environment, EvaluationError, all_of
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
        # The API server has these; here they would mean something else, or could not be done exactly.
        "authorizer.group('').resource('pods').check('get').allowed()",
        "dyn(quantity('1Gi')).isGreaterThan(quantity('1Mi'))",
        "object.a == quantity('1')",
        "quantity('1') in [quantity('1')]",
        "quantity('2') == quantity('1').add(1)",
        "[quantity('1')].all(q, q.isInteger())",
        "string(duration('1s'))",
        "{'a': 1}.transformMap(k, v, v)",
        "1u == 1u",
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
    extended = ENVIRONMENT.extended("variables.names", base.type)
    with pytest.raises(PermanentError):
        extended.compile("variables.names.map(x, x + 1)", where="test")
    expression = extended.compile("size(variables.names) == 2", where="test", wanted="BOOL")
    assert extended.evaluate(expression, extended.values({"variables.names": ["1", "2"]})) is True


# -- variables --------------------------------------------------------------------------------------------------------


def defined(**definitions: str) -> Environment:
    environment = Environment.of("object")
    for name, text in definitions.items():
        environment = environment.defined(f"variables.{name}", environment.compile(text, where="test"))
    return environment


def of(environment: Environment, text: str, data: Any) -> Any:
    return environment.evaluate(environment.compile(text, where="test"), environment.values({"object": data}))


def test_a_variable_stands_for_its_expression() -> None:
    environment = defined(list="object.list", double="variables.list.map(x, x * 2)")
    assert of(environment, "variables.double.exists(x, x == 4)", {"list": [1, 2]}) is True
    # A name of the same kind within a comprehension is another one.
    assert of(environment, "[{'double': 7}].map(variables, variables.double)", {"list": []}) == [7]


def test_the_same_text_means_in_each_environment_what_is_said_there() -> None:
    for _ in range(2):
        assert of(defined(v="object.x"), "[variables.v]", {"x": 1}) == [1]
        assert of(defined(v="object.x + 1"), "[variables.v]", {"x": 1}) == [2]
        assert of(defined(v="'a'"), "[variables.v]", {}) == ["a"]
        with pytest.raises(PermanentError):
            of(defined(w="object.x"), "[variables.v]", {"x": 1})


def test_an_error_in_a_variable_counts_where_it_is_looked_at() -> None:
    environment = defined(broken="object.none.none", ratio="1 / object.zero")
    assert of(environment, "object.zero == 0 || variables.broken == 1", {"zero": 0}) is True
    for text in ("variables.broken == 1", "variables.ratio > 0"):
        with pytest.raises(EvaluationError):
            of(environment, text, {"zero": 0})


def test_variables_carry_kubernetes_types() -> None:
    environment = defined(limit="quantity(object.limit)", where="ip(object.ip)")
    data = {"limit": "1Gi", "ip": "10.0.0.1"}
    assert of(environment, "variables.limit.isLessThan(quantity('2Gi')) && variables.where.family() == 4", data) is True
    with pytest.raises(PermanentError, match="may be shared"):
        environment.compile("variables.limit.add(1).isInteger()", where="test")


def test_all_of_asks_for_everything() -> None:
    one, other = defined(a="object.a"), defined(a="object.b")
    checks = [one.compile("variables.a == 1", where="test"), other.compile("variables.a == 2", where="test")]
    unless = [ENVIRONMENT.compile("object.asked", where="test", wanted="") for _ in range(2)]
    whole, guarded = all_of(checks), all_of(checks, unless=unless)
    for data, holds in (({"a": 1, "b": 2}, True), ({"a": 1, "b": 1}, False), ({"a": 2, "b": 2}, False)):
        assert one.evaluate(whole, one.values({"object": data})) is holds
        assert one.evaluate(guarded, one.values({"object": data | {"asked": True}})) is holds
        assert one.evaluate(guarded, one.values({"object": data | {"asked": False}})) is True
    with pytest.raises(EvaluationError):
        one.evaluate(whole, one.values({"object": {"a": 1}}))


# -- hostile values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        # The evaluator reads text up to a zero byte: the rest would be judged by nobody.
        ("good\0evil", "zero byte"),
        ({"good\0evil": 1}, "zero byte"),
        ([["\0"]], "zero byte"),
        ("\ud800", "not Unicode"),
        ({"a": object()}, "no JSON"),
        (b"bytes", "no JSON"),
    ],
)
def test_what_would_not_arrive_whole_is_refused(bad: Any, why: str) -> None:
    with pytest.raises(EvaluationError, match=why):
        ENVIRONMENT.values({"object": {"deep": bad}})


def test_deep_nesting_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(EvaluationError, match="nested too deeply"):
        ENVIRONMENT.values({"object": deep})


def test_numbers_that_do_not_fit_are_errors() -> None:
    with pytest.raises(EvaluationError):
        value("object.n > 1", object={"n": 2**70})


def test_nulls_do_not_wear_out() -> None:
    """Each null that is handed to Python costs a reference to None; a million of them would end the process."""
    program = (
        "from sekisho.cel import Environment\n"
        "e = Environment.of('object')\n"
        "x = e.compile('object.list.indexOf(1) == -1 && object.list == object.list', where='t')\n"
        "v = e.values({'object': {'list': [None] * 1000}})\n"
        "n = e.compile('object.list', where='t')\n"
        "for _ in range(100): assert e.evaluate(x, v) is True and len(e.evaluate(n, v)) == 1000\n"
        "print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "alive\n")


@pytest.mark.parametrize("text", ["quantity('{}')", "semver('{}')", "url('{}')", "ip('{}')", "int('{}')"])
def test_long_text_costs_little(text: str) -> None:
    """Whatever is made of it: an answer or an error, not minutes."""
    function, _, _ = text.partition("(")
    for filler in ("9" * 200_000, "a." * 100_000, "1e" + "9" * 12, "%41" * 60_000):
        expression = ENVIRONMENT.compile(f"{function}(object.t) == {function}(object.t)", where="test")
        try:
            ENVIRONMENT.evaluate(expression, ENVIRONMENT.values({"object": {"t": filler}}))
        except EvaluationError as error:
            assert str(error)  # noqa: PT017 - either is well


def test_zero_bytes_of_an_expression_are_not_cut() -> None:
    for text in (r"'a\x00b,c'.split(',')", r"'ab'.find(dyn('a\x00.*'))", r"'a\x00b'.find('b')", r"['a\x00'].max()"):
        with pytest.raises(EvaluationError, match=r"zero byte|control characters"):
            value(text)


def test_a_value_of_a_type_cannot_be_forged() -> None:
    for forged in ("b'\\x00kubernetes.Quantity 1'", "'1 0 n'", "1"):
        with pytest.raises(EvaluationError, match="no such overload"):
            value(f"dyn({forged}).isLessThan(quantity('2'))")
