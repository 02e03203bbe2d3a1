"""CEL as the API server knows it, as far as the policies here need it.

The environment is that of ValidatingAdmissionPolicy (k8s.io/apiserver, pkg/admission/plugin/policy/validating): the
standard library, optional types and the string functions. What the API server has beyond that (quantity, url, ip,
sets, regex, ...) does not compile here, and what this library has beyond the API server is not switched on: an
expression that would mean two things, or nothing, in one of the two places is refused when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sekisho.errors import PermanentError


class EvaluationError(ValueError):
    """An expression failed on a value, for example because a field is missing."""


@dataclass(frozen=True)
class Expression:
    """A compiled expression."""

    text: str
    compiled: Any

    @property
    def type_name(self) -> str:
        """Return the static type, for example BOOL, STRING, DYN."""
        return str(self.compiled.return_type())


class Environment:
    """Variables with their types; compiles expressions and evaluates them."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        from cel_expr_python import cel  # noqa: PLC0415 - a 50 MB library that `--help` need not load
        from cel_expr_python.ext import ext_optional, ext_strings  # noqa: PLC0415

        self._cel = cel
        self._variables = dict(variables)
        # Version 2 of the string functions is what the API server links (apiserver/pkg/cel/environment/base.go).
        self._env = cel.NewEnv(
            None, variables=self._variables, extensions=[ext_optional.ExtOptional(), ext_strings.ExtStrings(2)]
        )

    @classmethod
    def of(cls, *names: str) -> Environment:
        """Return an environment in which each name may hold anything."""
        from cel_expr_python import cel  # noqa: PLC0415

        return cls(dict.fromkeys(names, cel.Type.DYN))

    def extended(self, name: str, type_: Any) -> Environment:
        """Return an environment with one variable more."""
        return Environment({**self._variables, name: type_})

    def compile(self, text: str, *, where: str, wanted: str = "") -> Expression:
        """Compile an expression.

        Args:
            text: the expression.
            where: where it stands, for the error.
            wanted: the static type it must have, for example BOOL; empty for any. As in the API server, an expression
                of type DYN is not a BOOL.

        Raises:
            PermanentError: it does not compile, or has another type.
        """
        try:
            expression = Expression(text, self._env.compile(text))
        except RuntimeError as error:
            lines = str(error).splitlines() or [""]
            raise PermanentError(
                f"The expression does not compile: {lines[0][:300]}",
                where=where,
                remedy="Correct the policy; nothing passes while a policy cannot be read.",
            ) from error
        if wanted and expression.type_name != wanted:
            raise PermanentError(f"The expression gives {expression.type_name}, not {wanted}.", where=where)
        return expression

    def values(self, data: Mapping[str, Any]) -> Any:
        """Return values bound to the environment's variables, converted once for many expressions."""
        return self._env.Activation(dict(data))

    def evaluate(self, expression: Expression, values: Any) -> Any:
        """Return an expression's value as plain Python.

        Raises:
            EvaluationError: a field is missing, types do not fit, a division by zero, ...
        """
        try:
            value = expression.compiled.eval(values)
        except RuntimeError as error:
            raise EvaluationError(str(error)[:300]) from error
        if value.type() == self._cel.Type.ERROR:
            raise EvaluationError(str(value.value()).splitlines()[0][:300])
        return value.plain_value()
