"""How a Python workload starts: its Procfile, else what the conventions of its framework say. Nothing is guessed.

Started programs listen on $PORT at all addresses. gunicorn reads PORT itself; the others get it as an option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sekisho.errors import Refusal
from stages.build.languages.python_apps import AppObject, find_app
from stages.build.languages.python_django import Django
from stages.build.languages.python_launch import LAUNCHER
from stages.build.languages.python_project import PyProject
from stages.build.languages.python_words import CommandLine, plain, read_command_line
from stages.build.procfile import web_lines
from stages.build.project import Project

PYTHON = "/usr/bin/python3"
_ENTRY = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)", re.ASCII)
_INTERPRETER = re.compile(r"python(?:3(?:\.\d+)?)?")
_REMEDY = "Write a line such as `web: gunicorn yourpackage.wsgi` into Procfile."

_LISTENS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "uvicorn": (("--host", "--port", "--uds", "--fd"), ("--host", "0.0.0.0", "--port", "${PORT}")),  # noqa: S104
    "hypercorn": (("--bind", "-b", "--config", "-c"), ("--bind", "0.0.0.0:${PORT}")),
    "daphne": (("--bind", "-b", "--port", "-p", "-u", "-e"), ("--bind", "0.0.0.0", "--port", "${PORT}")),  # noqa: S104
    "waitress-serve": (("--listen", "--port", "--host", "--unix-socket"), ("--listen=*:${PORT}",)),
    "granian": (("--host", "--port"), ("--host", "0.0.0.0", "--port", "${PORT}")),  # noqa: S104
}
"""Servers that do not read PORT: the options that say where they listen, and those for $PORT."""
_WSGI_SERVERS, _ASGI_SERVERS = ("gunicorn", "waitress", "granian"), ("uvicorn", "hypercorn", "daphne", "granian")
SERVERS = frozenset({*_WSGI_SERVERS, *_ASGI_SERVERS})
_ASGI_FRAMEWORKS = ("fastapi", "starlette", "quart", "litestar", "sanic", "channels")


@dataclass(frozen=True)
class Start:
    """How the workload starts."""

    command: tuple[str, ...]
    why: str
    """One sentence for people."""
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    """Folder of the workload to run in."""
    notes: tuple[str, ...] = ()


def find_start(
    project: Project, settings: PyProject, django: Django | None, packages: frozenset[str]
) -> Start | Refusal:
    """Return how the workload starts, or why that cannot be told.

    Args:
        project: the workload.
        settings: its pyproject.toml.
        django: what it has of Django.
        packages: names of the locked packages.

    Raises:
        Refusal: its Procfile has a line that cannot be run.
    """
    from_procfile = _of_procfile(project, django)
    if from_procfile:
        return from_procfile
    entry = settings.table("tool", "fastapi").get("entrypoint")
    if isinstance(entry, str) and _ENTRY.fullmatch(entry):
        return _served(entry, packages, "asgi", f"It starts {entry}, as pyproject.toml [tool.fastapi] says.")
    if django and (django.wsgi or django.asgi):
        return _of_django(django, packages)
    scripts = settings.scripts
    if len(scripts) == 1:
        name, target = next(iter(scripts.items()))
        return _of_script(name, target)
    found = find_app(project)
    if found:
        return _of_app(found, packages)
    return _unknown(project, scripts)


def _of_procfile(project: Project, django: Django | None) -> Start | None:
    found = web_lines(project)
    if not found:
        return None
    if len(found) > 1:
        raise Refusal(f"The Procfile has {len(found)} `web` lines, not one.", where=found[1].where, remedy=_REMEDY)
    where = found[0].where
    line = read_command_line(found[0].command, where=where)
    notes = []
    kept = tuple(command for command in line.commands if not _collects(command))
    if django and django.collects and len(kept) < len(line.commands) and kept:
        notes.append("Static files are collected while the image is made, not when it starts.")
        line = line.with_commands(kept)
    if line.folder and not project.has_folder(line.folder):
        raise Refusal(f"There is no folder {line.folder[:80]!r}.", where=where, remedy="Correct the `cd`.")
    if "runserver" in line.last or line.last[:2] == ("flask", "run"):
        notes.append(f"{where} starts a server that is meant for development.")
    return _launched(line, f"It starts as {where} says.", tuple(notes))


def _collects(command: tuple[str, ...]) -> bool:
    return "collectstatic" in command and any(word.endswith("manage.py") for word in command)


def _launched(line: CommandLine, why: str, notes: tuple[str, ...] = ()) -> Start:
    """Return the start of a line: as it stands where it is one plain command, else by the launcher."""
    line = line.with_commands((*map(_renamed, line.commands[:-1]), _listening(_renamed(line.last))))
    # PORT is always set in the image; a default for it would never count.
    environment = {name: value for name, value in line.environment.items() if name != "PORT"}
    if line.is_plain():
        return Start(tuple(map(plain, line.last)), why, environment, line.folder, notes)
    return Start((PYTHON, "-ISc", LAUNCHER, *line.launched()), why, environment, line.folder, notes)


def _renamed(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command with the one Python that is in the image."""
    return ("python3", *command[1:]) if _INTERPRETER.fullmatch(command[0]) else command


