"""Regular expressions: `text.find(pattern)` and `text.findAll(pattern, limit)`.

Source: k8s.io/apiserver pkg/cel/library/regex.go, which stands on Go's regexp. Go and the evaluator's RE2 read the same
language, run in linear time, and find the same leftmost match; Python's `re` does neither. The evaluator has no
function that gives whole matches, so each match is put between two marks, and what stands between them is taken out.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from sekisho.cel.declared import INT, STRING, Library, Overload, list_of
from sekisho.cel.opaque import EvaluationError, string

_MARKS = ("\x01", "\x02")


@cache
def _replace() -> tuple[Any, Any]:
    from cel_expr_python import cel  # noqa: PLC0415 - a 50 MB library that `--help` need not load

    config = cel.NewEnvConfigFromYaml("name: patterns\nextensions:\n- name: optional\n- name: regex\n")
    variables = dict.fromkeys(("text", "pattern", "with"), cel.Type.STRING)
    env = cel.NewEnv(None, config=config, variables=variables)
    return env, env.compile("regex.replace(text, pattern, with)")


def check(pattern: str) -> None:
    """Refuse what the API server's expressions do not read.

    Raises:
        EvaluationError: Go's regexp does not take it, or takes it for something else.
    """
    # A byte, in RE2 only; after an even number of backslashes it is a plain C.
    if re.search(r"(?<!\\)(\\\\)*\\C", pattern):
        raise EvaluationError("Illegal regex: invalid escape sequence: `\\C`")
    _matches("", pattern)


def _matches(text: str, pattern: str) -> list[str]:
    before, after = _MARKS
    if {before, after, "\0"} & set(text) or "\0" in pattern:
        raise EvaluationError("the text holds control characters that are not searched here")
    env, expression = _replace()
    data = {"text": text, "pattern": pattern, "with": f"{before}\\0{after}"}
    try:
        value = expression.eval(env.Activation(data))
    except RuntimeError as error:
        raise EvaluationError(f"Illegal regex: {error}"[:300]) from error
    found = value.value()
    if not isinstance(found, str) or value.type().name() != "STRING":
        raise EvaluationError(f"Illegal regex: {found}"[:300])
    return re.findall(f"{before}([^{after}]*){after}", found)


def _find(text: Any, pattern: Any) -> str:
    check(string(pattern))
    found = _matches(string(text), pattern)
    return found[0] if found else ""


def _find_all(text: Any, pattern: Any, limit: Any = -1) -> list[str]:
    check(string(pattern))
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise EvaluationError("no such overload")
    found = _matches(string(text), pattern)
    return found[:limit] if limit >= 0 else found


LIBRARY = Library(
    "patterns",
    {
        "find": (Overload("string_find_string", (STRING, STRING), STRING, member=True),),
        "findAll": (
            Overload("string_find_all_string", (STRING, STRING), list_of(STRING), member=True),
            Overload("string_find_all_string_int", (STRING, STRING, INT), list_of(STRING), member=True),
        ),
    },
    {
        "string_find_string": _find,
        "string_find_all_string": _find_all,
        "string_find_all_string_int": _find_all,
    },
)
