"""Compiling and evaluating expressions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from sekisho.cel import patterns, runtime
from sekisho.cel.exact import NotExactError, prepared, refuse
from sekisho.cel.opaque import EvaluationError
from sekisho.cel.syntax import DYN, TRUE, Call, Name, Node, Type, bound, changed, walk
from sekisho.cel.wire import read, written
from sekisho.errors import PermanentError

_FAULTS = (RuntimeError, TypeError, ValueError, OverflowError, MemoryError)
"""What the evaluator raises: its own errors, and those that it makes of C++'s."""
_SCALARS = frozenset({int, float, bool, type(None)})
_REMEDY = "Correct the policy; nothing passes while a policy cannot be read."


@dataclass(frozen=True)
class Expression:
    """A compiled expression."""

    text: str
    type: Type
    """The static type."""
    tree: Node = field(repr=False)
    """As it is evaluated, with variables by their names."""
    definitions: Mapping[str, Node] = field(repr=False)
    """What the variables stand for, each before those that use it."""

    @cached_property
    def program(self) -> Any:
        """The expression as it is evaluated, with what its variables stand for around it."""
        needed: set[str] = set()
        waiting = [self.tree]
        while waiting:
            for node in walk(waiting.pop()):
                if isinstance(node, Name) and node.name in self.definitions and node.name not in needed:
                    needed.add(node.name)
                    waiting.append(self.definitions[node.name])
        root = self.tree
        for name in reversed([*self.definitions]):
            if name in needed:
                root = bound(name, self.definitions[name], root)
        return runtime.evaluator().deserialize(written(root))

    @property
    def type_name(self) -> str:
        """Return the static type in capitals, for example BOOL, STRING, DYN."""
        return str(self.type).upper()


class Environment:
    """Variables with their types; compiles expressions and evaluates them."""

    def __init__(
        self,
        variables: Mapping[str, Type],
        names: Mapping[str, str] | None = None,
        definitions: Mapping[str, Node] | None = None,
    ) -> None:
        """Make an environment.

        Args:
            variables: name and type of each.
            names: of variables that stand for an expression, the name under which the evaluator knows it.
            definitions: the expressions by these names, each after those that it uses.
        """
        self._variables = dict(variables)
        self._names = dict(names or {})
        self._definitions = dict(definitions or {})

    @classmethod
    def of(cls, *names: str) -> Environment:
        """Return an environment in which each name may hold anything."""
        return cls(dict.fromkeys(names, DYN))

    def extended(self, name: str, type_: Type) -> Environment:
        """Return an environment with one variable more."""
        return Environment({**self._variables, name: type_}, self._names, self._definitions)

    def defined(self, name: str, expression: Expression) -> Environment:
        """Return an environment with a variable that has this value; it is worked out where it is looked at.

        Within one evaluation it is worked out once, even by expressions of different environments, as long as they
        define it alike: the name that the evaluator sees says what it stands for.
        """
        variables = {**self._variables, name: expression.type}
        unique = f"{name}@{hashlib.sha256(written(expression.tree)).hexdigest()}"
        names = {**self._names, name: unique}
        return Environment(variables, names, {**self._definitions, unique: expression.tree})

    def compile(self, text: str, *, where: str, wanted: str = "") -> Expression:
        """Compile an expression.

        Args:
            text: the expression.
            where: where it stands, for the error.
            wanted: the static type it must have, for example BOOL; empty for any. As in the API server, an expression
                of type DYN is not a BOOL.

        Raises:
            PermanentError: it does not compile, or has another type, or would not mean here what it means there.
        """
        try:
            tree, type_ = _checked(frozenset(self._variables.items()), text)
        except (RuntimeError, NotExactError) as error:
            lines = str(error).splitlines() or [""]
            raise PermanentError(
                f"The expression does not compile: {lines[0][:300]}", where=where, remedy=_REMEDY
            ) from error
        expression = Expression(text, type_, changed(tree, self._renamed), self._definitions)
        if wanted and expression.type_name != wanted:
            raise PermanentError(f"The expression gives {expression.type_name}, not {wanted}.", where=where)
        return expression

    def _renamed(self, node: Node) -> Node:
        return Name(node.id, self._names[node.name]) if isinstance(node, Name) and node.name in self._names else node

    def values(self, data: Mapping[str, Any]) -> Any:
        """Return values bound to the variables, converted once for many expressions of any environment.

        Raises:
            EvaluationError: they hold what does not arrive in an expression as it is.
        """
        try:
            for value in data.values():
                _check(value)
        except RecursionError as error:
            raise EvaluationError("the value is nested too deeply") from error
        return runtime.evaluator().Activation(dict(data))

    def evaluate(self, expression: Expression, values: Any) -> Any:
        """Return an expression's value as plain Python.

        Raises:
            EvaluationError: a field is missing, types do not fit, a division by zero, ...
        """
        try:
            return _plain(expression.program.eval(values))
        except EvaluationError:
            raise
        except _FAULTS as error:
            raise EvaluationError(str(error).partition("\n")[0][:300]) from error