def _listening(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command of a server that says nowhere where it listens, with the option that says $PORT."""
    name, before = command[0], 1
    if command[:2] == ("python3", "-m") and len(command) > 2:  # noqa: PLR2004
        name, before = command[2], 3
    if name not in _LISTENS:
        return command
    options, added = _LISTENS[name]
    if any(word.split("=")[0] in options or word.endswith("...}") for word in command[before:]):
        return command
    return (*command[:before], *added, *command[before:])


def _of_django(django: Django, packages: frozenset[str]) -> Start | Refusal:
    first: tuple[str, ...] = ("asgi", "wsgi") if "channels" in packages else ("wsgi", "asgi")
    modules = {"wsgi": django.wsgi, "asgi": django.asgi}
    for kind in first:
        servers = _ASGI_SERVERS if kind == "asgi" else _WSGI_SERVERS
        if modules[kind] and any(server in packages for server in servers):
            entry = f"{modules[kind]}:application"
            return _served(entry, packages, kind, f"It is a Django site: {entry} is served.", django.folder)
    return _no_server(f"{django.wsgi or django.asgi}:application", "gunicorn", django.manage)


def _of_script(name: str, target: str) -> Start | Refusal:
    module, _, function = target.partition("[")[0].strip().partition(":")
    if not _ENTRY.fullmatch(f"{module}:{function}"):
        return Refusal(
            f"The script {name[:40]!r} is not `module:function`.", where="pyproject.toml", remedy="Correct it."
        )
    first = function.partition(".")[0]
    # What an installer would write into bin/: the workload is not installed, it stands in the image as it is.
    code = f"import sys; from {module} import {first}; sys.argv[0] = {name!r}; sys.exit({function}())"
    return Start(("python3", "-c", code), f"It starts {target}, the one script of pyproject.toml.")


def _of_app(found: AppObject, packages: frozenset[str]) -> Start | Refusal:
    kind = found.kind or ("asgi" if any(name in packages for name in _ASGI_FRAMEWORKS) else "wsgi")
    entry = f"{found.module}:{found.name}"
    why = f"It serves {entry}, which is in {found.path}."
    return _served(entry, packages, kind, why, factory=found.factory)


def _served(
    entry: str, packages: frozenset[str], kind: str, why: str, folder: str = "", *, factory: bool = False
) -> Start | Refusal:
    """Return the start of an application by a server that is locked."""
    servers = _ASGI_SERVERS if kind == "asgi" else _WSGI_SERVERS
    server = next((name for name in servers if name in packages), "")
    if not server:
        return _no_server(entry, "uvicorn" if kind == "asgi" else "gunicorn", entry.partition(":")[0])
    words: tuple[str, ...]
    if server == "gunicorn":
        words = ("gunicorn", f"{entry}()" if factory else entry)
    elif server == "waitress":
        words = ("waitress-serve", *(("--call",) if factory else ()), entry)
    elif server == "granian":
        words = ("granian", "--interface", kind, *(("--factory",) if factory else ()), entry)
    elif server == "uvicorn":
        words = ("uvicorn", *(("--factory",) if factory else ()), entry)
    else:
        words = (server, f"{entry}()" if factory else entry)
    return _launched(CommandLine((words,), folder=folder), why)


def _no_server(entry: str, server: str, where: str) -> Refusal:
    return Refusal(
        f"There is a web application, {entry}, and no server for it among the packages.",
        where=where,
        remedy=f"Add {server} to the packages and lock them again, or write a `web:` line into Procfile.",
    )


def _unknown(project: Project, scripts: Mapping[str, str]) -> Refusal:
    several = f"; pyproject.toml has {len(scripts)} scripts" if scripts else ""
    return Refusal(
        f"Nothing says how the workload starts: there is no Procfile{several}, and no Django, Flask or FastAPI "
        "application was found.",
        where=project.name,
        remedy=f"{_REMEDY[:-1]}, or name the command in score.yaml (containers.<name>.command).",
    )
