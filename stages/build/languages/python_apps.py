"""Finding a web application object by the conventions of Flask, FastAPI and their relatives, without running code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stages.build.languages import python_source as source
from stages.build.project import Project

WSGI: frozenset[str] = frozenset({"Flask", "Bottle", "APIFlask", "OpenAPI", "Eve", "get_wsgi_application"})
ASGI: frozenset[str] = frozenset(
    {"FastAPI", "Starlette", "Quart", "Litestar", "BlackSheep", "Sanic", "Robyn", "get_asgi_application"}
)
_FACTORIES = ("create_app", "make_app", "build_app", "get_app", "get_application", "create_application", "factory")
_NAMES = ("app", "application", "api", "server", "asgi", "wsgi")
_STEMS = ("wsgi", "asgi", "app", "main", "application", "server", "run", "api", "web", "index")
_FLASK_APP = re.compile(r"^[ \t]*(?:export[ \t]+)?FLASK_APP[ \t]*=[ \t]*[\"']?([\w./:]+)[\"']?[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True)
class AppObject:
    """Where the application is."""

    module: str
    name: str
    """Of the object, or of the function that makes it."""
    factory: bool
    kind: Literal["wsgi", "asgi", ""]
    """Empty where only the packages can tell."""
    path: str


def find_app(project: Project) -> AppObject | None:
    """Return the first application object in the order of the conventions, None for none."""
    made: AppObject | None = None
    for path in _candidates(project):
        tree = source.parse(project, path)
        found = _in_module(tree, _module(project, path), path) if tree else None
        if found and not found.factory:
            return found
        made = made or found
    return made


def _candidates(project: Project) -> Iterator[str]:
    """Yield modules in which an application is looked for: the top, `src`, and the packages there."""
    seen: set[str] = set()

    def once(paths: list[str]) -> Iterator[str]:
        for path in paths:
            if path not in seen and project.has(path):
                seen.add(path)
                yield path

    said = _FLASK_APP.search(project.text(".flaskenv", limit=1 << 16) or "")
    if said:
        name = said[1].partition(":")[0]
        yield from once([name if name.endswith(".py") else f"{name.replace('.', '/')}.py"])
    yield from once([f"{stem}.py" for stem in _STEMS])
    packages = [path.removesuffix("/__init__.py") for path in project.files("__init__.py") if path.count("/") <= 2]  # noqa: PLR2004
    packages = [name for name in packages if "/" not in name or (name.startswith("src/") and name.count("/") == 1)]
    packages.sort(key=lambda name: (name.rpartition("/")[2] != "app", name))
    yield from once([f"{stem}.py" for stem in ("app/main", "src/main", "src/app")])
    for package in packages:
        if package.rpartition("/")[2] not in ("tests", "test", "docs"):
            yield from once([f"{package}/{stem}.py" for stem in (*_STEMS, "__init__")])
    if not packages:
        yield from once([path for path in project.files("*.py") if "/" not in path])


def _module(project: Project, path: str) -> str:
    """Return a module's name as its own project imports it: `src` is mostly no package."""
    if path.startswith("src/") and not project.has("src/__init__.py"):
        text = (project.read(path) or b"").decode("utf-8", "replace")
        if not re.search(r"^[ \t]*(?:from|import) src\b", text, re.MULTILINE):
            path = path.removeprefix("src/")
    return source.module_name(path)


def _in_module(tree: ast.Module, module: str, path: str) -> AppObject | None:
    found: list[AppObject] = []
    for name, value in source.assignments(tree):
        made_by = source.called(value)
        if made_by in WSGI or made_by in ASGI:
            found.append(AppObject(module, name, False, "wsgi" if made_by in WSGI else "asgi", path))
        elif name in _NAMES and made_by in _FACTORIES:
            found.append(AppObject(module, name, False, "", path))
    for function in source.functions(tree):
        arguments = function.args
        needed = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
        if function.name in _FACTORIES and not needed:
            found.append(AppObject(module, function.name, True, _made_in(function), path))
    found.sort(key=lambda one: (one.factory, _NAMES.index(one.name) if one.name in _NAMES else len(_NAMES)))
    return found[0] if found else None


def _made_in(function: ast.FunctionDef) -> Literal["wsgi", "asgi", ""]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and (name := source.called(node)) in WSGI | ASGI:
            return "wsgi" if name in WSGI else "asgi"
    return ""
