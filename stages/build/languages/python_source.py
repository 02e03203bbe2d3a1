"""Reading Python sources of strangers without running them: only what stands at the top of a module."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from stages.build.project import Project

LIMIT = 512 << 10
"""Of one module; its tree takes a hundred times as much."""


def parse(project: Project, path: str) -> ast.Module | None:
    """Return a module's tree; None where there is none that can be read."""
    if not project.has(path):
        return None
    try:
        data = project.read(path, limit=LIMIT)
    except ValueError:
        return None
    return parse_bytes(data or b"")


def parse_bytes(data: bytes) -> ast.Module | None:
    """Return the tree of a source, None where it is none."""
    try:
        return ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a module sets at its top, and what to."""
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            yield statement.target.id, statement.value


def functions(module: ast.Module) -> Iterator[ast.FunctionDef]:
    """Yield the functions at a module's top."""
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef):
            yield statement


def called(expression: ast.expr) -> str:
    """Return the last name of what an expression calls, `Flask` for `flask.Flask(...)`; empty for no call."""
    if not isinstance(expression, ast.Call):
        return ""
    function = expression.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def text_of(expression: ast.expr | None) -> str:
    """Return the text that an expression is, empty for any other."""
    return expression.value if isinstance(expression, ast.Constant) and isinstance(expression.value, str) else ""


def module_name(path: str) -> str:
    """Return the name of a module by its path: `shop/wsgi.py` is `shop.wsgi`, `shop/__init__.py` is `shop`."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
