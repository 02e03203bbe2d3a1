"""CEL's libraries: every answer in data/cel.json is an API server's, and is what the evaluation here gives.

tests/e2e/test_policy_conformance.py asks a real API server for the same answers.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from sekisho.cel import Environment, EvaluationError
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
