"""The evaluator: google's cel-expr-python, set up as the API server's.

Two environments of it are used. One compiles: it knows every function with its types, Kubernetes' own types among
them. The other evaluates: it knows the functions that are written in Python, each under a name of its own.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from sekisho.cel import addresses, formats, lists, patterns, quantities, strings, urls, versions
from sekisho.cel.conversions import CONVERSIONS, number
from sekisho.cel.declared import Library, type_yaml
from sekisho.cel.exact import EQUALS, NUMBER, conversion_name, equals_name, function_name
from sekisho.cel.opaque import NAMES, EvaluationError, Kind, kind_of
from sekisho.cel.syntax import Type

LIBRARIES: tuple[Library, ...] = tuple(
    module.LIBRARY for module in (quantities, addresses, urls, versions, lists, patterns, formats, strings)
)
_EXTENSIONS = """
- {name: optional}
- {name: sets}
- {name: lists, version: 2}
- {name: two-var-comprehensions}
"""
# Versions: those of apiserver/pkg/cel/environment/base.go; version 3 of the lists differs in costs only.

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    id_: function for library in LIBRARIES for id_, function in library.functions.items()
}
_SHARED = {
    "quantity_add_int": "quantity_add",
    "quantity_sub_int": "quantity_sub",
    "cidr_contains_ip_string": "cidr_contains_ip_ip",
    "cidr_contains_cidr_string": "cidr_contains_cidr",
}
"""Overloads that another's function answers as well."""
OURS = frozenset(FUNCTIONS) | frozenset(_SHARED) | frozenset({"ip_to_string", "cidr_to_string"})
_PLAIN_TYPES = frozenset({"dyn", "bool", "int", "double", "string", "bytes", "timestamp", "duration"})
_CHOICES = ("is_greater_than", "is_less_than", "compare_to")


@cache
def library() -> Any:
    """Load the evaluator: 50 MB that `--help` need not load."""
    from cel_expr_python import cel  # noqa: PLC0415

    if sys.version_info < (3, 12):
        _keep_none()
    return cel


def _keep_none() -> None:
    """Give `None` so many references that they never run out.

    The library gives one away for each null that it hands to Python, and an object full of nulls would end the process
    (`none_dealloc`). From Python 3.12 on `None` is immortal by itself (PEP 683).
    """
    ctypes.c_ssize_t.from_address(id(None)).value += 1 << 60


def _declarations() -> list[dict[str, Any]]:
    functions: dict[str, list[dict[str, Any]]] = {}
    for found in LIBRARIES:
        for name, overloads in found.declarations.items():
            for overload in overloads:
                parameters = [type_yaml(text) for text in overload.parameters]
                body: dict[str, Any] = {"id": overload.id, "return": type_yaml(overload.result)}
                if overload.member:
                    body["target"], parameters = parameters[0], parameters[1:]
                functions.setdefault(name, []).append(body | ({"args": parameters} if parameters else {}))
    return [{"name": name, "overloads": overloads} for name, overloads in functions.items()]


@cache
def _functions() -> str:
    # JSON is YAML; a function of the standard library that is declared anew must first be left out.
    text = f"name: check\nstdlib: {{exclude_functions: [{{name: string}}]}}\nextensions:{_EXTENSIONS}\n"
    return f"{text}functions: {json.dumps(_declarations())}\n"


@lru_cache(maxsize=256)
def compiler(variables: frozenset[tuple[str, Type]]) -> Any:
    """Return an environment that compiles expressions over these variables.

    Raises:
        RuntimeError: a type that no variable can have.
    """
    plain = {name: found for name, type_ in variables if (found := _plain_type(type_)) is not None}
    if len(plain) == len(variables):
        return library().NewEnv(None, config=_plain_config(), variables=plain)
    declared = [{"name": name, **type_yaml(str(type_))} for name, type_ in sorted(variables, key=str)]
    config = library().NewEnvConfigFromYaml(f"{_functions()}variables: {json.dumps(declared)}\n")
    return library().NewEnv(None, config=config)


@cache
def _plain_config() -> Any:
    """Return what all environments share; reading it takes longer than all else."""
    return library().NewEnvConfigFromYaml(_functions())


def _plain_type(type_: Type) -> Any:
    """Return a type as the library's own object, None for one that those objects cannot hold."""
    types = library().Type
    if type_.name in NAMES:
        return types.AbstractType(type_.name)
    if type_.name in _PLAIN_TYPES:
        return getattr(types, type_.name.upper())
    inner = [_plain_type(part) for part in type_.parameters]
    if type_.name not in {"list", "map"} or any(part is None for part in inner):
        return None
    return types.List(*inner) if type_.name == "list" else types.Map(*inner)


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that fails with nothing but an EvaluationError, whatever it is given."""

    def guarded(*values: Any) -> Any:
        try:
            found = function(*values)
        except EvaluationError:
            raise
        except (RecursionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise EvaluationError(f"cannot be computed: {error}"[:300]) from error
        if _cut(found):
            raise EvaluationError("the result holds text with a zero byte")
        return found

    return guarded


def _cut(value: Any) -> bool:
    """Tell whether a result holds text that the evaluator would cut: it reads up to a zero byte."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_cut(key) or _cut(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_cut, value))


def _choice(name: str) -> Callable[..., Any]:
    by_kind = {Kind.QUANTITY: FUNCTIONS[f"quantity_{name}"], Kind.SEMVER: FUNCTIONS[f"semver_{name}"]}

    def chosen(one: Any, other: Any) -> Any:
        kind = kind_of(one)
        if kind not in by_kind:
            raise EvaluationError("no such overload")
        return by_kind[kind](one, other)

    return chosen


@cache
def evaluator() -> Any:
    """Return the environment that evaluates."""
    cel = library()
    sizes = {
        overload.id: len(overload.parameters)
        for found in LIBRARIES
        for overloads in found.declarations.values()
        for overload in overloads
    } | {"list_range": 1}
    functions: dict[str, tuple[Callable[..., Any], int]] = {
        function_name(id_): (function, sizes[id_]) for id_, function in FUNCTIONS.items()
    }
    functions |= {function_name(id_): (FUNCTIONS[other], sizes[id_]) for id_, other in _SHARED.items()}
    functions |= {equals_name(kind): (function, 2) for kind, function in EQUALS.items()}
    functions |= {conversion_name(name): (function, 1) for name, function in CONVERSIONS.items()}
    functions[NUMBER] = (number, 1)
    functions[function_name("list_int_sum_int|list_double_sum_double")] = (lists.sum_any, 1)
    for name in _CHOICES:
        functions[function_name(f"quantity_{name}|semver_{name}")] = (_choice(name), 2)
    declared = [
        cel.FunctionDecl(
            name,
            [
                cel.Overload(
                    id=name,
                    return_type=cel.Type.DYN,
                    parameters=[cel.Type.DYN] * size,
                    is_member=False,
                    impl=_guarded(function),
                )
            ],
        )
        for name, (function, size) in functions.items()
    ]
    text = f"name: run\nextensions:{_EXTENSIONS}- {{name: strings, version: 2}}\n- {{name: bindings}}\n"
    config = cel.NewEnvConfigFromYaml(text)
    return cel.NewEnv(None, config=config, extensions=[cel.CelExtension("kubernetes", declared)])