@lru_cache(maxsize=1024)
def _checked(variables: frozenset[tuple[str, Type]], text: str) -> tuple[Node, Type]:
    """Return an expression as it is evaluated, and its type. Kept: policies are read anew and again, mostly unchanged.

    Raises:
        RuntimeError: it does not compile.
        NotExactError: it would not mean here what it means in the API server.
    """
    tree = read(runtime.compiler(variables).compile(text).serialize())
    refuse(tree, ours=runtime.OURS, pattern=_pattern_problem, literal=_literal_problem)
    return prepared(tree, ours=runtime.OURS), tree.type_of(tree.root)


def all_of(checks: Sequence[Expression], *, unless: Sequence[Expression] = ()) -> Expression:
    """Return one expression for many: true where all of `checks` are.

    Args:
        checks: conditions that must hold; at least one.
        unless: conditions, all of which must hold for the checks to count: where one is false, all is well.
    """
    definitions: dict[str, Node] = {}
    for each in (*checks, *unless):
        definitions |= each.definitions
    root = _conjunction([check.tree for check in checks])
    if unless:
        root = Call(0, "_?_:_", None, (_conjunction([each.tree for each in unless]), root, TRUE))
    text = " && ".join(check.text for check in checks)
    return Expression(text, checks[0].type, root, definitions)


def _conjunction(nodes: Sequence[Node]) -> Node:
    """Return all nodes joined by `&&`, as a tree that is as low as can be."""
    if len(nodes) == 1:
        return nodes[0]
    half = len(nodes) // 2
    return Call(0, "_&&_", None, (_conjunction(nodes[:half]), _conjunction(nodes[half:])))


def _check(value: Any) -> None:
    """Refuse text that the evaluator would cut or choke on: a zero byte, half of a surrogate pair."""
    kind = type(value)
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise EvaluationError("the value holds text that is not Unicode") from error
        if "\0" in value:
            raise EvaluationError("the value holds text with a zero byte")
    elif kind is dict:
        for key, item in value.items():
            _check(key)
            _check(item)
    elif kind is list:
        for item in value:
            _check(item)
    elif kind not in _SCALARS:
        raise EvaluationError(f"the value holds what is no JSON: {kind.__name__}")


def _pattern_problem(text: str) -> str:
    try:
        patterns.check(text)
    except EvaluationError as error:
        return str(error)
    return ""


def _literal_problem(call: Node) -> str:
    env = runtime.evaluator()
    try:
        _plain(env.deserialize(written(call)).eval(env.Activation({})))
    except (EvaluationError, *_FAULTS) as error:
        return str(error)
    return ""


def _plain(value: Any) -> Any:
    """Return a value as plain Python.

    Raises:
        EvaluationError: it is an error, or of a kind that is none of Python's, such as an optional value.
    """
    if value.type() == runtime.library().Type.ERROR:
        raise EvaluationError(str(value.value()).partition("\n")[0][:300])
    return value.plain_value()
