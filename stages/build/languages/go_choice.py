"""Which program of a Go workload is the one that starts.

In this order: the Procfile's `web` line (`./bin/name`, `name`, `go run ./cmd/name`); the program at the top; the one
in cmd/ that is named like the module or the app; the only one in cmd/; the only one. Nothing else is guessed: where
there are several, all are built, and score.yaml or a Procfile has to name one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from sekisho.errors import Refusal
from stages.build.languages.go_tree import Tree
from stages.build.procfile import web_lines
from stages.build.project import Project

MAX_PROGRAMS = 12

_SHELL = re.compile(r"[$`;&|<>*?~(){}\[\]!\\\n]")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL | re.ASCII)
_VERSION = re.compile(r"v[0-9]+")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,100}")
_ASIDE = frozenset({
    "example", "examples", "_examples", "test", "tests", "testing", "e2e", "tools", "tool", "hack", "script", "scripts",
    "doc", "docs", "misc", "ci", "contrib", "bench", "benchmark", "benchmarks", "fuzz", "internal",
})  # fmt: skip
"""Folders whose programs are for people who work on the workload."""
_SHOWN = 8


@dataclass(frozen=True)
class Program:
    """A main package."""

    folder: str
    name: str
    """Of its binary, as `go install` names it."""

    @property
    def target(self) -> str:
        """The package as the go command takes it."""
        return f"./{self.folder}" if self.folder else "."


@dataclass(frozen=True)
class Choice:
    """What is built, and what starts."""

    programs: tuple[Program, ...]
    start: Program | None
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    refusal: Refusal | None = None
    """Why nothing starts."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Said:
    """A Procfile's `web` line."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    where: str


def choose(project: Project, tree: Tree) -> Choice:
    """Return the programs to build and the one to start.

    Raises:
        Refusal: there is no program, or the Procfile names one that is not there or needs a shell.
    """
    programs = _programs(tree)
    said = _procfile(project)
    found = _automatic(project, tree, programs)
    if said is not None:
        return _named(said, programs, found)
    if found is not None:
        aside = [program.target for program in programs if program != found and not _is_aside(program)]
        notes = (f"{found.target} is built; not built: {_list(aside)}.",) if aside else ()
        return Choice((found,), found, notes=notes)
    candidates = tuple(program for program in programs if not _is_aside(program)) or programs
    refusal = Refusal(
        f"There are {len(candidates)} programs here, and nothing says which one starts: "
        f"{_list([program.target for program in candidates])}.",
        where=project.name,
        remedy=f"Write into Procfile `web: {candidates[0].name}`, or name one in score.yaml: "
        f'containers.<name>.command: ["{candidates[0].name}"].',
    )
    if len(candidates) > MAX_PROGRAMS:
        raise refusal
    return Choice(candidates, None, refusal=refusal)


def executable(import_path: str) -> str:
    """Return the name of a program's binary, as `go install` gives it."""
    parts = import_path.split("/")
    if len(parts) > 1 and _VERSION.fullmatch(parts[-1]) and parts[-1] not in ("v0", "v1"):
        parts.pop()
    return parts[-1]


def _programs(tree: Tree) -> tuple[Program, ...]:
    found: list[Program] = []
    for folder in tree.mains():
        name = executable(tree.import_path(folder))
        if any(program.name == name for program in found):
            name = folder.replace("/", "-") or name
        if not _NAME.fullmatch(name):
            raise Refusal(
                f"The program in ./{folder} would be called {name[:80]!r}.", where=folder, remedy="Rename the folder."
            )
        found.append(Program(folder, name))
    if not found:
        raise Refusal(
            "There is no program here: no folder has Go files with `package main` for Linux.",
            where=tree.project.name,
            remedy="A library is not deployed by itself; commit the program, for example cmd/<name>/main.go.",
        )
    return tuple(found)


def _automatic(project: Project, tree: Tree, programs: Sequence[Program]) -> Program | None:
    top = next((program for program in programs if not program.folder), None)
    if top is not None:
        return top
    candidates = [program for program in programs if not _is_aside(program)] or list(programs)
    commands = [program for program in candidates if "cmd" in PurePosixPath(program.folder).parts[:-1]
                or PurePosixPath(program.folder).name == "cmd"]  # fmt: skip
    mains = [module for module in tree.modules if module.main]
    wanted = {executable(module.path) for module in mains if len(mains) == 1}
    wanted.add(project.app)
    alike = [program for program in commands if program.name in wanted]
    for group in (alike, commands, candidates):
        if len(group) == 1:
            return group[0]
    return None


def _is_aside(program: Program) -> bool:
    return bool(set(PurePosixPath(program.folder).parts) & _ASIDE)


def _named(said: _Said, programs: Sequence[Program], automatic: Program | None) -> Choice:
    words = said.words
    if words[:2] == ("go", "run"):
        rest = list(words[2:])
        while rest and rest[0].startswith("-"):
            rest.pop(0)
        target = rest.pop(0) if rest else "."
        while rest and target.endswith(".go") and rest[0].endswith(".go"):
            rest.pop(0)
        folder = str(PurePosixPath(target).parent if target.endswith(".go") else PurePosixPath(target))
        folder = "" if folder == "." else folder
        match = next((program for program in programs if program.folder == folder), None)
        choice = Choice((), match, tuple(rest), said.environment)
    else:
        name = PurePosixPath(words[0]).name
        alike = [program for program in programs if name in (program.name, PurePosixPath(program.folder).name)]
        match = alike[0] if len(alike) == 1 else None
        choice = Choice((), match, words[1:], said.environment)
        if match is None and automatic is not None:
            note = f"The Procfile starts {words[0]}, which no package here is named after: {automatic.target} is taken."
            choice = replace(choice, start=automatic, notes=(note,))
    if choice.start is None:
        raise Refusal(
            f"The Procfile starts {' '.join(words)[:80]!r}, and no program here is called so; there are "
            f"{_list([program.target for program in programs])}.",
            where=said.where,
            remedy=f"Write for example `web: {programs[0].name}`.",
        )
    return replace(choice, programs=(choice.start,))


def _procfile(project: Project) -> _Said | None:
    found = [web for web in web_lines(project) if web.command]
    if not found:
        return None
    command, where = found[0].command, found[0].where
    if len(found) > 1:
        raise Refusal("The Procfile has two `web` lines.", where=found[1].where, remedy="Remove one.")
    if _SHELL.search(command):
        raise Refusal(
            f"The command {command[:80]!r} needs a shell, and the image of a Go program has none.",
            where=where,
            remedy="Read variables in the program: PORT is set to the port that score.yaml names.",
        )
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise Refusal(f"The command cannot be read: {error}", where=where, remedy="Close the quotes.") from error
    environment: dict[str, str] = {}
    while words and (match := _ASSIGNMENT.fullmatch(words[0])):
        environment[match[1]] = match[2]
        words.pop(0)
    if words[:1] == ["exec"]:
        words.pop(0)
    if not words:
        raise Refusal("The `web` line names no program.", where=where, remedy="Write for example `web: server`.")
    return _Said(tuple(words), environment, where)


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
